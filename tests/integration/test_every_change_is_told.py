"""Every writing route of ``/api/v1`` leaves an event: one walk through all of them, and a table that names them all.

A route that is missing in the table fails the last test: whoever adds one says here what it tells.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import httpx
from flask import Flask

from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import convert
from hedgerow.contracts.signing import kept_words
from hedgerow.sdk.edge_signing import private_key
from registry.server.app import add_routes
from registry.store import module_twins
from registry.store.database import Database, open_database
from tests.certificate_parts import new_key, request_of, sealed
from tests.key_parts import Fetching
from tests.registry_server import Api, RunningServer
from tests.registry_stores import add_image, add_model

# What each writing route tells in the walk below; () with the reason why not.
TELLS: dict[str, tuple[str, ...]] = {
    "POST /api/v1/activities/<activity_id>/cancel": ("activity.cancelled",),
    "PUT /api/v1/blobs/<digest>": ("blob.stored",),
    "POST /api/v1/blobs/batch": ("blobs.stored",),
    "POST /api/v1/blobs/missing": (),  # a question: it only makes leases longer
    "POST /api/v1/devices": ("device.enrolled",),
    "PATCH /api/v1/devices/<name>": ("device.tagged",),
    "DELETE /api/v1/devices/<name>": ("device.deleted",),
    "POST /api/v1/devices/<name>/methods/<method>": ("device.method-called",),
    "PATCH /api/v1/devices/<name>/modules/<module>/twin": ("device.twin-patched",),
    "DELETE /api/v1/devices/<name>/modules/<module>/twin": ("device.twin-patched",),
    "POST /api/v1/devices/<name>/certificates": ("device.certified",),
    "POST /api/v1/devices/<name>/certificates/<serial>/revoke": ("device.certificate-revoked",),
    "POST /api/v1/devices/<name>/rotate-key": ("device.key-rotation-wanted",),
    "POST /api/v1/devices/<name>/key": ("device.key-fetched",),
    "POST /api/v1/devices/<name>/key/taken": ("device.key-rotated",),
    "POST /api/v1/devices/<name>/revoke": ("device.revoked",),
    "PUT /api/v1/edge-deployments/<name>": ("edge-deployment.created",),
    "POST /api/v1/edge-deployments/<name>/rollout": ("edge-rollout.paused",),
    "DELETE /api/v1/edge-deployments/<name>": ("edge-deployment.deleted",),
    "DELETE /api/v1/endpoints/<endpoint>": ("endpoint.deleted",),
    "PUT /api/v1/endpoints/<endpoint>/deployments/<deployment>": ("deployment.created",),
    "DELETE /api/v1/endpoints/<endpoint>/deployments/<deployment>": ("deployment.deleted",),
    "PUT /api/v1/endpoints/<endpoint>/traffic": ("endpoint.traffic-split",),
    "POST /api/v1/enroll": ("device.enrolled",),
    "POST /api/v1/enrollment-keys": ("enrollment-key.created",),
    "DELETE /api/v1/enrollment-keys/<key_id>": ("enrollment-key.revoked",),
    "POST /api/v1/environments": ("environment.created",),
    "DELETE /api/v1/environments/<reference>": ("environment.deleted",),
    "POST /api/v1/gc": ("collection.requested",),
    "POST /api/v1/images": ("image.build-requested",),
    "PATCH /api/v1/images/<reference>": ("image.changed",),
    "POST /api/v1/images/<reference>/push": ("image.push-requested",),
    "DELETE /api/v1/images/<reference>": ("image.deleted",),
    "POST /api/v1/models": ("model.registered",),
    "POST /api/v1/models/<reference>/convert": ("model.conversion-requested",),
    "PUT /api/v1/models/<name>/aliases/<alias>": ("model.alias-set",),
    "DELETE /api/v1/models/<name>/aliases/<alias>": ("model.alias-removed",),
    "PATCH /api/v1/models/<reference>": ("model.changed",),
    "DELETE /api/v1/models/<reference>": ("model.deleted",),
    "POST /api/v1/runs": ("run.submitted",),
    "POST /api/v1/runs/<run_id>/log": (),  # what a script logs is its record, thousands of times a run
    "PUT /api/v1/secrets/<name>": ("secret.set",),
    "DELETE /api/v1/secrets/<name>": ("secret.deleted",),
    "POST /api/v1/secrets/rotate-key": ("vault.rotated",),
    "POST /api/v1/signing-keys": ("workspace.signing-key-added",),
    "POST /api/v1/signing-keys/<keyid>/private": ("workspace.signing-key-shown",),
    "POST /api/v1/signing-keys/<keyid>/take-offline": ("workspace.signing-key-taken-offline",),
    "POST /api/v1/signing-keys/<keyid>/retire": ("workspace.signing-key-retired",),
    "POST /api/v1/unsigned-desired-states/signatures": (),  # of what was taken (test_edge_signing.py): nothing waits here
    "POST /api/v1/tokens": ("token.created",),
    "DELETE /api/v1/tokens/<token_id>": ("token.revoked",),
    "POST /api/v1/webhooks": ("webhook.created",),
    "PATCH /api/v1/webhooks/<name>": ("webhook.paused",),
    "DELETE /api/v1/webhooks/<name>": ("webhook.deleted",),
    "POST /api/v1/webhooks/<name>/redeliver": ("webhook.redelivered",),
    "POST /api/v1/webhooks/<name>/rotate-secret": ("webhook.secret-rotated",),
    "POST /api/v1/webhooks/<name>/test": ("webhook.pinged",),
}
_OCTETS = {"content-type": "application/octet-stream"}


class Walk:
    """Calls routes as the owner, and after each call compares what was told with the table."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._after = self._newest()
        self.walked: set[str] = set()

    def do(
        self,
        route: str,
        *names: str,
        json: Any = None,
        content: bytes | None = None,
        again: bool = False,
        by: tuple[str, str] = ("this-machine", ""),
    ) -> httpx.Response:
        """``names`` fill the address. ``again``: the repetition changes nothing more, so it tells nothing more.

        ``by``: the name of who does it, and their credential if it is not the owner.
        """
        method, rule = route.split(" ")
        for name in names:
            start, end = rule.index("<"), rule.index(">")
            rule = rule[:start] + name + rule[end + 1 :]
        headers = (_OCTETS if content is not None else {}) | ({"authorization": f"Bearer {by[1]}"} if by[1] else {})
        answered = self._api.request(method, rule, json=json, content=content, headers=headers)
        assert answered.is_success, f"{route}: {answered.status_code} {answered.text}"
        told = self.news()
        assert [event["kind"] for event in told] == ([] if again else [*TELLS[route]]), route
        for event in told:
            assert event["actor"]["role"] == ("device" if by[1] else "owner")
            assert event["actor"]["name"] == by[0]
            assert "/" in event["subject"] or event["subject"] == "blobs"
        self.walked.add(route)
        return answered

    def refused(self, method: str, path: str, **body: Any) -> None:
        """What was refused changed nothing and tells nothing."""
        answered = self._api.request(method, path, **body)
        assert 400 <= answered.status_code < 500, answered.text
        assert self.news() == []

    def news(self) -> list[dict[str, Any]]:
        page = self._api.get("/api/v1/events", params={"limit": 1000} | ({"after": self._after} if self._after else {}))
        found: list[dict[str, Any]] = page.json()["items"]
        if found:
            self._after = found[-1]["cursor"]
        return found

    def _newest(self) -> str | None:
        found = self._api.get("/api/v1/events", params={"newest": "true", "limit": 1}).json()["items"]
        return str(found[0]["cursor"]) if found else None


