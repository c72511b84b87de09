"""``hedgerow edge deploy`` tells the traps of a manifest: warnings aloud, errors as a refusal that can be passed over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.parts import search_path
from tests.registry_server import RunningServer

_CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
MODULES = '[modules.pump]\ncommand = ["x"]\nlimits = { memory_bytes = 1000000 }\n'
NOWHERE = MODULES + "[routes]\nr = 'FROM /messages/modules/pump/* INTO BrokeredEndpoint(\"/modules/pum/inputs/i\")'\n"


@pytest.fixture
def deploy(server: RunningServer, tmp_path: Path) -> Run:
    top = str(Path(__file__).parents[2])
    env = {"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": top, "HEDGEROW_WORKSPACE": str(server.workspace)}

    def run(name: str, manifest: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "m.toml").write_text(manifest)
        argv = [*_CLI, "edge", "deploy", name, "--manifest", "m.toml", "--target", "tags.none = '1'", *options]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_a_route_to_nowhere_is_refused_unless_somebody_insists(deploy: Run) -> None:
    refused = deploy("nowhere", NOWHERE)
    assert refused.returncode == 1
    assert "$.routes.r" in refused.stderr
    assert "Did you mean 'pump'?" in refused.stderr
    assert "--no-lint" in refused.stderr
    assert refused.stdout == ""
    as_json = deploy("nowhere", NOWHERE, "--json")
    assert (as_json.returncode, as_json.stdout) == (1, "")
    assert "$.routes.r" in as_json.stderr
    shown = deploy("nowhere", NOWHERE, "--dry-run")
    assert (shown.returncode, "$.routes.r" in shown.stderr) == (0, True)
    insisted = deploy("nowhere", NOWHERE, "--no-lint")
    assert (insisted.returncode, "Deployed nowhere (revision 1)" in insisted.stdout) == (0, True)


def test_warnings_are_told_and_deployed(deploy: Run) -> None:
    done = deploy("hungry", '[modules.pump]\ncommand = ["x"]\n')
    assert done.returncode == 0
    assert "no memory limit" in done.stderr
    quiet = deploy("hungry", '[modules.pump]\ncommand = ["x"]\n', "--json")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert json.loads(quiet.stdout)["revision"] == 1
