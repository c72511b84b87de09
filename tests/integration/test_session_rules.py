"""The rules that hold for every test session: a skip is a failure, a warning is an error, real parts are found or fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.inventory import TOP


def _session(folder: Path, test_file: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_inner.py"
    path.write_text(test_file)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(TOP / "pyproject.toml"),
        "-p",
        "tests.conftest",
        *options,
        str(path),
    ]
    return subprocess.run(
        argv,
        cwd=TOP,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "test_file",
    [
        "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no gate here')\n",
        "import pytest\ndef test_a(): pass\n@pytest.mark.skip('no gate here')\ndef test_b(): pass\n",
        "import pytest\npytest.skip('no gate here', allow_module_level=True)\n",
    ],
)
def test_a_skip_fails_the_session_and_is_listed(test_file: str, tmp_path: Path) -> None:
    done = _session(tmp_path, test_file)
    assert done.returncode != 0, done.stdout
    assert "skipped, which counts as failed" in done.stdout
    assert "no gate here" in done.stdout


def test_so_it_does_when_tests_run_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "test_skipped_whole.py").write_text("import pytest\npytest.skip('no gate at all', allow_module_level=True)\n")
    skips = "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no gate here')\n"
    done = _session(tmp_path, skips, "-n", "2", str(tmp_path / "test_skipped_whole.py"))
    assert done.returncode != 0, done.stdout
    assert "skipped, which counts as failed" in done.stdout
    assert "no gate here" in done.stdout
    assert "no gate at all" in done.stdout


def test_an_expected_failure_is_no_skip_and_must_fail(tmp_path: Path) -> None:
    fails = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert 0\n"
    assert _session(tmp_path, fails).returncode == 0
    assert _session(tmp_path, fails.replace("assert 0", "pass")).returncode == 1


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    assert _session(tmp_path, "import warnings\ndef test_a(): warnings.warn('old')\n").returncode == 1


def test_a_missing_program_fails_with_its_package(tmp_path: Path) -> None:
    test_file = "from tests.fixtures import parts\ndef test_a(): parts.program('hedgerow-no-such-program')\n"
    done = _session(tmp_path, test_file)
    assert done.returncode == 1
    assert "hedgerow-no-such-program is missing: run `make test-parts`" in done.stdout