def routes() -> set[str]:
    """Every writing route below /api/v1."""
    app = Flask(__name__)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    add_routes(app)
    writing = {"POST", "PUT", "PATCH", "DELETE"}
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/v1/")]
    return {f"{method} {rule.rule}" for rule in rules for method in (rule.methods or set()) & writing}


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def walk_assets(walk: Walk, database: Database) -> None:
    content = b"weights"
    stored = digest(content)
    file = {"path": "model.bin", "digest": stored, "size_bytes": len(content)}
    walk.do("PUT /api/v1/blobs/<digest>", stored, content=content)
    second = b"more"
    batch = sha256(second).digest() + len(second).to_bytes(8, "big") + second
    walk.do("POST /api/v1/blobs/batch", content=batch)
    walk.do("POST /api/v1/blobs/missing", json={"digests": [stored]})
    walk.do("POST /api/v1/models", json={"name": "walked", "files": [file]})
    walk.refused("POST", "/api/v1/models", json={"name": "NO", "files": [file]})
    walk.do("PATCH /api/v1/models/<reference>", "walked:1", json={"tags": {"a": "b"}})
    walk.do("PUT /api/v1/models/<name>/aliases/<alias>", "walked", "best", json={"version": 1})
    walk.refused("DELETE", "/api/v1/models/none:1")
    walk.do("DELETE /api/v1/models/<name>/aliases/<alias>", "walked", "best")
    walk.do("POST /api/v1/environments", json={"name": "env", "requirements": ["numpy"]})
    walk.do("DELETE /api/v1/environments/<reference>", "env:1")
    build = walk.do("POST /api/v1/images", json={"name": "built", "models": ["walked:1"], "kind": "onnx"})
    walk.do("POST /api/v1/activities/<activity_id>/cancel", build.json()["id"])
    walk.do("POST /api/v1/activities/<activity_id>/cancel", build.json()["id"], again=True)
    conversion = walk.do("POST /api/v1/models/<reference>/convert", "walked:1", json={})
    walk.refused("POST", "/api/v1/models/none:1/convert", json={})
    walk.refused("DELETE", "/api/v1/models/walked:1")
    walk.do("POST /api/v1/activities/<activity_id>/cancel", conversion.json()["id"])
    walk.do("DELETE /api/v1/models/<reference>", "walked:1")
    with database.write() as connection:
        add_image(connection, "deployable", add_model(connection))
        add_image(connection, "useless", add_model(connection, "other"), manifest='{"other": 1}')
    walk.do("PATCH /api/v1/images/<reference>", "useless:1", json={"tags": {"a": "b"}})
    walk.refused("POST", "/api/v1/images/useless:1/push", json={"target": "10.0.0.1/a:1"})
    push = walk.do("POST /api/v1/images/<reference>/push", "useless:1", json={"target": "registry.example.com/a:1"})
    walk.do("POST /api/v1/activities/<activity_id>/cancel", push.json()["id"])
    walk.do("DELETE /api/v1/images/<reference>", "useless:1")


