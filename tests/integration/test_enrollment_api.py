"""Enrolment keys: made by people, used by devices; as often as they may be, by whoever may, and for what they say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import convert
from hedgerow.contracts.seal import device_key
from registry.server import attempts
from registry.store import device_keys
from registry.store.tables import devices, enrollment_keys, idempotency_keys
from registry.store.time_text import to_text
from tests.registry_app import Asker, RunningApp, running_app
from tests.registry_stores import BACKENDS

KEYS, ENROLL = "/api/v1/enrollment-keys", "/api/v1/enroll"


@pytest.fixture(params=BACKENDS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningApp]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with running_app(tmp_path, url) as app:
        yield app


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RunningApp]:
    """On SQLite only, for what no database decides."""
    with running_app(tmp_path) as app:
        yield app


def key(asker: Asker, name: str = "line", **more: Any) -> dict[str, Any]:
    return asker.done("POST", KEYS, {"name": name} | more)


def device(running: RunningApp, made: dict[str, Any]) -> Asker:
    """Somebody with this key."""
    return Asker(running.app, made["secret"])


def installation(number: int) -> dict[str, Any]:
    return {"installation": f"{number:032x}"}


def config_of(answered: dict[str, Any]) -> DeviceConfig:
    return convert(answered["config"], DeviceConfig)


def count(running: RunningApp) -> int:
    with running.here.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(devices)).scalar_one())


def told(owner: Asker, subject: str) -> list[dict[str, Any]]:
    found = owner.done("GET", f"/api/v1/events?subject={subject}")["items"]
    return sorted(found, key=lambda event: int(event["number"]))


def test_a_key_is_made_shown_once_used_and_revoked(running: RunningApp) -> None:
    owner = running.asker()
    answered = owner.ask("POST", KEYS, {"name": "line", "tags": {"site": "north"}, "names": "press-", "uses_max": 2})
    assert (answered.status_code, answered.headers["cache-control"]) == (201, "no-store")
    made = dict(answered.json or {})
    assert made["secret"].startswith(f"hre_{made['id']}_")
    shown = owner.done("GET", f"{KEYS}/{made['id']}")
    assert shown == made | {"secret": None}
    assert owner.done("GET", KEYS)["items"] == [shown]
    first = device(running, made).ask("POST", ENROLL, installation(1) | {"name": "press-7"})
    assert (first.status_code, first.headers["cache-control"]) == (201, "no-store")
    config = config_of(dict(first.json or {}))
    assert (config.name, config.tags) == ("press-7", {"site": "north"})
    assert config.key_bytes() == device_key(running.here.workspace.device_master, config.device_uuid, 1)
    assert config.trusted_keys == [running.here.workspace.trusted_key]
    assert Asker(running.app, config.pull_token).ask("GET", "/v2/").status_code == 200
    named = config_of(device(running, made).done("POST", ENROLL, installation(2)))
    assert named.name.startswith("press-")
    assert named.device_uuid != config.device_uuid
    listed = owner.done("GET", "/api/v1/devices")["items"]
    assert {one["enrolled_with"] for one in listed} == {f"line ({made['id']})"}
    for _ in range(2):
        assert owner.ask("DELETE", f"{KEYS}/{made['id']}").status_code == 204
    assert [event["kind"] for event in told(owner, f"enrollment-key/{made['id']}")] == [
        "enrollment-key.created",
        "enrollment-key.revoked",
    ]
    (enrolled,) = told(owner, "device/press-7")
    assert (enrolled["kind"], enrolled["actor"]["id"], enrolled["actor"]["name"]) == ("device.enrolled", made["id"], "line")
    assert made["secret"].split("_", 2)[2] not in str(owner.done("GET", "/api/v1/events")["items"])


def test_the_same_installation_gets_its_device_again_with_a_new_token(running: RunningApp) -> None:
    owner = running.asker()
    made = key(owner)
    bearer = device(running, made)
    first = config_of(bearer.done("POST", ENROLL, installation(1) | {"name": "press-1"}))
    answered = bearer.ask("POST", ENROLL, installation(1))
    assert answered.status_code == 200
    again = config_of(dict(answered.json or {}))
    assert (again.device_uuid, again.device_key, again.name) == (first.device_uuid, first.device_key, "press-1")
    assert Asker(running.app, first.pull_token).code("GET", "/api/v1/tokens/me") == "token_refused"
    assert Asker(running.app, again.pull_token).ask("GET", "/v2/").status_code == 200
    assert owner.done("GET", f"{KEYS}/{made['id']}")["uses"] == 1
    assert [event["kind"] for event in told(owner, "device/press-1")] == ["device.enrolled", "device.enrolled-again"]
    # Not for another installation, nor once the device is revoked; a deleted one was the key's one use.
    assert bearer.code("POST", ENROLL, installation(2)) == "enrollment_key_refused"
    owner.done("POST", "/api/v1/devices/press-1/revoke")
    assert bearer.code("POST", ENROLL, installation(1)) == "enrolled_device_revoked"
    owner.ask("DELETE", "/api/v1/devices/press-1")
    assert bearer.code("POST", ENROLL, installation(1)) == "enrollment_key_refused"
    assert count(running) == 0


def test_a_device_that_was_given_a_new_key_gets_that_one(running: RunningApp) -> None:
    bearer = device(running, key(running.asker()))
    first = config_of(bearer.done("POST", ENROLL, installation(1)))
    with running.here.database.write() as connection:
        connection.execute(update(devices).where(devices.c.uuid == first.device_uuid).values(key_generation=3))
    again = config_of(bearer.done("POST", ENROLL, installation(1)))
    assert again.key_bytes() == device_key(running.here.workspace.device_master, first.device_uuid, 3)


def test_enrolling_again_in_the_middle_of_a_key_change_spoils_nothing(running: RunningApp) -> None:
    bearer, master = device(running, key(running.asker())), running.here.workspace.device_master
    first = config_of(bearer.done("POST", ENROLL, installation(1)))

    def fetched() -> str:
        """The token that goes with the device's next key."""
        now = running.here.clock.now()
        with running.here.database.write() as connection:
            wanted = device_keys.want_next(connection, device_keys.get(connection, first.name, now), now).wanted
            return device_keys.token_for(connection, first.device_uuid, first.name, wanted, master, now)

    before = fetched()
    assert config_of(bearer.done("POST", ENROLL, installation(1))).key_generation == 1
    assert Asker(running.app, before).ask("GET", "/v2/").status_code == 401
    assert Asker(running.app, fetched()).ask("GET", "/v2/").status_code == 200


