"""Tokens over the API: made by owners, known to nobody else, told of in events; every token can ask what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.registry_app import Asker, RunningApp, running_app
from tests.waiting import wait_for

PATH = "/api/v1/tokens"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with running_app(tmp_path_factory.mktemp("tokens")) as app:
        yield app


@pytest.fixture(scope="module")
def owner(running: RunningApp) -> Asker:
    return running.asker()


def told(owner: Asker, subject: str) -> list[dict[str, Any]]:
    return list(owner.done("GET", f"/api/v1/events?subject={subject}")["items"])


def test_a_token_is_made_shown_and_revoked_with_events(owner: Asker) -> None:
    wanted = {"name": "ci", "role": "contributor", "scopes": ["models:iris", "images:team-a.*"], "expires_in_s": 3600}
    made = owner.done("POST", PATH, wanted)
    me = owner.done("GET", f"{PATH}/me")
    assert made["created_by"] == f"owner:{me['name']}:{me['id']}"
    shown = owner.done("GET", f"{PATH}/{made['id']}")
    assert shown == made | {"secret": None}
    assert shown in owner.done("GET", PATH)["items"]
    for _ in range(2):
        owner.done("DELETE", f"{PATH}/{made['id']}")
    assert owner.done("GET", f"{PATH}/{made['id']}")["revoked_at"] is not None
    assert owner.code("DELETE", f"{PATH}/nosuch") == "not_found"
    happened = sorted(told(owner, f"token/{made['id']}"), key=lambda event: int(event["number"]))
    assert [event["kind"] for event in happened] == ["token.created", "token.revoked"]
    assert happened[0]["details"]["scopes"] == "models:iris images:team-a.*"
    assert happened[0]["actor"]["id"] == me["id"]
    assert made["secret"].split("_", 2)[2] not in str(happened)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"role": "reader", "scopes": ["model:iris"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["blobs:*"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["tokens:*"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["models"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["models:"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["models:a*b"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["*:*"]}, "invalid_document"),
        ({"role": "reader", "scopes": ["models:iris\n"]}, "invalid_document"),
        ({"role": "owner", "scopes": ["models:iris"]}, "invalid_document"),
        ({"role": "reader", "expires_in_s": 10**12}, "invalid_document"),
        ({"role": "device"}, "role_not_for_tokens"),
        ({"role": "run"}, "role_not_for_tokens"),
        ({"role": "king"}, "invalid_document"),
    ],
)
def test_tokens_that_cannot_be(owner: Asker, wanted: dict[str, object], code: str) -> None:
    before = len(owner.done("GET", PATH)["items"])
    assert owner.code("POST", PATH, {"name": "x"} | wanted) == code
    assert len(owner.done("GET", PATH)["items"]) == before


def test_every_token_can_ask_what_it_is(running: RunningApp, owner: Asker) -> None:
    device = owner.done("POST", "/api/v1/devices", {"name": "press-1"})
    askers = {
        "owner": owner,
        "contributor": running.asker("contributor"),
        "reader": running.asker("reader", ["models:iris"]),
        "puller": running.asker("puller"),
        "device": Asker(running.app, device["config"]["pull_token"]),
    }
    for role, asker in askers.items():
        me = asker.done("GET", f"{PATH}/me")
        assert me["role"] == role
        assert me["secret"] is None
        assert me["scopes"] == (["models:iris"] if role == "reader" else [])
        if role != "owner":
            assert asker.code("GET", PATH) == asker.code("GET", f"{PATH}/{me['id']}") == "role_forbids"


def test_last_use_is_shown(running: RunningApp, owner: Asker) -> None:
    made = owner.done("POST", PATH, {"name": "seldom", "role": "reader"})
    assert owner.done("GET", f"{PATH}/{made['id']}")["last_used_at"] is None
    Asker(running.app, made["secret"]).done("GET", "/api/v1/models")
    wait_for(lambda: owner.done("GET", f"{PATH}/{made['id']}")["last_used_at"], what="the use being noted")
