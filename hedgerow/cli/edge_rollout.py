"""``hedgerow edge rollout``: how far a new revision is, and the hand on it; and the options with which one begins."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli import complete
from hedgerow.cli.options import F, json_option, limit_option, workspace
from hedgerow.cli.output import ago, count, plain, print_json, print_page, print_record, print_table
from hedgerow.cli.times import duration_s
from hedgerow.cli.whole_help import WholeHelp

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api_fleet import EdgePlan
    from hedgerow.contracts.edge import EdgeDeployment
    from hedgerow.contracts.rollout import DeviceOutcome, OnError, Rollout, RolloutDevice, RolloutGroup, RolloutGroupStatus
    from hedgerow.sdk.client import Client

_GROUP = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,6})?)(%?)")


@click.group("rollout", cls=WholeHelp)
def command() -> None:
    """See and steer how a new revision reaches its devices, group by group."""


@command.command()
@click.argument("name", shell_complete=complete.edge_deployments)
@click.option("--watch", is_flag=True, help="Wait for its end and tell what happens; exit code 1 unless it succeeds.")
@json_option
def show(name: str, watch: bool, as_json: bool) -> None:
    """The newest rollout, with its groups in numbers of devices."""
    with workspace() as client:
        found = follow(client, name, quiet=as_json) if watch else client.edge.rollout(name)
    _print(found, as_json=as_json)
    if watch:
        exit_as(found)


@command.command("list")
@click.argument("name", shell_complete=complete.edge_deployments)
@limit_option
@json_option
def list_rollouts(name: str, limit: int, as_json: bool) -> None:
    """Of one edge deployment, newest first."""
    with workspace() as client:
        page = client.edge.rollouts(name, limit)
    columns: dict[str, Callable[[Rollout], object]] = {
        "revision": lambda r: r.revision,
        "instead of": lambda r: r.previous_revision,
        "state": lambda r: r.state,
        "groups": in_words,
        "began": lambda r: ago(r.created_at),
        "reason": lambda r: r.reason,
    }
    print_page(page, limit, columns, empty="None: its revisions went to every device at once.", as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.edge_deployments)
@click.option(
    "--state",
    type=click.Choice(["waiting", "released", "succeeded", "failed", "timed-out"]),
    help="Only devices in this state.",
)
@limit_option
@json_option
def devices(name: str, state: str | None, limit: int, as_json: bool) -> None:
    """The devices of the newest rollout: in which group each is, and how it does."""
    with workspace() as client:
        page = client.edge.rollout_devices(name, limit, state=cast("DeviceOutcome | None", state))
        groups = client.edge.rollout(name).groups
    columns: dict[str, Callable[[RolloutDevice], object]] = {
        "device": lambda d: d.device,
        "group": lambda d: groups[d.group].name if d.group < len(groups) else d.group + 1,
        "state": lambda d: d.state,
        "told": lambda d: ago(d.released_at),
        "reason": lambda d: d.reason,
    }
    print_page(page, limit, columns, empty="No such device.", as_json=as_json)


def _reason_option(function: F) -> F:
    return click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the events.")(function)


def _steering(name: str, help_text: str, method: str) -> None:
    @command.command(name, help=help_text)
    @click.argument("name", shell_complete=complete.edge_deployments)
    @_reason_option
    @json_option
    def steered(name: str, reason: str, as_json: bool) -> None:
        with workspace() as client:
            found: Rollout = getattr(client.edge, method)(name, reason)
        _print(found, as_json=as_json)


_steering("pause", "Tell no other group until somebody resumes it.", "pause_rollout")
_steering("resume", "Go on, also past a group that failed.", "resume_rollout")
_steering("skip", "Tell the next group without waiting for the one that it is at.", "skip_rollout_group")
_steering("reverse", "Give every device what it had before, as the deployment's next revision.", "reverse_rollout")


def rollout_options(function: F) -> F:
    """``--rollout`` and what belongs to it; the command gets a ``rolled`` that puts them into a deployment."""

    @click.option(
        "--rollout",
        "groups",
        metavar="GROUPS",
        help="In groups, each after the one before went well: 10%,50% or 5,100 (devices), of those that are left; then the rest.",
    )
    @click.option("--success", type=click.FloatRange(0, 100, min_open=True), help="Per cent of a group that must be well.  [100]")
    @click.option("--errors", type=click.FloatRange(0, 100, min_open=True), help="Per cent of failures that end it.  [10]")
    @click.option("--timeout", callback=duration_s, metavar="SPAN", help="Time that a group has for it: 30min, 2h.  [1h]")
    @click.option("--soak", callback=duration_s, metavar="SPAN", help="Time that a group must stay well.  [none]")
    @click.option("--on-error", type=click.Choice(["pause", "reverse"]), help="What a group that failed leads to.  [pause]")
    @functools.wraps(function)
    def with_rollout(
        *,
        groups: str | None,
        success: float | None,
        errors: float | None,
        timeout: int | None,
        soak: int | None,
        on_error: str | None,
        **others: object,
    ) -> object:
        rules = {"success_percent": success, "error_percent": errors, "timeout_s": timeout, "soak_s": soak}
        given = {name: float(value) for name, value in rules.items() if value is not None}
        return function(rolled=functools.partial(_rolled, groups, given, cast("OnError | None", on_error)), **others)

    return with_rollout


def _rolled(groups: str | None, rules: dict[str, float], on_error: OnError | None, deployment: EdgeDeployment) -> EdgeDeployment:
    """``deployment`` with the policy that the options name, or with its own one changed by them. Raises UsageError."""
    import msgspec

    from hedgerow.contracts.rollout import RolloutPolicy

    policy = deployment.rollout if groups is None else RolloutPolicy(groups=[_group(text) for text in groups.split(",")])
    if policy is None:
        if rules or on_error:
            raise click.UsageError("In which groups? Give --rollout 10%,50%, or write rollout in the manifest.")
        return deployment
    changed = [msgspec.structs.replace(group, **rules) for group in policy.groups]
    policy = msgspec.structs.replace(policy, groups=changed, on_error=on_error or policy.on_error)
    return msgspec.structs.replace(deployment, rollout=policy)


def _group(text: str) -> RolloutGroup:
    from hedgerow.contracts.rollout import RolloutGroup

    found = _GROUP.fullmatch(text.strip())
    number = float(found[1]) if found else 0.0
    if found is None or number <= 0 or (found[2] and number > 100) or (not found[2] and number != int(number)):
        raise click.UsageError(f"{text!r} is no group; write 10% or a number of devices, with commas between them.")
    return RolloutGroup(percent=number) if found[2] else RolloutGroup(devices=int(number))


def follow(client: Client, name: str, *, quiet: bool = False) -> Rollout:
    """Wait for the end of the newest rollout, or for the pause that needs somebody; tells what happens on standard error.

    Ctrl-C ends the waiting, not the rollout.
    """
    last = ""

    def tell(found: Rollout) -> None:
        nonlocal last
        words = f"{name} revision {found.revision} {found.state}: {in_words(found)}"
        if not quiet and words != last:
            last = words
            click.echo(plain(words), err=True)

    try:
        return client.edge.wait_for_rollout(name, tell)
    except KeyboardInterrupt:
        click.echo(f"The rollout goes on without you. Watch it again: hedgerow edge rollout show {name} --watch", err=True)
        raise


def exit_as(found: Rollout) -> None:
    """Exit code 1 for a rollout that did not succeed."""
    if found.state != "succeeded":
        click.get_current_context().exit(1)


def in_words(found: Rollout) -> str:
    """Its groups in a line."""
    if not found.groups:
        return "not shared out yet: the hub does that"
    told = [f"{group.name} {_progress(group)}" for group in found.groups if group.state != "waiting"]
    waiting = sum(group.state == "waiting" for group in found.groups)
    return ", ".join([*told, *([f"{count(waiting, 'group')} waiting"] if waiting else [])])


def newest_of(client: Client, deployment: EdgeDeployment, *, always: bool = False) -> Rollout | None:
    """The newest rollout of a deployment. Unless ``always``, only one that has a policy is asked for."""
    from hedgerow.sdk.errors import ApiError

    if deployment.rollout is None and not always:
        return None
    try:
        return client.edge.rollout(deployment.name)
    except ApiError as problem:
        if problem.status == 404:  # it never had one, or the control plane knows of none
            return None
        raise


def in_a_word(found: Rollout | None) -> str:
    """How far it is, while that is of interest."""
    if found is None or found.state in ("succeeded", "superseded"):
        return ""
    return f"{found.state}, {sum(group.succeeded for group in found.groups)}/{sum(group.devices for group in found.groups)} well"


def print_foretold(plan: EdgePlan, *, to_error: bool = False) -> None:
    """The groups in which a deployment would be rolled out."""
    for number, group in enumerate(plan.rollout, 1):
        more = " …" if group.count > len(group.devices) else ""
        devices = f": {' '.join(group.devices)}{more}" if group.devices else ""
        click.echo(plain(f"Rollout {number}. {group.name}, {count(group.count, 'device')}{devices}"), err=to_error)


def line_of(found: Rollout) -> str:
    """What the deployment's own page says of it."""
    reason = f" ({found.reason})" if found.reason else ""
    return f"revision {found.revision} {found.state}{reason}: {in_words(found)}"


def _progress(group: RolloutGroupStatus) -> str:
    failed = f", {group.failed} failed" if group.failed else ""
    soaking = " and soaking" if group.state == "soaking" else ""
    return f"{group.succeeded}/{group.devices} well{failed}{soaking}"


def _print(found: Rollout, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_record(
        {
            "deployment": found.edge_deployment,
            "revision": found.revision,
            "instead of": found.previous_revision,
            "state": found.state,
            "reason": found.reason,
            "on error": found.policy.on_error,
            "began": ago(found.created_at),
            "ended": "" if found.state == "reversing" else ago(found.ended_at),
        }
    )
    rows = [
        (one.name, one.state, one.devices, one.released, one.succeeded, one.failed, ago(one.began_at), one.reason)
        for one in found.groups
    ]
    click.echo()
    print_table(("group", "state", "devices", "told", "well", "failed", "began", "reason"), rows, in_words(found))
