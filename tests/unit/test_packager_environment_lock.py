"""Requirements are tidied or refused, and what uv answers becomes a lock with one digest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hedgerow.contracts.platforms import PlatformRepeated, UnsupportedPlatform, normal_platforms
from packager.environment.lock import lock_text, make_lock, tidy_requirements
from packager.environment.platforms import uv_platform
from packager.environment.uv_command import environment_for_uv
from packager.environment.uv_words import said
from packager.errors import RequirementRefused
from packager.settings import OLDEST_PYTHON_MINOR, RUNTIME_REQUIREMENTS

HASH_A, HASH_B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
COMPILED = f"""\
flask==3.1.3 \\
    --hash={HASH_B} \\
    --hash={HASH_A}
Jinja_2.extra==1.0+local ; python_version < '4' \\
    --hash={HASH_A}
"""


def test_requirements_are_sorted_and_said_once() -> None:
    lines = ["numpy>=1.26  # arrays", "", "# comment", "flask", "numpy>=1.26", "pandas[excel]==2.2 ; python_version<'4'"]
    assert tidy_requirements(lines) == ["flask", "numpy>=1.26", "pandas[excel]==2.2 ; python_version<'4'"]


def test_hedgerow_itself_has_a_layer_of_its_own() -> None:
    assert tidy_requirements(["hedgerow[runtime]==1.0", "Hedgerow", "hedgerow-plugin"]) == ["hedgerow-plugin"]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "-r other.txt",
        "-e .",
        "./local",
        "/abs/package.whl",
        "pkg @ https://example.org/p.whl",
        "pkg @ file:///etc",
        "https://example.org/p.whl",
        "git+https://example.org/p.git",
        "numpy\n--index-url=x",
        "numpy pandas",
        "numpy==1.2.x.y",
    ],
)
def test_what_reaches_beyond_the_index_is_refused(line: str) -> None:
    with pytest.raises(RequirementRefused):
        tidy_requirements([line])


def test_a_lock_is_read_from_what_uv_wrote() -> None:
    lock = make_lock(["flask"], "3.11", "linux/amd64", COMPILED)
    assert [(package.name, package.version, package.hashes) for package in lock.packages] == [
        ("flask", "3.1.3", [HASH_A, HASH_B]),
        ("jinja-2-extra", "1.0+local", [HASH_A]),
    ]


def test_a_lock_goes_back_to_uv_as_it_came() -> None:
    lock = make_lock([], "3.11", "linux/amd64", COMPILED)
    assert make_lock([], "3.11", "linux/amd64", lock_text(lock)) == lock


def test_digest_depends_on_packages_python_and_platform_only() -> None:
    lock = make_lock(["flask"], "3.11", "linux/amd64", COMPILED)
    assert make_lock(["other"], "3.11", "linux/amd64", COMPILED).digest == lock.digest
    others = {
        make_lock(["flask"], "3.12", "linux/amd64", COMPILED).digest,
        make_lock(["flask"], "3.11", "linux/arm64", COMPILED).digest,
        make_lock(["flask"], "3.11", "linux/amd64", COMPILED.replace("3.1.3", "3.1.4")).digest,
    }
    assert lock.digest not in others
    assert len(others) == 3


def test_platforms_that_have_no_wheels_are_named() -> None:
    assert uv_platform("linux/arm64") == uv_platform("linux/arm64/v8") == "aarch64-manylinux_2_28"
    for name in ("linux/riscv64", "windows/amd64", "linux/arm/v6", ""):
        with pytest.raises(UnsupportedPlatform, match=f"'{name}'"):
            uv_platform(name)


def test_a_platform_has_one_name_and_is_built_once() -> None:
    assert normal_platforms(["linux/x86_64", "linux/arm64/v8", " Linux/armhf"]) == ["linux/amd64", "linux/arm64", "linux/arm/v7"]
    with pytest.raises(PlatformRepeated, match=r"linux/arm64 was named twice \(linux/arm64 and linux/arm64/v8\)"):
        normal_platforms(["linux/arm64", "linux/amd64", "linux/arm64/v8"])
    with pytest.raises(PlatformRepeated, match=r"twice \(linux/amd64\)"):
        normal_platforms(["linux/amd64", "linux/amd64"])


def test_runtime_requirements_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    core = [line for line in project["dependencies"] if line.startswith("msgspec")]
    assert sorted(RUNTIME_REQUIREMENTS) == sorted(core + project["optional-dependencies"]["runtime"])
    assert project["requires-python"] == f">=3.{OLDEST_PYTHON_MINOR}"


def test_uv_sees_only_what_it_needs_of_the_environment(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "UV_INDEX_URL": "x", "https_proxy": "p", "HEDGEROW_TOKEN": "secret", "HOME": str(tmp_path)}
    assert environment_for_uv(given, Path("/cache")) == {
        key: given[key] for key in ("PATH", "UV_INDEX_URL", "https_proxy", "HOME")
    }
    assert environment_for_uv({"HOME": "/nonexistent"}, Path("/cache"))["UV_CACHE_DIR"] == "/cache/uv"


def test_what_uv_says_becomes_one_sentence() -> None:
    stderr = "Using CPython 3.11\n  × No solution found when resolving dependencies:\n  ╰─▶ Because only nosuch<=1 is available\n"
    assert said(stderr) == "No solution found when resolving dependencies: Because only nosuch<=1 is available"
    assert said("") == "uv gave no reason"
