"""How ``hedgerow edge show`` prints a deployment: every part that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli.edge_rollout import line_of
from hedgerow.cli.output import ago, pairs, plain, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import msgspec

    from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
    from hedgerow.contracts.rollout import Rollout


def show_deployment(found: EdgeDeployment, rollout: Rollout | None = None) -> None:
    """A record, then a table for each of modules, routes, streams and twins that there are."""
    kept = found.telemetry.time_to_live_s
    print_record(
        {
            "deployment": found.name,
            "kind": "layer" if found.layered else "",
            "revision": found.revision,
            "target": found.target,
            "priority": found.priority,
            "labels": pairs(found.labels),
            "created": ago(found.created_at),
            "telemetry": "" if kept is None else f"kept for {kept} s",
            "rollout": "" if rollout is None else line_of(rollout),
            "agent": "" if found.agent is None else " ".join(filter(None, (found.agent.version, found.agent.wheel))),
        }
    )
    columns = ("module", "kind", "image or command", "restart", "order", "status", "called", "besides")
    print_table(columns, [_module(name, spec) for name, spec in found.modules.items()], "No modules.")
    if found.routes:
        rows = [
            (name, "" if one.priority is None else one.priority, one.time_to_live_s or "", one.route)
            for name, one in found.routes.items()
        ]
        _table(("route", "priority", "ttl s", "text"), rows)
    if found.telemetry.streams:
        streams = found.telemetry.streams.items()
        _table(("stream", "rules"), [(name, pairs(_given(policy))) for name, policy in streams])
    if found.twins:
        twins = [(name, "replaced" if name in found.replaced_twins else "", _json(twin)) for name, twin in found.twins.items()]
        _table(("twin", "how", "desired properties"), twins)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    click.echo()
    print_table(columns, rows, "")


def _module(name: str, spec: ModuleSpec) -> tuple[object, ...]:
    from hedgerow.contracts.edge import LAST_STARTUP_ORDER

    order = "" if spec.startup_order == LAST_STARTUP_ORDER else spec.startup_order
    what = spec.image or " ".join(spec.command)
    return (name, spec.kind, what, spec.restart_policy, order, spec.status, spec.display_name, " ".join(_besides(spec)))


def _besides(spec: ModuleSpec) -> Iterator[str]:
    """What was given of the rest, in a word or two each."""
    if spec.port is not None:
        yield f"port={spec.port}"
    if spec.probe is not None:
        yield f"probe={spec.probe.kind}"
    for part in (spec.limits, spec.telemetry):
        yield from (f"{field}={value}" for field, value in _changed(part).items())
    yield from (f"update.{field}={value}" for field, value in _changed(spec.update).items())
    if spec.shadow is not None:
        yield f"shadow={spec.shadow.image}"
    if spec.pull_policy == "never":
        yield "pull=never"
    yield from (f"options={name}" for name in sorted(spec.create_options))


def _changed(part: msgspec.Struct) -> dict[str, object]:
    """The fields of ``part`` that are not what they are without a word."""
    import msgspec

    usual = msgspec.structs.asdict(type(part)())
    return {name: value for name, value in msgspec.structs.asdict(part).items() if value != usual[name]}


def _given(policy: msgspec.Struct) -> dict[str, object]:
    import msgspec

    return {name: value for name, value in msgspec.structs.asdict(policy).items() if value is not None}


def _json(value: object) -> str:
    import msgspec

    return plain(msgspec.json.encode(value).decode())
