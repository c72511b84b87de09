"""``hedgerow device key``: made, listed and revoked from the command line, and seen on the devices that came with it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.parts import search_path
from tests.registry_server import Api, RunningServer

_CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hedgerow(server: RunningServer, tmp_path: Path) -> Run:
    top = str(Path(__file__).parents[2])
    env = {"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": top, "HEDGEROW_WORKSPACE": str(server.workspace)}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*_CLI, *arguments], cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_a_key_from_its_making_to_its_end(hedgerow: Run, server: RunningServer, api: Api, tmp_path: Path) -> None:
    made = hedgerow("device", "key", "create", "line", "--names", "mill-", "-t", "site=north", "--uses", "2", "-o", "line.key")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "line.key"
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in made.stdout
    key_id = secret.split("_")[1]
    answered = api.post("/api/v1/enroll", json={"installation": "a" * 32}, headers={"authorization": f"Bearer {secret}"})
    name = answered.json()["config"]["name"]
    listed = {one["id"]: one for one in json.loads(hedgerow("device", "key", "list", "--json").stdout)}
    assert (listed[key_id]["uses"], listed[key_id]["uses_max"], listed[key_id]["secret"]) == (1, 2, None)
    row = next(line for line in hedgerow("device", "key", "list").stdout.splitlines() if key_id in line)
    for word in ("line", "mill-*", "site=north", "1 of 2", "good"):
        assert word in row
    assert f"with key line ({key_id})" in hedgerow("device", "show", name).stdout
    assert f"line ({key_id})" in hedgerow("device", "list", "--name", name).stdout
    typed = f"hedgerow device key revoke {key_id[:6]}"
    asked = {"_HEDGEROW_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": "4"}
    assert key_id in hedgerow(**asked).stdout
    assert hedgerow("device", "key", "revoke", key_id, "--yes").returncode == 0
    row = next(line for line in hedgerow("device", "key", "list").stdout.splitlines() if key_id in line)
    assert "revoked" in row


def test_a_secret_is_printed_where_no_file_is_named(hedgerow: Run) -> None:
    assert hedgerow("device", "key", "create", "one", "--device", "press-77").stdout.startswith("hre_")
    group = json.loads(hedgerow("device", "key", "create", "all", "--group", "--no-expiry", "--json").stdout)
    assert (group["uses_max"], group["expires_at"]) == (None, None)
    assert group["secret"].startswith("hre_")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--group", "--uses", "3"), "--group or --uses"),
        (("--uses", "0"), "0"),
        (("--device", "a", "--names", "b"), "at once"),
        (("--device", "a", "--group"), "one use"),
        (("--expires", "soon"), "no duration"),
        (("-o", "taken"), "exists already"),
    ],
)
def test_wrong_wishes_are_told(hedgerow: Run, api: Api, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    (tmp_path / "taken").touch()
    before = api.get("/api/v1/enrollment-keys").json()
    done = hedgerow("device", "key", "create", "line", *options)
    assert done.returncode != 0
    assert words in done.stderr
    assert api.get("/api/v1/enrollment-keys").json() == before
    assert (tmp_path / "taken").read_bytes() == b""