def walk_work(walk: Walk) -> None:
    for name in ("blue", "green"):
        walk.do("PUT /api/v1/endpoints/<endpoint>/deployments/<deployment>", "e", name, json={"image": "deployable:1"})
    walk.refused("DELETE", "/api/v1/endpoints/e/deployments/blue")
    revision = 2
    walk.do("PUT /api/v1/endpoints/<endpoint>/traffic", "e", json={"traffic": {"blue": 100}, "revision": revision})
    walk.do("DELETE /api/v1/endpoints/<endpoint>/deployments/<deployment>", "e", "green")
    walk.do("DELETE /api/v1/endpoints/<endpoint>", "e")
    script = b"print(1)"
    stored = digest(script)
    file = {"path": "train.py", "digest": stored, "size_bytes": len(script)}
    walk.do("PUT /api/v1/blobs/<digest>", stored, content=script)
    run = walk.do("POST /api/v1/runs", json={"experiment": "x", "script": "train.py", "snapshot": [file]})
    walk.do("POST /api/v1/runs/<run_id>/log", run.json()["id"], json={"metrics": [{"name": "loss", "value": 1.0}]})
    walk.do("POST /api/v1/gc", json={"dry_run": True})


def walk_fleet(walk: Walk, database: Database) -> None:
    pressed = walk.do("POST /api/v1/devices", json={"name": "press", "tags": {"site": "north"}})
    walk.refused("POST", "/api/v1/devices", json={"name": "press"})
    walk.do("PATCH /api/v1/devices/<name>", "press", json={"tags": {"site": "south"}})
    rollout = {"groups": [{"devices": 1}]}
    manifest = {"name": "edge", "target": "tags.site = 'south'", "modules": {}, "rollout": rollout}
    walk.do("PUT /api/v1/edge-deployments/<name>", "edge", json=manifest)
    walk.do("PUT /api/v1/edge-deployments/<name>", "edge", json=manifest, again=True)
    walk.do("POST /api/v1/edge-deployments/<name>/rollout", "edge", json={"action": "pause"})
    walk.do("DELETE /api/v1/edge-deployments/<name>", "edge")
    walk.refused("POST", "/api/v1/devices/press/methods/ping", json={})
    walk.refused("POST", "/api/v1/devices/press/methods/no%20name", json={"connect_timeout_s": 1})
    walk.do("POST /api/v1/devices/<name>/methods/<method>", "press", "ping?wait=false", json={"connect_timeout_s": 1})
    walk_twin(walk, database, pressed.json()["device"]["uuid"])
    by = ("press", pressed.json()["config"]["pull_token"])
    body = sealed(convert(pressed.json(), EnrolledDevice).config, request_of(new_key()))
    certified = walk.do("POST /api/v1/devices/<name>/certificates", "press", json=body, by=by)
    revoke = "POST /api/v1/devices/<name>/certificates/<serial>/revoke"
    walk.do(revoke, "press", certified.json()["serial"])
    walk.do(revoke, "press", certified.json()["serial"], again=True)
    walk_device_key(walk, convert(pressed.json(), EnrolledDevice).config)
    walk.do("POST /api/v1/devices/<name>/revoke", "press")
    walk.do("DELETE /api/v1/devices/<name>", "press")
    key = walk.do("POST /api/v1/enrollment-keys", json={"name": "line", "device": "lathe"}).json()
    walk.do("POST /api/v1/enroll", json={"installation": "0" * 32}, by=("line", key["secret"]))
    walk.refused("POST", "/api/v1/enroll", json={"installation": "1" * 32})
    walk.do("DELETE /api/v1/enrollment-keys/<key_id>", key["id"])
    walk.do("DELETE /api/v1/enrollment-keys/<key_id>", key["id"], again=True)


