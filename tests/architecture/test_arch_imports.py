"""Which way imports point, and that importing does nothing but define."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import inventory

TOP = inventory.TOP
SHAPELESS_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc", "shared"}
# What `hedgerow --help` must not pay for.
HEAVY = ("rich", "httpx", "registry", "packager", "runtime", "edge_agent", "numpy", "sqlalchemy", "msgspec", "docker")
PROBE = Path(__file__).with_name("import_probe.py")


def test_import_linter_keeps_the_arrows() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_module_names_say_what_is_in_them() -> None:
    shapeless = [
        str(path.relative_to(TOP)) for path in inventory.source_files() if SHAPELESS_NAMES & set(path.with_suffix("").parts[-2:])
    ]
    assert not shapeless, "name a module for what it does"


@pytest.fixture(scope="module")
def findings() -> list[str]:
    """What importing every module did besides defining: found by import_probe.py in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-B", str(PROBE), *inventory.module_names()],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_importing_a_module_does_nothing(findings: list[str]) -> None:
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\nX = os.environ.get('HOME')", "reads the environment"),
        ("import os\nX = os.getenv('HOME')", "reads the environment"),
        ("import socket\nX = socket.create_server(('127.0.0.1', 0))", "socket.bind"),
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "starts a thread"),
        ("import pathlib\npathlib.Path(__file__).with_name('made').write_text('x')", "writes"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("import logging\nlogging.basicConfig()", "sets up logging"),
        ("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)", "signal handler"),
        ("import sys\nsys.path.insert(0, '/nowhere')", "sys.path"),
        ("X = 1", None),
    ],
)
def test_the_probe_finds_what_it_looks_for(code: str, expected: str | None, tmp_path: Path) -> None:
    """The probe itself can fail: each thing it forbids, done by a module."""
    (tmp_path / "guilty.py").write_text(code + "\n")
    done = subprocess.run(
        [sys.executable, "-P", "-B", str(PROBE), "--path", str(tmp_path), "guilty"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found == []) if expected is None else any(expected in line for line in found), found


def test_help_is_light() -> None:
    code = "import sys; sys.argv = ['hedgerow', '--help']; from hedgerow.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Commands" in done.stdout
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert "hedgerow" in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))
