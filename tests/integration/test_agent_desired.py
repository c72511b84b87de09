"""Signed desired states on the disk: what is accepted, what is refused and why, and what a restart finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.link.desired import Accepted, DesiredKeeper, Refusal
from edge_agent.link.reported import status_code
from edge_agent.state_store import StateStore
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import sign
from tests.agent_builders import Workspace, command, desired

MODULES = {"m": command("run")}


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(tmp_path / "state")
    made.prepare()
    return made


@pytest.fixture
def keeper(workspace: Workspace, store: StateStore) -> DesiredKeeper:
    made = DesiredKeeper(workspace.config, store)
    made.load()
    return made


def refused(keeper: DesiredKeeper, envelope: bytes, incarnation: str = "inc-1") -> tuple[str, int, int | None]:
    before = keeper.state
    answer = keeper.offer(envelope, incarnation)
    assert isinstance(answer, Refusal), answer
    assert keeper.state is before
    return answer.problem.key, status_code(answer.problem), answer.version


def test_a_signed_state_is_accepted_and_survives_a_restart(
    workspace: Workspace, store: StateStore, keeper: DesiredKeeper
) -> None:
    envelope = workspace.signed(desired(MODULES, version=3))
    answer = keeper.offer(envelope, "inc-1")
    assert isinstance(answer, Accepted)
    assert answer.changed
    again = DesiredKeeper(workspace.config, store)
    assert again.load() == answer.state
    assert again.version == 3
    repeat = again.offer(envelope, "inc-1")
    assert isinstance(repeat, Accepted)
    assert not repeat.changed


def test_a_forged_signature_is_refused(keeper: DesiredKeeper) -> None:
    assert refused(keeper, Workspace().signed(desired(MODULES))) == ("signature_refused", 401, None)


def test_an_altered_payload_is_refused(workspace: Workspace, keeper: DesiredKeeper) -> None:
    honest, evil = desired(MODULES), desired({"m": command("rm", "-rf", "/")})
    mixed = json.loads(workspace.signed(honest)) | {"payload": json.loads(workspace.signed(evil))["payload"]}
    assert refused(keeper, json.dumps(mixed).encode())[:2] == ("signature_refused", 401)


def test_a_document_of_another_kind_is_refused_even_if_signed(workspace: Workspace, keeper: DesiredKeeper) -> None:
    envelope = sign("application/vnd.hedgerow.method.v1+json", encode(desired(MODULES)), {"k1": workspace.key.sign})
    assert refused(keeper, envelope)[:2] == ("signature_refused", 401)


def test_a_state_for_another_device_is_refused(workspace: Workspace, keeper: DesiredKeeper) -> None:
    other = desired(MODULES, uuid="00000000-0000-4000-8000-000000000000")
    assert refused(keeper, workspace.signed(other)) == ("foreign_desired", 403, 1)


def test_an_older_version_and_an_equal_one_with_other_content_are_refused(workspace: Workspace, keeper: DesiredKeeper) -> None:
    assert isinstance(keeper.offer(workspace.signed(desired(MODULES, version=5)), "inc-1"), Accepted)
    assert refused(keeper, workspace.signed(desired(MODULES, version=4))) == ("older_desired", 409, 4)
    assert refused(keeper, workspace.signed(desired({}, version=5))) == ("older_desired", 409, 5)


def test_a_state_of_another_incarnation_is_refused(workspace: Workspace, keeper: DesiredKeeper) -> None:
    envelope = workspace.signed(desired(MODULES, version=9, incarnation="inc-0"))
    assert refused(keeper, envelope, "inc-1") == ("wrong_incarnation", 409, 9)


def test_after_a_restore_of_the_hub_only_higher_versions_count(workspace: Workspace, keeper: DesiredKeeper) -> None:
    keeper.offer(workspace.signed(desired(MODULES, version=5)), "inc-1")
    assert refused(keeper, workspace.signed(desired(MODULES, version=2, incarnation="inc-2")), "inc-2")[0] == "older_desired"
    answer = keeper.offer(workspace.signed(desired({}, version=6, incarnation="inc-2")), "inc-2")
    assert isinstance(answer, Accepted)


@pytest.mark.parametrize("garbage", [b"", b"not json", b"{}", b'{"payload": 1}', b"\xff" * 100])
def test_garbage_is_refused(keeper: DesiredKeeper, garbage: bytes) -> None:
    assert refused(keeper, garbage)[:2] == ("invalid_document", 400)


def test_a_newer_schema_says_that_the_agent_is_too_old(workspace: Workspace, keeper: DesiredKeeper) -> None:
    payload = encode(desired(MODULES)).replace(b'"schema_version":1', b'"schema_version":2')
    envelope = sign(PAYLOAD_DESIRED_STATE, payload, {"k1": workspace.key.sign})
    assert refused(keeper, envelope)[:2] == ("document_too_new", 412)


def test_a_file_changed_on_the_disk_is_set_aside(workspace: Workspace, store: StateStore, keeper: DesiredKeeper) -> None:
    keeper.offer(workspace.signed(desired(MODULES)), "inc-1")
    store.desired.write_bytes(store.desired.read_bytes().replace(b"eyJ", b"eyK"))
    again = DesiredKeeper(workspace.config, store)
    assert again.load() is None
    assert store.damaged == ["desired.dsse.json"]
    assert not store.desired.exists()
    assert isinstance(again.offer(workspace.signed(desired(MODULES)), "inc-1"), Accepted)