def walk_device_key(walk: Walk, config: DeviceConfig) -> None:
    rotate, fetch, taken = (f"POST /api/v1/devices/<name>/{word}" for word in ("rotate-key", "key", "key/taken"))
    old, fetching = ("press", config.pull_token), Fetching(config)
    refused = {"headers": {"authorization": f"Bearer {config.pull_token}"}}
    walk.refused("POST", "/api/v1/devices/press/key", json=fetching.request(), **refused)
    walk.do(rotate, "press")
    walk.do(rotate, "press", again=True)
    grant = fetching.grant(walk.do(fetch, "press", json=fetching.request(), by=old).json())
    walk.do(taken, "press", json=fetching.taken(grant), by=("press", grant.pull_token))
    walk.do(taken, "press", json=fetching.taken(grant), by=("press", grant.pull_token), again=True)
    walk.refused("POST", "/api/v1/devices/press/key", json=fetching.request(), **refused)


def walk_twin(walk: Walk, database: Database, uuid: str) -> None:
    with database.write() as connection:  # no hub is there to bring a module about
        module_twins.put_patch(connection, uuid, "m", {"a": 1})
    for method, body in (("PATCH", {"desired": {"a": 2}}), ("DELETE", None)):
        walk.do(f"{method} /api/v1/devices/<name>/modules/<module>/twin", "press", "m", json=body)
        walk.do(f"{method} /api/v1/devices/<name>/modules/<module>/twin", "press", "m", json=body, again=True)
    walk.refused("PATCH", "/api/v1/devices/press/modules/none/twin", json={"desired": {"a": 2}})


def walk_signing(walk: Walk) -> None:
    keys = "POST /api/v1/signing-keys"
    first = walk.do(keys, json={}).json()["keyid"]
    private = private_key(walk.do(f"{keys}/<keyid>/private", first).json()["private"], "the answer")
    walk.refused("POST", f"/api/v1/signing-keys/{first}/take-offline", json={"proof": ""})
    proof = base64.b64encode(private.sign(kept_words(first))).decode()
    walk.do(f"{keys}/<keyid>/take-offline", first, json={"proof": proof})
    walk.refused("POST", f"/api/v1/signing-keys/{first}/retire")  # lathe has not said that it believes another one
    walk.do("DELETE /api/v1/devices/<name>", "lathe")
    walk.do(f"{keys}/<keyid>/retire", first)
    walk.do("POST /api/v1/unsigned-desired-states/signatures", json={"workspace_id": "w", "states": []})


def walk_access(walk: Walk) -> None:
    walk_signing(walk)
    walk.do("PUT /api/v1/secrets/<name>", "s", json={"value": "v"})
    walk.do("POST /api/v1/secrets/rotate-key")
    walk.do("DELETE /api/v1/secrets/<name>", "s")
    token = walk.do("POST /api/v1/tokens", json={"name": "t", "role": "reader"})
    walk.do("DELETE /api/v1/tokens/<token_id>", token.json()["id"])
    walk.do("POST /api/v1/webhooks", json={"name": "w", "url": "https://receiver.example/hook"})
    walk.do("POST /api/v1/webhooks/<name>/test", "w")
    walk.do("POST /api/v1/webhooks/<name>/rotate-secret", "w")
    walk.do("POST /api/v1/webhooks/<name>/redeliver", "w", json={})
    walk.do("PATCH /api/v1/webhooks/<name>", "w", json={"state": "paused"})
    walk.do("DELETE /api/v1/webhooks/<name>", "w")


def test_every_change_leaves_its_event_and_every_refusal_none(server: RunningServer) -> None:
    database = open_database(None, server.workspace)
    try:
        with server.client() as api:
            walk = Walk(api)
            walk_assets(walk, database)
            walk_work(walk)
            walk_fleet(walk, database)
            walk_access(walk)
    finally:
        database.close()
    assert walk.walked == TELLS.keys(), "routes of the table that nobody walked"


def test_the_table_names_every_writing_route() -> None:
    assert routes() == TELLS.keys()


def test_kinds_have_one_form() -> None:
    """``noun.verb``; a webhook can name each of them."""
    from hedgerow.contracts.document import convert
    from hedgerow.contracts.events import CreateWebhook

    for kinds in TELLS.values():
        convert({"name": "x", "url": "https://receiver.example", "kinds": list(kinds)}, CreateWebhook)
