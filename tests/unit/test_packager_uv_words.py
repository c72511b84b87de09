"""What uv says becomes one short sentence. The texts are those of uv 0.13 for real packages; the last have the older form."""

# ruff: noqa: E501 - uv's lines are kept as they came

from __future__ import annotations

import pytest

from packager.environment.uv_words import advice, explain, said, unreachable

CASES = {
    "clash_asked": (
        "clash",
        "tensorflow==2.12.0 needs numpy>=1.22,<1.24, but numpy>=2 is asked for",
        """\
error: No solution found when resolving dependencies
  cause: Because tensorflow==2.12.0 depends on numpy>=1.22,<1.24 and you require numpy>=2, we can conclude that your requirements and tensorflow==2.12.0 are incompatible.
         And because you require tensorflow==2.12.0, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "clash_chain": (
        "clash",
        "azureml-defaults==1.56.0 needs flask<2.3.0, but flask>=3.0 (of the scoring server) is asked for",
        """\
error: No solution found when resolving dependencies
  cause: Because azureml-inference-server-http==1.0.0 depends on flask<2.3.0 and azureml-defaults==1.56.0 depends on azureml-inference-server-http>=1.0.0,<1.1.dev0, we can conclude that azureml-defaults==1.56.0 depends on flask<2.3.0.
         And because you require azureml-defaults==1.56.0 and flask>=3.0, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "clash_keras": (
        "clash",
        "tensorflow==2.15.0 needs keras>=2.15.0,<2.16, but keras>=3 is asked for",
        """\
error: No solution found when resolving dependencies
  cause: Because tensorflow==2.15.0 depends on keras>=2.15.0,<2.16 and you require tensorflow==2.15, we can conclude that you require keras>=2.15.0,<2.16.
         And because you require keras>=3, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "clash_needs": (
        "clash",
        "pandas==3.0.0 needs numpy>=1.26.0, but tensorflow==2.12.0 needs numpy>=1.22,<1.24",
        """\
error: No solution found when resolving dependencies
  cause: Because pandas==3.0.0 depends on numpy{python_full_version < '3.14'}>=1.26.0 and tensorflow==2.12.0 depends on numpy>=1.22,<1.24, we can conclude that pandas==3.0.0 and tensorflow==2.12.0 are incompatible.
         And because you require tensorflow==2.12.0 and pandas==3.0.0, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "clash_twice": (
        "clash",
        "scikit-learn==1.2 and scikit-learn>=1.3 are both asked for",
        """\
error: No solution found when resolving dependencies
  cause: Because you require scikit-learn==1.2 and scikit-learn>=1.3, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "version_none": (
        "version",
        "numpy==1.26.99 is not on the package index",
        """\
error: No solution found when resolving dependencies
  cause: Because there is no version of numpy==1.26.99 and you require numpy==1.26.99, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "version_only": (
        "version",
        "numpy>=99 is not on the package index, which has numpy<=2.5.5",
        """\
error: No solution found when resolving dependencies
  cause: Because only numpy<=2.5.5 is available and you require numpy>=99, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "unnamed": (
        "unnamed",
        "nosuchpackagexyz is not on the package index",
        """\
error: No solution found when resolving dependencies
  cause: Because nosuchpackagexyz was not found in the package registry and you require nosuchpackagexyz>=1, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "wheel_source": (
        "wheel",
        "docopt has no wheel that fits (there is only: its source)",
        """\
error: No solution found when resolving dependencies
  cause: Because all versions of docopt have no usable wheels and you require docopt, we can conclude that your requirements are unsatisfiable.
hint: Wheels are required for `docopt` because building from source is disabled for all packages (i.e., with `--no-build`)
""",
    ),
    "wheel_needed": (
        "wheel",
        "pyhive[hive]==0.7.0.dev0 needs sasl>=0.2.1, which has no wheel that fits (there is only: its source)",
        """\
error: No solution found when resolving dependencies
  cause: Because sasl>=0.2.1 has no usable wheels and pyhive[hive]==0.7.0.dev0 depends on sasl>=0.2.1, we can conclude that pyhive[hive]==0.7.0.dev0 cannot be used.
         And because all of:
             pyhive[hive]<=0.6.5
             pyhive[hive]>=0.7.0
          have no usable wheels and you require pyhive[hive], we can conclude that your requirements are unsatisfiable.
hint: Wheels are required for `pyhive` because building from source is disabled for all packages (i.e., with `--no-build`)
hint: Wheels are required for `sasl` because building from source is disabled for all packages (i.e., with `--no-build`)
""",
    ),
    "wheel_range": (
        "wheel",
        "scikit-learn<1.0 has no wheel that fits (there is only: its source, wheels for Python 3.6, 3.7, 3.8)",
        """\
error: No solution found when resolving dependencies
  cause: Because all of:
             scikit-learn<=0.20.4
             scikit-learn>=0.21.1,<=0.22.1
             scikit-learn>=0.22.2.post1,<=0.24.2
          have no usable wheels and only the following versions of scikit-learn are available:
             scikit-learn<=0.20.4
             scikit-learn==0.21.0
             scikit-learn>=0.21.1,<=0.22.1
             scikit-learn==0.22.2
             scikit-learn>=0.22.2.post1
         we can conclude that all of:
             scikit-learn<0.21.0
             scikit-learn>0.21.0,<0.22.2
             scikit-learn>0.22.2,<=0.24.2
          cannot be used.
         And because all of:
             scikit-learn==0.21.0
             scikit-learn==0.22.2
          have no wheels with a matching Python ABI tag (e.g., `cp311`), we can conclude that scikit-learn<=0.24.2 cannot be used.
         And because only the following versions of scikit-learn are available:
             scikit-learn<=0.24.2
             scikit-learn>=1.0
         and you require scikit-learn<1.0, we can conclude that your requirements are unsatisfiable.
hint: Wheels are required for `scikit-learn` because building from source is disabled for all packages (i.e., with `--no-build`)
hint: You require CPython 3.11 (`cp311`), but we only found wheels for `scikit-learn` (v0.22.2) with the following Python ABI tags: `cp36m`, `cp37m`, `cp38`
""",
    ),
    "wheel_abi_range": (
        "wheel",
        "tensorflow<2.12 has no wheel that fits (there is only: wheels for Python 3.8, 3.9, 3.10)",
        """\
error: No solution found when resolving dependencies
  cause: Because tensorflow<=2.11.1 has no wheels with a matching Python ABI tag (e.g., `cp313`) and only the following versions of tensorflow are available:
             tensorflow<=2.11.1
             tensorflow>=2.12
         we can conclude that tensorflow<2.12 cannot be used.
         And because you require tensorflow<2.12, we can conclude that your requirements are unsatisfiable.
hint: You require CPython 3.13 (`cp313`), but we only found wheels for `tensorflow` (v2.11.1) with the following Python ABI tags: `cp38`, `cp39`, `cp310`
""",
    ),
    "wheel_windows": (
        "wheel",
        "pywin32 has no wheel that fits (there is only: wheels for Python 3.6, 3.7, 3.8, 3.9, 3.10, wheels for Windows win32, Windows amd64, Windows arm64)",
        """\
error: No solution found when resolving dependencies
  cause: Because pywin32<=302 has no wheels with a matching Python ABI tag (e.g., `cp311`) and only the following versions of pywin32 are available:
             pywin32<=302
             pywin32>=303
         we can conclude that pywin32<303 cannot be used.
         And because pywin32>=303 has no wheels with a matching platform tag (e.g., `manylinux_2_28_x86_64`) and you require pywin32, we can conclude that your requirements are unsatisfiable.
hint: You require CPython 3.11 (`cp311`), but we only found wheels for `pywin32` (v302) with the following Python ABI tags: `cp36m`, `cp37m`, `cp38`, `cp39`, `cp310`
hint: Wheels are available for `pywin32` (v312) on the following platforms: `win32`, `win_amd64`, `win_arm64`
""",
    ),
    "yanked_all": (
        "version",
        "yank means versions that were withdrawn: yank==1.0 (broken), yank==2.0 (bad licence)",
        """\
error: No solution found when resolving dependencies
  cause: Because yank==1.0 was yanked (reason: broken) and only the following versions of yank are available:
             yank==1.0
             yank==2.0
         we can conclude that all of:
             yank<2.0
             yank>2.0
          cannot be used.
         And because yank==2.0 was yanked (reason: bad licence) and you require yank, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "yanked_range": (
        "version",
        "yank>=1.5 means versions that were withdrawn: yank==2.0 (bad licence)",
        """\
error: No solution found when resolving dependencies
  cause: Because yank==2.0 was yanked (reason: bad licence) and only the following versions of yank are available:
             yank<1.5
             yank==2.0
         we can conclude that yank>=1.5 cannot be used.
         And because you require yank>=1.5, we can conclude that your requirements are unsatisfiable.
""",
    ),
    "older_form": (
        "version",
        "numpy>=99 is not on the package index, which has numpy<=2.5.5",
        """\
  × No solution found when resolving dependencies:
  ╰─▶ Because only numpy<=2.5.5 is available and you require numpy>=99, we can
      conclude that your requirements are unsatisfiable.
""",
    ),
    "older_form_of_a_clash": (
        "clash",
        "tensorflow==2.12.0 needs numpy>=1.22,<1.24, but numpy>=2 is asked for",
        """\
  × No solution found when resolving dependencies:
  ╰─▶ Because tensorflow==2.12.0 depends on numpy>=1.22,<1.24 and you require
      numpy>=2, we can conclude that your requirements and tensorflow==2.12.0
      are incompatible.
""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_one_short_sentence(name: str) -> None:
    kind, problem, stderr = CASES[name]
    found = explain(stderr, own=["flask>=3.0"])
    assert (found.kind, found.problem) == (kind, problem)


def test_what_is_not_understood_is_passed_on() -> None:
    found = explain("error: Something new\n  cause: Because of the weather")
    assert (found.kind, found.problem) == ("unknown", "Something new Because of the weather")
    assert explain("").problem == "uv gave no reason"


def test_advice_fits_the_reason() -> None:
    told = {name: advice(explain(stderr)) for name, (_, _, stderr) in CASES.items()}
    assert "Leave azureml-defaults and its like out" in told["clash_chain"]
    assert "Change one of the two" in told["clash_keras"]
    assert "--dockerfile" in told["wheel_source"]
    assert "spelling" in told["unnamed"]
    assert "version that is there" in told["yanked_all"]


NETWORK = {
    "net_refused": """\
error: Request failed after 3 retries in 10.0s
  cause: Failed to fetch: http://127.0.0.1:9/simple/numpy/
  cause: error sending request for url (http://127.0.0.1:9/simple/numpy/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
""",
    "net_dns": """\
error: Request failed after 3 retries in 11.9s
  cause: Failed to fetch: http://nosuch.invalid/simple/numpy/
  cause: error sending request for url (http://nosuch.invalid/simple/numpy/)
  cause: client error (Connect)
  cause: dns error
  cause: error resolving DNS
  cause: failed to lookup address information: Name or service not known
""",
    "net_401": """\
error: No solution found when resolving dependencies
  cause: Because numpy was not found in the package registry and you require numpy, we can conclude that your requirements are unsatisfiable.
hint: An index URL (http://127.0.0.1:18401/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)
""",
    "net_403": """\
error: No solution found when resolving dependencies
  cause: Because numpy was not found in the package registry and you require numpy, we can conclude that your requirements are unsatisfiable.
hint: An index (http://127.0.0.1:18403/simple) returned a 403 Forbidden error. Check that the index URL is correct and the credentials are valid.
""",
    "net_500": """\
error: Request failed after 3 retries in 4.1s
  cause: Failed to fetch: http://127.0.0.1:18500/simple/numpy/
  cause: HTTP status server error (500 Internal Server Error) for url (http://127.0.0.1:18500/simple/numpy/)
""",
    "net_offline": """\
error: No solution found when resolving dependencies
  cause: Because pylint was not found in the cache and you require pylint, we can conclude that your requirements are unsatisfiable.
hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may only be read from the cache.
""",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net_refused", "http://127.0.0.1:9/simple/numpy/: Connection refused (os error 111)"),
        ("net_dns", "http://nosuch.invalid/simple/numpy/: failed to lookup address information: Name or service not known"),
        ("net_401", "401 Unauthorized"),
        ("net_403", "403 Forbidden"),
        ("net_500", "500 Internal Server Error"),
        ("net_offline", "network was disabled"),
    ],
)
def test_an_index_that_does_not_answer_is_no_missing_package(name: str, words: str) -> None:
    assert words in (unreachable(NETWORK[name]) or "")


@pytest.mark.parametrize("name", CASES)
def test_a_missing_package_is_no_unreachable_index(name: str) -> None:
    assert unreachable(CASES[name][2]) is None


def test_passwords_of_an_index_are_not_repeated() -> None:
    stderr = "error: invalid value 'http://user:geheim@127.0.0.1:187010/simple' for '--default-index <DEFAULT_INDEX>': invalid port number"
    assert "geheim" not in said(stderr) + explain(stderr).problem
    failed = "error: Failed to fetch: http://user:geheim@host/simple/\n  cause: Connection refused"
    assert unreachable(failed) == "http://***@host/simple/: Connection refused"
