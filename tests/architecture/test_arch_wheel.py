"""What people install: the wheel holds the five packages, their data files, the fleet simulator, and nothing else.

The simulator (``hedgerow-fleet-sim``) measures a control plane that is installed somewhere, so it has to come with it; the other
load tests need this tree.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.inventory import PACKAGES, TOP
from tests.architecture.test_arch_sizes import tracked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


SIMULATOR = ("loadtests/__init__.py", "loadtests/fleet_sim/")


def test_wheel_holds_the_five_packages_and_the_simulator_only(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names if not name.startswith(SIMULATOR)} == set(PACKAGES)


def test_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    """Templates, migrations and py.typed too."""
    files = [path.relative_to(TOP) for path in tracked("*")]
    wanted = {str(path) for path in files if path.parts[0] in PACKAGES or str(path).startswith(SIMULATOR)}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == wanted


def test_wheel_says_its_licence_and_entry_points(wheel: zipfile.ZipFile) -> None:
    info = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "Apache License" in wheel.read(info["LICENSE"]).decode()
    scripts = wheel.read(info["entry_points.txt"]).decode()
    assert "hedgerow = hedgerow.cli.main:main" in scripts
    assert "hedgerow-fleet-sim = loadtests.fleet_sim.__main__:main" in scripts


def test_the_simulator_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Nothing of this tree is on its path, so it needs only what the wheel and its extras bring."""
    wheel.extractall(tmp_path)
    code = "from loadtests.fleet_sim import __main__ as sim; print(sim.__file__); sim.main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert "--devices" in done.stdout
