"""Signing keys end to end: a key kept elsewhere signs by files, an old key is retired, devices believe nobody else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec, UpdatePolicy
from hedgerow.contracts.signing import SignedStates, UnsignedStates
from hedgerow.sdk.client import Client
from hedgerow.sdk.edge_signing import keyid_of, signed
from hedgerow.sdk.errors import ApiError
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.control_plane import ControlPlane
from tests.fixtures.parts import search_path
from tests.integration.test_device_key_rotation import Enrolled
from tests.waiting import wait_for

PATIENCE_S = 60.0
TOP = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hedgerow(control_plane: ControlPlane, tmp_path: Path) -> Run:
    def run(*arguments: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
        # Where there is no server: a step that needs one fails.
        place = tmp_path / "nothing" if offline else control_plane.workspace
        env = {"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": str(TOP), "HEDGEROW_WORKSPACE": str(place)}
        done = subprocess.run([*CLI, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def agent(client: Client, tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(Enrolled(client.devices.enroll("porch").config), tmp_path / "device") as started:
        wait_for_or_show(started, lambda: client.devices.get("porch").online, PATIENCE_S, "the device online")
        yield started


def sleeping(seconds: int) -> EdgeDeployment:
    module = ModuleSpec(command=["/bin/sleep", str(seconds)], update=UpdatePolicy(commit_after_s=0.1))
    return EdgeDeployment(name="sleepers", target="*", modules={"m": module})


def waits(client: Client) -> int:
    return wait_for(lambda: client.devices.get("porch").unsigned_version, timeout_s=PATIENCE_S, what="a state that waits")


def applied(client: Client, agent: AgentProcess, version: int) -> None:
    def look() -> bool:
        found = client.devices.get("porch").reported
        return found is not None and (found.desired.version, found.desired.code) == (version, 200)

    wait_for_or_show(agent, look, PATIENCE_S, f"desired version {version} applied")


def ping(client: Client) -> int | None:
    return client.devices.invoke("porch", "ping").status


def answers(client: Client) -> bool:
    try:
        return ping(client) == 200
    except ApiError:
        return False


def test_a_key_kept_elsewhere_signs_by_files(client: Client, agent: AgentProcess, hedgerow: Run, tmp_path: Path) -> None:
    client.edge.deploy(sleeping(1000))
    applied(client, agent, 1)
    assert ping(client) == 200
    done = hedgerow("edge", "keys", "take-offline", "signing.key", "--yes")
    assert done.returncode == 0, done.stderr
    key = tmp_path / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "kept elsewhere" in done.stdout

    # The device is to believe the key for methods; before that nothing that key signs counts.
    first = waits(client)
    assert hedgerow("edge", "sign", "--export", "one.json").returncode == 0
    assert "waits for a signature" in hedgerow("device", "show", "porch").stdout
    assert hedgerow("edge", "sign", "one.json", "--key", "signing.key", offline=True).returncode == 2, "nobody was asked"
    done = hedgerow("edge", "sign", "one.json", "--key", "signing.key", "--yes", offline=True)
    assert done.returncode == 0, done.stderr
    assert "believes key" in done.stderr
    assert "for methods" in done.stderr
    done = hedgerow("edge", "sign", "--import", "one.json.signed")
    assert done.returncode == 0, done.stderr
    applied(client, agent, first)
    assert ping(client) == 200, "the key that stayed signs method calls"

    # A change waits, shows what it is, and is told stale when something else is wanted by then.
    client.edge.deploy(sleeping(2000))
    second = waits(client)
    hedgerow("edge", "sign", "--export", "two.json")
    done = hedgerow("edge", "sign", "two.json", "--key", "signing.key", "--yes", offline=True)
    assert '["/bin/sleep","2000"]' in done.stderr
    client.edge.deploy(sleeping(3000))
    wait_for(lambda: client.devices.get("porch").unsigned_version > second, timeout_s=PATIENCE_S, what="what waits now")
    done = hedgerow("edge", "sign", "--import", "two.json.signed")
    assert done.returncode == 1
    assert "has changed since" in done.stderr
    hedgerow("edge", "sign", "--export", "three.json")
    hedgerow("edge", "sign", "three.json", "--key", "signing.key", "--yes", offline=True)
    assert hedgerow("edge", "sign", "--import", "three.json.signed").returncode == 0
    applied(client, agent, second + 1)
    assert client.devices.get("porch").unsigned_version == 0
    agent.stop()
    agent.start()
    # What it believes outlives the agent. The session of before may still run when the call is made.
    wait_for_or_show(agent, lambda: answers(client), PATIENCE_S, "a method being answered")


def test_other_keys_and_other_bytes_are_refused(client: Client, agent: AgentProcess, hedgerow: Run, tmp_path: Path) -> None:
    assert hedgerow("edge", "keys", "take-offline", "signing.key", "--yes").returncode == 0
    waits(client)
    hedgerow("edge", "sign", "--export", "one.json")
    waiting = decode((tmp_path / "one.json").read_bytes(), UnsignedStates)
    strange = Ed25519PrivateKey.generate()
    brought = SignedStates(workspace_id=waiting.workspace_id, states=[signed(waiting.states[0], strange)])
    (answer,) = client.signing_keys.bring(brought).refused
    assert "no signature by a trusted key" in answer.problem
    (tmp_path / "strange.key").write_bytes(base64.b64encode(strange.private_bytes_raw()))
    done = hedgerow("edge", "sign", "one.json", "--key", "strange.key", "--yes", offline=True)
    assert (done.returncode, f"this is key {keyid_of(strange)}" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "one.json.signed").exists()
    done = hedgerow("edge", "sign", "--import", "one.json")
    assert (done.returncode, "one.json holds no signatures" in done.stderr) == (1, True), done.stderr
    assert "hedgerow edge sign one.json --key KEYFILE" in done.stderr
    (tmp_path / "no.json").write_text("[modules]")
    done = hedgerow("edge", "sign", "no.json", "--key", "signing.key", "--yes", offline=True)
    assert (done.returncode, "no.json is not what" in done.stderr) == (1, True), done.stderr
    done = hedgerow("edge", "keys", "take-offline", "another.key", "--yes")
    assert (done.returncode, "No key that may sign desired states" in done.stderr) == (1, True), done.stderr
    # What is no desired state, or says more than this release can show, is not signed.
    for payload in (b'{"evil": true}', base64.b64decode(waiting.states[0].payload)[:-1] + b',"new_field":1}'):
        states = [{**json.loads(encode(waiting.states[0])), "payload": base64.b64encode(payload).decode()}]
        (tmp_path / "bad.json").write_text(json.dumps({"workspace_id": waiting.workspace_id, "states": states}))
        done = hedgerow("edge", "sign", "bad.json", "--key", "signing.key", "--yes", offline=True)
        assert done.returncode == 1
        assert "is not signed" in done.stderr
        assert not (tmp_path / "bad.json.signed").exists()


def test_a_device_that_is_away_holds_up_no_key_but_the_one_that_it_needs(client: Client, agent: AgentProcess) -> None:
    client.edge.deploy(sleeping(1000))
    applied(client, agent, 1)
    (first,) = client.signing_keys.list()
    second = client.signing_keys.add()
    wait_for_or_show(
        agent, lambda: all(not key.unconfirmed for key in client.signing_keys.list()), PATIENCE_S, "the second key being believed"
    )
    agent.stop()
    third = client.signing_keys.add()
    # It believes the second, which signs as well, so the first may go; then the second may not.
    assert [key.keyid for key in client.signing_keys.retire(first.keyid)] == [second.keyid, third.keyid]
    with pytest.raises(ApiError, match="could not be told anything: porch"):
        client.signing_keys.retire(second.keyid)


def test_an_old_key_is_retired_when_every_device_believes_the_new_one(client: Client, agent: AgentProcess, hedgerow: Run) -> None:
    client.edge.deploy(sleeping(1000))
    applied(client, agent, 1)
    (old,) = client.signing_keys.list()
    assert hedgerow("edge", "keys", "rotate").returncode == 0
    wait_for_or_show(
        agent, lambda: all(not key.unconfirmed for key in client.signing_keys.list()), PATIENCE_S, "the new key being believed"
    )
    late = client.devices.enroll("late").config
    assert len(late.trusted_keys) == 2
    with pytest.raises(ApiError, match="1 devices could not be told anything: late"):
        client.signing_keys.retire(old.keyid)
    client.devices.delete("late")
    assert hedgerow("edge", "keys", "retire", old.keyid, "--yes").returncode == 0
    applied(client, agent, 3)
    assert ping(client) == 200
    (left,) = client.signing_keys.list()
    assert left.keyid != old.keyid
    with pytest.raises(ApiError, match="the only one"):
        client.signing_keys.retire(left.keyid)
    agent.stop()
    agent.start()
    client.edge.deploy(sleeping(2000))
    applied(client, agent, 4)
    reported = client.devices.get("porch").reported
    assert reported is not None
    assert reported.trusted_keys == [left.keyid]
