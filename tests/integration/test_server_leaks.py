"""What rows, events and long answers must not tell to whoever has no business with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from hedgerow.contracts.api import PutSecret
from hedgerow.contracts.document import digest_of, encode
from registry.store.tables import idempotency_keys
from tests.registry_app import Asker, RunningApp, running_app

API = "/api/v1"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningApp]:
    with running_app(tmp_path) as app:
        yield app


@pytest.fixture
def owner(running: RunningApp) -> Asker:
    return running.asker()


def test_a_kept_key_tells_nothing_of_a_secret(running: RunningApp, owner: Asker) -> None:
    path, body = f"{API}/secrets/pin", {"value": "1234"}
    first = owner.done("PUT", path, body, idempotency_key="k")
    with running.here.database.read() as connection:
        kept = connection.execute(select(idempotency_keys.c.request_digest)).scalar_one()
    # Who has the database, or a backup without keys, must not be able to try values.
    assert kept != digest_of("\n".join(("PUT", path, "", digest_of(encode(PutSecret(**body))))).encode())
    assert owner.done("PUT", path, body, idempotency_key="k") == first
    assert owner.code("PUT", path, {"value": "1235"}, idempotency_key="k") == "idempotency_key_reused"


def test_readers_do_not_learn_where_webhooks_go(running: RunningApp, owner: Asker) -> None:
    url = "https://chat.example.com/hooks/T0K3N?key=T0K3N"
    owner.done("POST", f"{API}/webhooks", {"name": "chat", "url": url})
    owner.done("PATCH", f"{API}/webhooks/chat", {"url": url + "2"})
    told = running.asker("reader").ask("GET", f"{API}/events").text
    assert "T0K3N" not in told
    assert "https://chat.example.com" in told


def test_a_stream_ends_with_its_token(running: RunningApp, owner: Asker) -> None:
    run = owner.done("POST", f"{API}/runs", {"experiment": "e", "script": "t.py", "snapshot": [owner.upload(b"1", "t.py")]})
    for path in (f"{API}/events", f"{API}/activities/{run['activity_id']}/events"):
        reader = running.asker("reader")
        answered = reader.ask("GET", path, accept="text/event-stream")
        frames = iter(answered.response)
        next(frames)
        owner.done("DELETE", f"{API}/tokens/{reader.token.split('_')[1]}")
        assert next(frames, None) is None, path
        answered.close()


def test_a_model_is_registered_for_runs_that_a_scope_covers(running: RunningApp, owner: Asker) -> None:
    file = owner.upload(b"1", "t.py")
    theirs, mine = (
        owner.done("POST", f"{API}/runs", {"experiment": name, "script": "t.py", "snapshot": [file]})["id"]
        for name in ("theirs", "mine")
    )
    limited = running.asker("contributor", ["models:mine", "runs:mine"])
    for run_id in (theirs, "nosuch"):
        assert limited.code("POST", f"{API}/models", {"name": "mine", "files": [file], "run_id": run_id}) == "scope_forbids"
    assert limited.done("POST", f"{API}/models", {"name": "mine", "files": [file], "run_id": mine})["run_id"] == mine


def test_an_image_filter_does_not_tell_aliases_of_other_models(running: RunningApp, owner: Asker) -> None:
    owner.done("POST", f"{API}/models", {"name": "theirs", "files": [owner.upload(b"1")], "aliases": ["champion"]})
    limited = running.asker("reader", ["images:mine"])
    for alias in ("champion", "nosuch"):
        assert limited.code("GET", f"{API}/images?name=mine&model=theirs@{alias}") == "scope_forbids"
    assert limited.done("GET", f"{API}/images?name=mine&model=theirs")["items"] == []


@pytest.mark.parametrize(
    ("target", "covered"),
    [
        ("*", False),
        ("tags.site = 'north'", False),
        ("deviceId = 'theirs'", False),
        ("deviceId = 'mine' OR tags.site = 'x'", False),
        ("deviceId != 'theirs'", False),
        ("NOT deviceId = 'theirs'", False),
        ("deviceId IN ['mine', 'theirs']", False),
        ("deviceId = 'mine'", True),
        ("deviceId = 'mine' AND tags.site = 'x'", True),
        ("", True),
    ],
)
def test_an_edge_deployment_reaches_devices_of_the_scopes_only(running: RunningApp, target: str, covered: bool) -> None:
    limited = running.asker("contributor", ["edge-deployments:mine", "devices:mine"])
    path, body = f"{API}/edge-deployments/mine", {"name": "mine", "target": target, "modules": {}}
    for query in ("", "?dry_run=true"):
        answered = limited.ask("PUT", path + query, body)
        assert (answered.status_code == 403) is not covered, answered.text
