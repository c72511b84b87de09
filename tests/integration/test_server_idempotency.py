"""A request with an Idempotency-Key is done once, whatever happens to its answers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Table, func, select, update

from registry.store import idempotency
from registry.store.idempotency import KeptAnswer
from registry.store.tables import events, idempotency_keys, model_versions, tokens
from registry.store.time_text import to_text
from tests.registry_app import Asker, RunningApp, running_app
from tests.registry_stores import BACKENDS, NOW

MODELS = "/api/v1/models"


@pytest.fixture(params=BACKENDS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningApp]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with running_app(tmp_path, url) as app:
        yield app


@pytest.fixture
def owner(running: RunningApp) -> Asker:
    return running.asker()


def model(owner: Asker, name: str = "iris", **more: object) -> dict[str, object]:
    return {"name": name, "files": [owner.upload(b"weights")]} | more


def count(running: RunningApp, table: Table) -> int:
    with running.here.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_a_repeated_request_gets_the_first_answer(running: RunningApp, owner: Asker) -> None:
    body = model(owner)
    first = owner.ask("POST", MODELS, body, idempotency_key="k1")
    again = owner.ask("POST", MODELS, dict(reversed(body.items())), idempotency_key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.data == again.data
    assert first.headers.get("etag") == again.headers.get("etag")
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.mimetype == "application/json"
    assert count(running, model_versions) == 1
    with running.here.database.read() as connection:
        assert connection.execute(select(events).where(events.c.kind == "model.registered")).all().__len__() == 1
    assert owner.done("POST", MODELS, body, idempotency_key="k2")["version"] == 2
    assert owner.done("POST", MODELS, body)["version"] == 3


def test_one_key_is_for_one_request(owner: Asker) -> None:
    body = model(owner)
    owner.done("POST", MODELS, body, idempotency_key="k")
    assert owner.ask("POST", MODELS, body | {"framework": "onnx"}, idempotency_key="k").status_code == 409
    for other in (
        ("POST", MODELS, body | {"name": "other"}),
        ("POST", "/api/v1/environments", {"name": "e", "requirements": []}),
    ):
        assert owner.code(*other, idempotency_key="k") == "idempotency_key_reused"


def test_keys_belong_to_their_token(running: RunningApp, owner: Asker) -> None:
    body, other = model(owner), running.asker("contributor")
    assert owner.done("POST", MODELS, body, idempotency_key="k")["version"] == 1
    assert other.done("POST", MODELS, body, idempotency_key="k")["version"] == 2


def test_a_refused_request_may_be_tried_again(owner: Asker) -> None:
    missing = {"path": "m", "digest": "sha256:" + "0" * 64, "size_bytes": 1}
    body = {"name": "iris", "files": [missing]}
    assert [owner.code("POST", MODELS, body, idempotency_key="k") for _ in range(2)] == ["blob_missing"] * 2
    assert owner.done("POST", MODELS, model(owner), idempotency_key="k")["version"] == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\tb"])
def test_keys_have_a_form(owner: Asker, key: str) -> None:
    assert owner.code("POST", MODELS, model(owner), idempotency_key=key) == "invalid_argument"


def test_a_key_is_refused_where_it_would_mean_nothing(owner: Asker) -> None:
    for method, path in (("GET", MODELS), ("GET", "/api/v1/tokens/me"), ("GET", "/api/v1/workspace")):
        assert owner.code(method, path, idempotency_key="k") == "idempotency_key_refused"
    owner.done("POST", MODELS, model(owner), idempotency_key="x" * 255)


def test_every_post_takes_a_key(running: RunningApp, owner: Asker) -> None:
    for rule in running.app.url_map.iter_rules():
        if "POST" in (rule.methods or ()) and rule.rule.startswith("/api/"):
            path = rule.build(dict.fromkeys(rule.arguments, "thing"), append_unknown=False)
            assert path is not None
            answered = owner.ask("POST", path[1], {}, idempotency_key="k-" + rule.endpoint)
            assert (answered.json or {}).get("error", {}).get("code") != "idempotency_key_refused", rule.rule


@pytest.mark.parametrize(
    ("path", "body", "made"),
    [
        ("/api/v1/tokens", {"name": "ci", "role": "reader"}, "token/"),
        ("/api/v1/devices", {"name": "press-1"}, "device/press-1"),
        ("/api/v1/webhooks", {"name": "hook", "url": "https://example.com/hook"}, "webhook/hook"),
    ],
)
def test_an_answer_with_a_secret_is_not_kept(running: RunningApp, owner: Asker, path: str, body: object, made: str) -> None:
    first = owner.ask("POST", path, body, idempotency_key="k")
    assert first.status_code == 201, first.text
    again = owner.ask("POST", path, body, idempotency_key="k")
    assert again.status_code == 409
    assert again.json is not None
    assert again.json["error"]["code"] == "already_done"
    assert made in again.json["error"]["message"]
    secret = {"/api/v1/tokens": ["secret"], "/api/v1/devices": ["config", "device_key"], "/api/v1/webhooks": ["secret"]}[path]
    found = first.json
    for part in secret:
        assert found is not None
        found = found[part]
    with running.here.database.read() as connection:
        kept = connection.execute(select(idempotency_keys.c.answer)).scalar_one()
    assert found
    assert str(found) not in kept


def test_requests_with_one_key_at_once_have_one_effect(running: RunningApp, owner: Asker) -> None:
    body, together = model(owner), threading.Barrier(8)

    def send(number: int) -> tuple[int, object]:
        together.wait(20)
        answered = owner.ask("POST", MODELS, body, idempotency_key=f"k{number % 2}")
        return answered.status_code, (answered.json or {}).get("version")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {status for status, _ in answers} == {201}, answers
    assert {version for _, version in answers} == {1, 2}
    for number in (0, 1):
        assert len({version for _, version in answers[number::2]}) == 1
    assert count(running, model_versions) == 2


def test_a_name_that_must_be_new_is_taken_once(running: RunningApp, owner: Asker) -> None:
    """The second request waits for the first at the key, before it could trip over the name."""
    together = threading.Barrier(4)

    def send(_: int) -> str:
        together.wait(20)
        answered = owner.ask("POST", "/api/v1/devices", {"name": "press-1"}, idempotency_key="k")
        return "made" if answered.status_code == 201 else str((answered.json or {})["error"]["code"])

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, range(4))) == ["already_done"] * 3 + ["made"]


def test_keys_are_forgotten_after_a_day_some_at_a_time(running: RunningApp) -> None:
    database = running.here.database
    later = NOW + idempotency.KEPT + timedelta(seconds=1)
    with database.write() as connection:
        for number in range(250):
            assert idempotency.claim(connection, "t", f"k{number}", f"d{number}", NOW) is None
            idempotency.keep(connection, "t", f"k{number}", KeptAnswer(status=200))
    with database.write() as connection:
        found = idempotency.claim(connection, "t", "k249", "d249", NOW + idempotency.KEPT)
        assert found is not None
        assert (found.request_digest, found.answer) == ("d249", KeptAnswer(status=200))
        assert idempotency.claim(connection, "t", "k249", "other", later) is None, "an old key may be used again"
    sizes = [count(running, idempotency_keys)]
    for number in range(48):
        with database.write() as connection:
            assert idempotency.claim(connection, "t", f"new{number}", f"{number:x}", later) is None
        sizes.append(count(running, idempotency_keys))
    assert max(before - after for before, after in pairwise(sizes)) < 110, "nobody waits for a big clean-up"
    assert sizes[-1] == 1 + 48, "all old ones are gone"


_REGISTER_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests.registry_app import Asker, running_app

with running_app(Path(sys.argv[1])) as running:
    running.app.before_request_funcs.setdefault(None, [])
    @running.app.after_request
    def die(response):
        os.kill(os.getpid(), signal.SIGKILL)
    Asker(running.app, sys.argv[2]).ask("POST", "/api/v1/models", eval(sys.argv[3]), idempotency_key="k")
"""


def test_the_server_is_killed_between_commit_and_answer(tmp_path: Path) -> None:
    with running_app(tmp_path) as running:
        owner = running.asker()
        body = model(owner)
    argv = [sys.executable, "-c", _REGISTER_AND_DIE, str(tmp_path), owner.token, repr(body)]
    died = subprocess.run(argv, timeout=60, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    with running_app(tmp_path) as running:
        assert count(running, model_versions) == 1, "it was committed"
        again = Asker(running.app, owner.token).ask("POST", MODELS, body, idempotency_key="k")
        assert again.json is not None
        assert (again.status_code, again.json["version"]) == (201, 1)
        assert again.headers["idempotency-replayed"] == "true"
        assert count(running, model_versions) == 1


def test_a_revoked_token_replays_nothing(running: RunningApp, owner: Asker) -> None:
    body = model(owner)
    owner.done("POST", MODELS, body, idempotency_key="k")
    with running.here.database.write() as connection:
        connection.execute(update(tokens).values(revoked_at=to_text(NOW)))
    assert owner.code("POST", MODELS, body, idempotency_key="k") == "token_refused"