@pytest.mark.parametrize("uses", [1, 3])
def test_many_at_once_do_not_use_a_key_more_often_than_it_may_be(running: RunningApp, uses: int) -> None:
    bearer, together = device(running, key(running.asker(), uses_max=uses)), threading.Barrier(8)

    def enroll(number: int) -> int:
        together.wait(30)
        return bearer.ask("POST", ENROLL, installation(number)).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(enroll, range(8)))
    assert statuses == [201] * uses + [401] * (8 - uses)
    assert count(running) == uses


def test_one_installation_that_asks_twice_at_once_is_one_device(running: RunningApp) -> None:
    bearer, together = device(running, key(running.asker(), uses_max=None)), threading.Barrier(6)

    def enroll(_: int) -> tuple[int, str]:
        together.wait(30)
        answered = bearer.ask("POST", ENROLL, installation(7))
        return answered.status_code, config_of(dict(answered.json or {})).device_uuid

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(enroll, range(6)))
    assert sorted(status for status, _ in answers) == [200] * 5 + [201]
    assert len({uuid for _, uuid in answers}) == count(running) == 1


@pytest.mark.parametrize("how", ["revoked", "expired", "used up"])
def test_a_key_that_is_no_longer_good_says_why(running: RunningApp, how: str) -> None:
    owner = running.asker()
    made = key(owner)
    if how == "revoked":
        owner.ask("DELETE", f"{KEYS}/{made['id']}")
    elif how == "expired":
        past = to_text(running.here.clock.now() - timedelta(seconds=1))
        with running.here.database.write() as connection:
            connection.execute(update(enrollment_keys).values(expires_at=past))
    else:
        device(running, made).done("POST", ENROLL, installation(1))
    problem = (device(running, made).ask("POST", ENROLL, installation(2)).json or {})["error"]
    assert problem["code"] == "enrollment_key_refused"
    assert {"revoked": "revoked at", "expired": "expired at", "used up": "used 1 times"}[how] in problem["message"]
    assert "hedgerow device key create" in problem["remedy"]


