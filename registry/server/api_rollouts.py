"""``/api/v1/edge-deployments/NAME/rollout``: how far a new revision is, and the hand on it. The hub does the going on."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.rollout import DeviceOutcome, Rollout, RolloutDevice, SteerRollout
from registry.errors import RecordNotFound
from registry.hub.errors import NoRollout, RolloutOver
from registry.hub.rollouts.plan import steer
from registry.hub.rollouts.rollouts import reverse
from registry.hub.target import only_names, parse_target
from registry.server import arguments
from registry.server.http import (
    actor,
    answer,
    caller,
    check_scope,
    context,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_seen
from registry.store import edge_deployments, rollout_devices, rollouts

_KIND = "edge deployment"
_STATE = QueryField("state", "only devices in this state", choices=("waiting", "released", "succeeded", "failed", "timed-out"))


def add_routes(blueprint: Blueprint) -> None:
    """Put this module's routes below ``blueprint``'s prefix."""
    blueprint.get("/edge-deployments/<name>/rollout")(show_rollout)
    blueprint.post("/edge-deployments/<name>/rollout")(steer_rollout)
    blueprint.get("/edge-deployments/<name>/rollouts")(list_rollouts)
    blueprint.get("/edge-deployments/<name>/rollout/devices")(list_rollout_devices)


@operation(
    "Show the newest rollout of an edge deployment", "reader", scope="edge-deployments", result=Rollout, errors=(NoRollout,)
)
def show_rollout(name: str) -> Response:
    """With its groups in numbers of devices."""
    with context().database.read() as connection:
        return answer_seen(_newest(connection, name))


@operation("List the rollouts of an edge deployment", "reader", scope="edge-deployments", result=Page[Rollout], query=PAGE)
def list_rollouts(name: str) -> Response:
    """Newest first."""
    limit, after = page_arguments()
    with context().database.read() as connection:
        edge_deployments.get(connection, check_known_name(name, _KIND))
        found, following = rollouts.page(connection, name, limit, after)
    return answer(Page(items=found, next=following))


@operation(
    "List the devices of the newest rollout",
    "reader",
    scope="edge-deployments",
    result=Page[RolloutDevice],
    query=(*PAGE, _STATE),
    errors=(NoRollout,),
)
def list_rollout_devices(name: str) -> Response:
    """By name, each with its group and how it does. Of earlier rollouts this is not kept."""
    limit, after = page_arguments()
    state = cast("DeviceOutcome | None", arguments.text("state"))
    with context().database.read() as connection:
        found, following = rollout_devices.page(connection, _newest(connection, name).id, limit, after, state)
    return answer(Page(items=found, next=following))


@operation(
    "Pause, resume, skip or reverse a rollout",
    "contributor",
    scope="edge-deployments",
    body=SteerRollout,
    result=Rollout,
    errors=(NoRollout, RolloutOver, RecordNotFound),
)
def steer_rollout(name: str) -> Response:
    """`resume` goes on, also past a group that failed; `skip` goes on without waiting for the group that it is at; `reverse`
    gives every device what it had before, as the deployment's next revision."""
    here = context()
    wanted = read_body(SteerRollout)

    def steered(connection: Connection) -> Response:
        # The hub locks in the same order: deployment, then rollout.
        deployment = edge_deployments.get(connection, check_known_name(name, _KIND), lock=True)
        names = only_names(parse_target(deployment.target))
        for device in ["*"] if names is None else sorted(names):
            check_scope("devices", device)
        rollout = _newest(connection, name, lock=True)
        if wanted.action == "reverse" and rollout.state == "succeeded" and deployment.revision != rollout.revision:
            raise RolloutOver(name=name, revision=rollout.revision, state="replaced by a newer one", action="reverse")
        now = here.clock.now()
        words = {"pause": "paused", "resume": "resumed", "skip": "skipped", "reverse": "reversed"}[wanted.action]
        why = f"{words} by {caller().name}" + (f": {wanted.reason}" if wanted.reason else "")
        after, happening = steer(rollout, wanted.action, why, now)
        rollouts.write(connection, after)
        if after.state == "reversing":
            reverse(connection, after, actor(), now)
        details = {"revision": str(after.revision), "reason": happening.reason[:1000]}
        tell(connection, f"edge-rollout.{happening.kind}", f"edge-rollout/{name}", **details)
        return answer(after)

    answered = write_once(steered)
    here.wakeups.wake("hub")
    return answered


def _newest(connection: Connection, name: str, *, lock: bool = False) -> Rollout:
    """Raises RecordNotFound (the deployment), NoRollout."""
    edge_deployments.get(connection, check_known_name(name, _KIND))
    found = rollouts.newest(connection, name, lock=lock)
    if found is None:
        raise NoRollout(name=name)
    return found
