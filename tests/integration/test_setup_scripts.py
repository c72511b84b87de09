"""What sets a fresh machine up says one clear sentence when it cannot, and leaves the machine as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.inventory import TOP
from scripts.setup_test_parts import POLICY_TEXT, missing, no_service_starts, read_parts
from tests.fixtures.private_folder import private_folder

_PART = """
[[part]]
program = "hedgerow-no-such-program"
package = "hedgerow-no-such-package"
use = "nothing at all"
quickstart = true
"""


# Also "nobody" must be able to run it; an interpreter in somebody's home is closed to that user.
_PYTHON = next((path for path in ("/usr/bin/python3.11", "/usr/bin/python3.12") if Path(path).exists()), "/usr/bin/python3")


@pytest.fixture
def tree() -> Iterator[Path]:
    """The files that setting up reads, with one part more than any machine has; open to every user."""
    with private_folder("setup") as folder:
        folder.chmod(0o755)
        shutil.copytree(TOP / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tests").mkdir()
        (folder / "tests" / "parts.toml").write_text((TOP / "tests" / "parts.toml").read_text() + _PART)
        for name in ("pyproject.toml", "constraints.txt", "Makefile"):
            shutil.copy(TOP / name, folder)
        yield folder


def _parts(tree: Path, *options: str, as_nobody: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"] if as_nobody and os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, _PYTHON, str(tree / "scripts" / "setup_test_parts.py"), *options],
        env={"PATH": "/usr/bin:/bin", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_checking_only_names_what_is_missing_and_the_command(tree: Path) -> None:
    done = _parts(tree, HEDGEROW_NO_INSTALL="1")
    assert done.returncode == 1
    assert done.stderr.startswith("test parts: missing, and HEDGEROW_NO_INSTALL is set: ")
    assert "Install them with: sudo apt-get install --no-install-recommends" in done.stderr
    assert "hedgerow-no-such-package" in done.stderr
    assert done.stderr.count("\n") == 1


def test_quickstart_goes_on_without_the_part_and_says_so(tree: Path) -> None:
    done = _parts(tree, "--quickstart", HEDGEROW_NO_INSTALL="1")
    assert done.returncode == 0
    assert "quickstart: goes on without" in done.stdout
    assert "nothing at all" in done.stdout


def test_a_user_without_rights_is_told_what_to_have_installed(tree: Path) -> None:
    done = _parts(tree, "--quickstart", as_nobody=True, HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "hedgerow-no-such-package" in done.stdout


def test_the_parts_table_holds_what_this_session_runs_with() -> None:
    assert [part.program for part in missing(read_parts())] == []


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n", POLICY_TEXT])
def test_services_may_start_again_afterwards_as_before(before: str | None, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    if before:
        policy.write_text(before)
    with no_service_starts([], policy):
        assert subprocess.run([str(policy)], check=False, timeout=10).returncode == 101
    left = [path.read_text() for path in tmp_path.iterdir()]
    # What an earlier run of ours left when it was killed is cleaned up, not kept as the machine's own.
    assert left == ([before] if before and before != POLICY_TEXT else [])


def test_a_policy_saved_by_a_killed_run_comes_back(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(POLICY_TEXT)
    (tmp_path / "policy-rc.d.before-hedgerow").write_text("#!/bin/sh\nexit 104\n")
    with pytest.raises(KeyboardInterrupt), no_service_starts([], policy):
        raise KeyboardInterrupt
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert [path.name for path in tmp_path.iterdir()] == ["policy-rc.d"]


def _setup_python(tree: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "dev"], cwd=tree, env={"HOME": str(tree), **env}, capture_output=True, text=True, timeout=120, check=False
    )


def test_without_a_package_index_setup_ends_with_one_sentence(tree: Path) -> None:
    empty = tree / "no-packages"
    empty.mkdir()
    path = f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    done = _setup_python(tree, PATH=path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(empty), PIP_CONFIG_FILE="/dev/null")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("setup: Packages could not be fetched; what pip and uv said is in .setup.log.")
    assert "uv" in (tree / ".setup.log").read_text()
    assert not list(tree.glob(".venv/stamp-*"))


def test_without_a_python_that_is_new_enough_setup_says_which(tree: Path) -> None:
    old = tree / "old"
    old.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    done = _setup_python(tree, PATH=f"{old}:/usr/bin:/bin")
    assert done.returncode != 0
    assert "setup: Hedgerow needs Python 3.11 or newer and found none." in done.stderr


def test_ci_runs_what_a_person_runs() -> None:
    text = (TOP / ".ci" / "run").read_text()
    assert text.rstrip().endswith("exec make test")
    assert os.access(TOP / ".ci" / "run", os.X_OK)


def test_help_is_the_list_of_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=TOP, capture_output=True, text=True, timeout=20, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {
        "quickstart",
        "test",
        "check",
        "soak",
        "bench",
        "golden",
        "clean",
        "dev",
        "help",
    }