def test_whatever_is_no_key_learns_nothing(here: RunningApp) -> None:
    made = key(here.asker())
    prefix, key_id, secret = made["secret"].split("_", 2)
    texts = set()
    for wrong in (
        f"{prefix}_{key_id}_{secret[:-1]}",
        f"{prefix}_{key_id}_",
        f"{prefix}_{'0' * 12}_{secret}",
        f"hrw_{key_id}_{secret}",
        here.asker().token,
        "nonsense",
        f"{prefix}_\u00e4_{secret}",
    ):
        answered = Asker(here.app, wrong).ask("POST", ENROLL, installation(1))
        assert answered.status_code == 401, wrong
        texts.add(answered.text)
    assert len(texts) == 1
    nobody = here.app.test_client().post(ENROLL, json=installation(1))
    assert nobody.status_code == 401
    assert count(here) == 0


def test_a_key_is_good_for_enrolling_only(here: RunningApp) -> None:
    bearer = device(here, key(here.asker(), uses_max=None))
    for method, path in (
        ("GET", KEYS),
        ("POST", KEYS),
        ("GET", "/api/v1/devices"),
        ("GET", "/v2/"),
        ("GET", "/api/v1/tokens/me"),
    ):
        assert bearer.ask(method, path, {} if method == "POST" else None).status_code == 401, path


def test_wrong_keys_are_looked_at_so_often_only(here: RunningApp) -> None:
    good = device(here, key(here.asker()))
    wrong = Asker(here.app, "hre_000000000000_wrong")
    for _ in range(attempts.WRONG_MAX):
        assert wrong.code("POST", ENROLL, installation(1)) == "enrollment_key_refused"
    busy = wrong.ask("POST", ENROLL, installation(1))
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "60")
    # Whoever comes from elsewhere is not held up.
    headers = {"authorization": f"Bearer {good.token}"}
    there = here.app.test_client().post(ENROLL, json=installation(2), headers=headers, environ_base={"REMOTE_ADDR": "10.9.8.7"})
    assert there.status_code == 201


@pytest.mark.parametrize(
    ("wanted", "name", "outcome"),
    [
        ({"device": "press-1"}, None, "press-1"),
        ({"device": "press-1"}, "press-1", "press-1"),
        ({"device": "press-1"}, "press-2", "enrollment_name_refused"),
        ({"names": "press-"}, "lathe-1", "enrollment_name_refused"),
        ({"names": "press-"}, "press-1", "press-1"),
        ({}, "anything", "anything"),
        ({}, "taken", "name_taken"),
        ({"device": "taken"}, None, "name_taken"),
        ({}, "No Name", "invalid_document"),
    ],
)
def test_names_are_what_the_key_allows(here: RunningApp, wanted: dict[str, Any], name: str | None, outcome: str) -> None:
    owner = here.asker()
    owner.done("POST", "/api/v1/devices", {"name": "taken"})
    made = key(owner, **wanted)
    answered = device(here, made).ask("POST", ENROLL, installation(1) | {"name": name})
    found = answered.json or {}
    assert (found["config"]["name"] if "config" in found else found["error"]["code"]) == outcome
    # What was refused cost nothing.
    assert owner.done("GET", f"{KEYS}/{made['id']}")["uses"] == (1 if "config" in found else 0)


