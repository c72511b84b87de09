"""Composition root of the controller (``python -P -m registry.controller``): reads settings, builds the parts, runs the loop."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.backoff import Backoff
from hedgerow.clock import SystemClock
from hedgerow.contracts.names import BLOBS_COLLECT
from hedgerow.egress import EgressPolicy
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.logs import set_up_logs
from hedgerow.process import Supervised
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import HeldLock, hold_lock
from registry.blobs.choose import open_store
from registry.blobs.errors import StorageUnavailable
from registry.controller.balancer.direct import NoBalancer
from registry.controller.balancer.haproxy_config import HaproxyOptions
from registry.controller.balancer.haproxy_process import HaproxyBalancer
from registry.controller.balancer.port import Balancer
from registry.controller.builds import IMAGE_BUILD, build_image
from registry.controller.clock_watch import ClockWatch
from registry.controller.controller import Controller, StopRules
from registry.controller.conversions import MODEL_CONVERT, convert_model
from registry.controller.event_keeping import EventKeeping
from registry.controller.event_loop import EventLoop
from registry.controller.file_work.tasks import ENV_BLOBS, ENV_BLOBS_ENDPOINT
from registry.controller.garbage import collect_garbage
from registry.controller.garbage_schedule import GarbageSchedule
from registry.controller.jobs import Jobs, JobTools, Kind
from registry.controller.lease_keeper import LeaseKeeper
from registry.controller.own_python import OwnPython
from registry.controller.pushes import push_image
from registry.controller.runs import run_script
from registry.controller.sandbox import make_sandbox
from registry.controller.services.hands import Hands
from registry.controller.services.image_folders import ImageFolders
from registry.controller.services.reconcile import Limits, Services
from registry.controller.services.replica_folders import ReplicaFolders
from registry.controller.settings import ControllerSettings
from registry.controller.stories import StoryTools
from registry.controller.webhooks import dispatch as webhook_dispatch
from registry.controller.webhooks.attempt import Attempts, Trust
from registry.controller.webhooks.dispatch import Webhooks
from registry.controller.webhooks.verdict import Rules
from registry.controller.webhooks.watch import WebhookWatch
from registry.errors import RoleTaken
from registry.settings import read_settings
from registry.store import schema
from registry.store.blobs import LEASE_S
from registry.store.database import open_database
from registry.store.outgoing_pushes import IMAGE_PUSH
from registry.store.runs import RUN
from registry.vault import Vault
from registry.wakeups import FEED
from registry.wakeups_socket import SocketReceiver, SocketWakeups
from registry.workspace import Workspace, open_workspace

log = logging.getLogger("registry.controller")
ROLE = "controller"
# Debian keeps servers where a login without root does not look.
_MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_NOBODY = 65534
_CONNECTIONS_MAX = 4000
_QUEUE_SLACK_MS = 1000


def main(arguments: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start or another took over, 2 wrong options."""
    try:
        settings = read_settings(ControllerSettings, "python -P -m registry.controller", arguments, os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        try:
            workspace = open_workspace(settings.workspace)
            with _role(workspace):
                _run(settings, workspace)
        except OSError as problem:
            raise StorageUnavailable(problem=f"{os.strerror(problem.errno or 0)}: {problem.filename or ''}") from problem
    except HedgerowError as problem:
        print(f"hedgerow controller: {problem.sentence()}", file=sys.stderr, flush=True)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _role(workspace: Workspace) -> HeldLock:
    try:
        return hold_lock(workspace.role_lock(ROLE), "The controller")
    except LockHeld as held:
        raise RoleTaken(role=ROLE, folder=workspace.folder, pid=held.fields["pid"]) from None


def _run(settings: ControllerSettings, workspace: Workspace) -> None:
    clock = SystemClock()
    with ExitStack() as parts:
        database = parts.enter_context(closing(open_database(settings.database, workspace.folder)))
        schema.upgrade(database, workspace)
        wakeups = parts.enter_context(closing(SocketWakeups(workspace.run)))
        receiver = parts.enter_context(closing(SocketReceiver(workspace.run, ROLE)))
        loop = parts.enter_context(closing(EventLoop(clock)))
        keeper = LeaseKeeper(database, clock, workspace.folder)
        tools = JobTools(database, wakeups, loop, clock, keeper.lease, workspace.processes, workspace.work)
        watch = ClockWatch(tools, max(LEASE_S, settings.blob_lease_s))
        controller = _assemble(settings, workspace, tools, keeper, receiver, watch)
        watch.begin()
        feed = parts.enter_context(closing(SocketReceiver(workspace.run, FEED)))
        outgoing = WebhookWatch(loop, feed, _webhooks(settings, workspace, tools))
        outgoing.begin()
        parts.callback(outgoing.stop)
        EventKeeping(tools, settings.events_keep_days).begin()
        GarbageSchedule(tools, settings.gc_every_s).begin()
        if settings.ready_file is not None:
            parts.callback(settings.ready_file.unlink, missing_ok=True)
        controller.run(lambda: _announce(settings.ready_file))


def _assemble(
    settings: ControllerSettings,
    workspace: Workspace,
    tools: JobTools,
    keeper: LeaseKeeper,
    receiver: SocketReceiver,
    watch: ClockWatch,
) -> Controller:
    places = _places(settings)
    python = OwnPython(dict(os.environ) | places | _outgoing(settings))
    store = open_store(workspace.blobs, settings.blobs, settings.blobs_endpoint)
    sandbox = make_sandbox(workspace, python.installation(), running_as_root=os.geteuid() == 0, required=settings.require_sandbox)
    if sandbox.note():
        log.warning("Foreign code: %s", sandbox.note())
    cores = os.cpu_count() or 1
    story_tools = StoryTools(
        workspace, tools.clock, python, sandbox, lambda: _server_url(workspace), max(1, cores // max(1, settings.max_runs)), store
    )
    jobs = Jobs(
        tools,
        {
            IMAGE_BUILD: Kind(lambda activity, request: build_image(story_tools, activity, request), settings.max_builds),
            MODEL_CONVERT: Kind(lambda activity, request: convert_model(story_tools, activity, request), settings.max_builds),
            BLOBS_COLLECT: Kind(
                lambda activity, request: collect_garbage(
                    story_tools, places | _database(settings), watch.look, activity, request
                ),
                1,
            ),
            IMAGE_PUSH: Kind(lambda activity, request: push_image(story_tools, activity, request), settings.max_builds),
            RUN: Kind(lambda activity, request: run_script(story_tools, activity, request), settings.max_runs),
        },
    )

    def look() -> None:
        controller.look_at_services()

    images = ImageFolders(workspace, python, tools.loop, tools.clock, look)
    balancer = _balancer(settings, workspace, tools, look)
    slack_ms = 0 if balancer.single_replica else _QUEUE_SLACK_MS
    hands = Hands(ReplicaFolders(workspace), images, sandbox, tools.database, tools.lease, slack_ms)
    services = Services(tools, hands, balancer, Limits(max(2, cores), settings.ready_timeout_s), look)
    rules = StopRules(settings.watch_parent, settings.stop_services_on_exit)
    controller = Controller(tools, keeper, receiver, jobs, services, rules)
    return controller


def _places(settings: ControllerSettings) -> dict[str, str]:
    """How the controller's own helpers learn where contents are."""
    given = {
        ENV_BLOBS: settings.blobs,
        ENV_BLOBS_ENDPOINT: settings.blobs_endpoint,
        "HEDGEROW_BLOB_LEASE_S": str(settings.blob_lease_s),
    }
    return {name: value for name, value in given.items() if value}


def _outgoing(settings: ControllerSettings) -> dict[str, str]:
    """How the packager learns which registries it may call, and as whom, and what it must refuse.

    Paths are absolute: it has a folder of its own.
    """
    EgressPolicy.parse(settings.egress_allow)  # said now, not to the first who builds
    given = {
        "HEDGEROW_EGRESS_ALLOW": settings.egress_allow,
        "HEDGEROW_EGRESS_CA_FILE": str(settings.egress_ca_file.resolve()) if settings.egress_ca_file else "",
        "HEDGEROW_REGISTRY_LOGINS": str(settings.registry_logins.resolve()) if settings.registry_logins else "",
        "HEDGEROW_REQUIRE_SANDBOX": "true" if settings.require_sandbox else "",
    }
    return {name: value for name, value in given.items() if value}


def _database(settings: ControllerSettings) -> dict[str, str]:
    return {"HEDGEROW_DATABASE": settings.database} if settings.database else {}


def _webhooks(settings: ControllerSettings, workspace: Workspace, tools: JobTools) -> Webhooks:
    first_s, cap_s = settings.webhook_first_retry_s, settings.webhook_longest_retry_s
    rules = Rules(
        timeout_s=settings.webhook_timeout_s,
        give_up_s=settings.webhook_give_up_s,
        backoff=Backoff(first_s=first_s, factor=2.0, cap_s=max(first_s, cap_s)),
    )
    vault = Vault(workspace.keys)
    attempts = Attempts(
        policy=EgressPolicy.parse(settings.egress_allow),
        trust=Trust(settings.egress_ca_file),
        rules=rules,
        clock=tools.clock,
        unseal=lambda claimed: vault.open(f"webhook/{claimed.webhook}", claimed.sealed).decode(),
    )
    return Webhooks(webhook_dispatch.Tools(tools.database, tools.clock, tools.lease, attempts, rules))


def _balancer(settings: ControllerSettings, workspace: Workspace, tools: JobTools, on_end: Callable[[], None]) -> Balancer:
    program = shutil.which(settings.haproxy, path=os.pathsep.join([os.environ.get("PATH", os.defpath), _MORE_PATH]))
    if program is None:
        return NoBalancer()
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _CONNECTIONS_MAX if open_files == resource.RLIM_INFINITY else min(_CONNECTIONS_MAX, open_files // 4)
    return HaproxyBalancer(
        program=Path(program),
        folder=workspace.run / "balancer",
        process=Supervised(workspace.processes / "balancer"),
        options=HaproxyOptions(
            port=settings.balancer_port or _free_port(),
            threads=min(4, os.cpu_count() or 1),
            max_connections=max(100, most),
            uid=_NOBODY if os.geteuid() == 0 else None,
        ),
        loop=tools.loop,
        clock=tools.clock,
        on_end=on_end,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server_url(workspace: Workspace) -> str | None:
    """Where the server of this workspace answers, if one runs."""
    try:
        return str(json.loads((workspace.run / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _announce(path: Path | None) -> None:
    if path is not None:
        atomic_write(path, json.dumps({"pid": os.getpid()}).encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