def test_what_a_device_says_of_itself_counts_for_nothing_but_its_name(here: RunningApp) -> None:
    bearer = device(here, key(here.asker(), tags={"site": "north"}))
    assert bearer.code("POST", ENROLL, installation(1) | {"tags": {"site": "south"}}) == "invalid_document"
    assert config_of(bearer.done("POST", ENROLL, installation(1))).tags == {"site": "north"}


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"device": "a", "names": "b"}, "enrollment_key_invalid"),
        ({"device": "a", "uses_max": 2}, "enrollment_key_invalid"),
        ({"device": "a", "uses_max": None}, "enrollment_key_invalid"),
        ({"names": "a._"}, "invalid_name"),
        ({"names": "A"}, "invalid_document"),
        ({"uses_max": 0}, "invalid_document"),
        ({"expires_in_s": 0}, "invalid_document"),
    ],
)
def test_keys_that_cannot_be(here: RunningApp, wanted: dict[str, Any], code: str) -> None:
    owner = here.asker()
    assert owner.code("POST", KEYS, {"name": "line"} | wanted) == code
    assert owner.done("GET", KEYS)["items"] == []


@pytest.mark.parametrize("body", [{}, {"installation": "x"}, {"installation": "A" * 32}, {"installation": "0" * 32 + "\n"}])
def test_an_installation_is_a_number_of_its_own(here: RunningApp, body: dict[str, Any]) -> None:
    assert device(here, key(here.asker())).code("POST", ENROLL, body) == "invalid_document"


def test_who_may_make_keys_and_for_what(here: RunningApp) -> None:
    assert here.asker("reader").code("POST", KEYS, {"name": "line"}) == "role_forbids"
    assert here.asker("reader").code("GET", KEYS) == "role_forbids"
    key(here.asker("contributor"))
    limited = here.asker("contributor", ["devices:press-*"])
    key(limited, device="press-1")
    key(limited, names="press-")
    for wanted in ({}, {"names": "p"}, {"device": "lathe-1"}):
        assert limited.code("POST", KEYS, {"name": "line"} | wanted) == "scope_forbids"
    assert limited.code("GET", KEYS) == "scope_forbids"


def test_an_answer_with_a_secret_is_not_kept(here: RunningApp) -> None:
    owner = here.asker()
    made = owner.done("POST", KEYS, {"name": "line"}, idempotency_key="k")
    assert owner.code("POST", KEYS, {"name": "line"}, idempotency_key="k") == "already_done"
    config = config_of(device(here, made).done("POST", ENROLL, installation(1), idempotency_key="e"))
    with here.here.database.read() as connection:
        kept = str(connection.execute(select(idempotency_keys.c.answer)).scalars().all())
    for secret in (made["secret"], made["secret"].split("_", 2)[2], config.device_key, config.pull_token):
        assert secret not in kept


def test_keys_come_in_pages(here: RunningApp) -> None:
    owner = here.asker()
    made = [key(owner, f"k{number}")["id"] for number in range(5)]
    page = owner.done("GET", f"{KEYS}?limit=2")
    seen = [one["id"] for one in page["items"]]
    while page["next"]:
        page = owner.done("GET", f"{KEYS}?limit=2&after={page['next']}")
        seen += [one["id"] for one in page["items"]]
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen))
    assert owner.code("GET", f"{KEYS}?after=nosuch") == "invalid_page"


def test_other_sites_and_hosts_are_refused(here: RunningApp) -> None:
    bearer = device(here, key(here.asker()))
    assert bearer.code("POST", ENROLL, installation(1), origin="https://evil.example") == "origin_refused"
    assert bearer.code("POST", ENROLL, installation(1), host="evil.example") == "origin_refused"
    assert count(here) == 0
