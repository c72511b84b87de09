"""``python -P -m edge_agent``: run the agent, show its last report, or check the device. The composition root."""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent import commands as look_commands
from edge_agent.chaos import command as chaos_command
from edge_agent.device_config import default_state_dir, known_state_dir, others_can_read, read_device_config
from edge_agent.enrolment import command as enroll_command
from edge_agent.service import commands as service_commands
from edge_agent.service.notify import Notifier, watchdog_s
from edge_agent.service.trial import ReleaseTrial
from edge_agent.service.upgrade import launch_argv
from edge_agent.service.watchdog import Loop, Watchdog
from edge_agent.settings import AgentSettings, load_agent_settings
from edge_agent.state_store import StateStore
from hedgerow import __version__
from hedgerow.clock import SystemClock
from hedgerow.contracts.status import StatusReport
from hedgerow.errors import HedgerowError, UserError
from hedgerow.logs import set_up_logs
from hedgerow.process.lock import hold_lock, lock_holder
from hedgerow.settings import rows

if TYPE_CHECKING:
    from edge_agent.assembly import Assembly

OK, FAILED, USAGE = 0, 1, 2
_LOOKING = ("config", "state_dir", "docker_host", "releases")
_LIMITS = {
    "cgroup": "control groups (memory, CPU and processes of the whole module)",
    "rlimit": "rlimits (memory and open files of each process; CPU is not limited)",
}


def main(arguments: Sequence[str]) -> int:
    """Exit code of one command: 0 ok, 1 failed, 2 wrong use."""
    options = _parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if name in {row.name for row in rows(AgentSettings)}}
    try:
        settings = load_agent_settings(os.environ, given)
        match options.command:
            case "run":
                return _run(settings, arguments)
            case "enroll":
                return _enroll(options, settings)
            case "status":
                return _status(settings, as_json=options.json)
            case "install" | "uninstall" | "upgrade":
                return _service(options, settings)
            case "chaos":
                return chaos_command.run(options, default_state_dir(settings), SystemClock())
            case _:
                return _look(settings, options)
    except HedgerowError as problem:
        print(f"edge agent: {problem.sentence()}", file=sys.stderr)
        return USAGE if isinstance(problem, UserError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hedgerow agent", description="Keeps modules alive and ships their telemetry.")
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {"run": "run the agent until SIGTERM", "status": "show the last report", "check": "check this device"}
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        for row in rows(AgentSettings):
            flag = f"--{row.name.replace('_', '-')}"
            default = f"default {row.shown_default}, " if row.shown_default else ""
            text = f"{row.help} ({default}{row.env})".replace("%", "%%")
            # What only looks takes the same options, so that a command line can be reused; most mean nothing to it.
            shown = text if name == "run" or row.name in _LOOKING else argparse.SUPPRESS
            if row.type_name == "bool":
                shown = row.help if shown is text else shown
                command.add_argument(flag, dest=row.name, action="store_true", default=None, help=shown)
            else:
                command.add_argument(flag, dest=row.name, help=shown)
        if name != "run":
            command.add_argument("--json", action="store_true", help="for machines")
    enroll_command.add_parser(commands)
    service_commands.add_parsers(commands)
    service_commands.add_upgrade_parser(commands)
    chaos_command.add_parser(commands)
    look_commands.add_parsers(commands)
    return parser


def _run(settings: AgentSettings, arguments: Sequence[str]) -> int:
    # Only this command needs the libraries of the extra `edge`; `status` and `check` work without them.
    from edge_agent.assembly import Assembly, Device, module_environment

    set_up_logs(settings.log_level, settings.log_format)
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    pause = _pause(sys.stdin.fileno() if settings.watch_parent else None)
    # The manager is asked for the time that the next question may take, too.
    enroll_command.before_running(settings, pause, lambda why, for_s: notifier.waiting(why, for_s + 120.0), random.random)
    config = read_device_config(settings.config)
    if others_can_read(settings.config):
        print(f"edge agent: other users can read {settings.config}, which holds this device's key: chmod 600 it", file=sys.stderr)
    store = StateStore(default_state_dir(settings))
    store.prepare()
    with hold_lock(store.lock, f"The agent of {store.folder}"):
        wakeup = _listen_for_signals(hangup=settings.releases is not None)
        device = Device(config, settings, store, __version__, module_environment(os.environ))
        assembly = Assembly(device, SystemClock())
        assembly.start()
        with _told(notifier, assembly.loops(), assembly.status_line):
            trial = _trial(settings.releases, assembly) if settings.releases else None
            again = _wait_for_end(wakeup, watch_parent=settings.watch_parent)
            if not again:
                notifier.stopping()  # a manager that hears it ends whatever this process becomes
            if trial is not None:
                trial.close()
        assembly.close()
    if again and settings.releases is not None:
        _become_current(settings.releases, arguments)
    return OK


def _enroll(options: argparse.Namespace, settings: AgentSettings) -> int:
    set_up_logs(settings.log_level, settings.log_format)
    print("\n".join(enroll_command.run(options, settings, os.environ, _pause(None), random.random)))
    return OK


def _pause(parent: int | None) -> Callable[[float], None]:
    """Waits so many seconds; ends the process when the pipe to its ``parent`` closes meanwhile."""

    def pause(seconds: float) -> None:
        ready, _, _ = select.select([] if parent is None else [parent], [], [], seconds)
        if ready and parent is not None and not os.read(parent, 4096):
            sys.exit(OK)

    return pause


def _trial(releases: Path, assembly: Assembly) -> ReleaseTrial:
    def ended(words: str, kept: bool) -> None:
        assembly.decisions.record(None, "release-kept" if kept else "release-back", words)

    trial = ReleaseTrial(
        releases,
        assembly.loops(),
        SystemClock(),
        has_session=lambda: assembly.hub_side.courier.session is not None,
        on_end=ended,
        leave=lambda: os.kill(os.getpid(), signal.SIGHUP),
    )
    trial.start()
    return trial


def _become_current(releases: Path, arguments: Sequence[str]) -> None:
    """Start again as the release that is current now: the same process, so that whoever watches it notices nothing."""
    kept = list(arguments)
    while "--releases" in kept:
        place = kept.index("--releases")
        del kept[place : place + 2]
    argv = launch_argv(releases, kept)
    sys.stdout.flush()
    os.execv(argv[0], argv)  # noqa: S606 - no shell; our own launcher


@contextmanager
def _told(notifier: Notifier, loops: Sequence[Loop], status: Callable[[], str]) -> Iterator[None]:
    """systemd, when it started this agent, hears that it is ready and alive."""
    granted_s = watchdog_s(os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID"), os.getpid())
    watchdog = Watchdog(notifier, loops, granted_s, status) if granted_s and notifier.heard else None
    if watchdog is not None:
        watchdog.start()
    notifier.ready()
    try:
        yield
    finally:
        if watchdog is not None:
            watchdog.close()


def _service(options: argparse.Namespace, settings: AgentSettings) -> int:
    caller = service_commands.Caller(Path.home(), os.geteuid() == 0)
    if options.command == "upgrade":
        lines = service_commands.upgrade(options, settings, lambda pid: os.kill(pid, signal.SIGHUP))
    elif options.command == "install":
        _parser().parse_args(["run", *options.options])  # an agent that refuses its options would never come up
        lines = service_commands.install(options, settings, caller)
    else:
        lines = service_commands.uninstall(options, caller)
    print("\n".join(lines))
    return OK


def _look(settings: AgentSettings, options: argparse.Namespace) -> int:
    """What only looks: ``events``, ``support-bundle``, ``check``."""
    now = SystemClock().now()
    if options.command == "events":
        code, lines = look_commands.show_events(settings, options)
    elif options.command == "support-bundle":
        code, lines = look_commands.make_bundle(settings, options, __version__, now)
    else:
        code, lines = look_commands.show_checks(settings, now, as_json=options.json)
    if lines:
        print("\n".join(lines))
    return code


def _listen_for_signals(*, hangup: bool) -> int:
    """A descriptor that becomes readable when the process is told to end, or (``hangup``) to start again as another release."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangup else [])):
        # A handler is needed for the wake-up descriptor to be written; it has nothing to do itself.
        signal.signal(signum, lambda _signum, _frame: None)
    return reading


def _wait_for_end(wakeup: int, *, watch_parent: bool) -> bool:
    """True when it is to start again."""
    watched = [wakeup, sys.stdin.fileno()] if watch_parent else [wakeup]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wakeup in ready:
            return set(os.read(wakeup, 64)) == {signal.SIGHUP}
        if not os.read(sys.stdin.fileno(), 4096):
            return False


def _status(settings: AgentSettings, *, as_json: bool) -> int:
    from edge_agent.decisions import read_decisions
    from edge_agent.link.standing import words

    store = StateStore(known_state_dir(settings))
    report = store.load("report.json", StatusReport) if store.report.exists() else None
    decisions = read_decisions(store.decisions)
    pid = lock_holder(store.lock)
    if as_json:
        print(msgspec.json.encode({"pid": pid, "report": report, "decisions": decisions}).decode())
        return OK if report else FAILED
    print(f"agent: {'not running' if pid is None else f'running, pid {pid}'} ({store.folder})")
    release = service_commands.release_line(settings)
    if release is not None:
        print(release)
    if report is None:
        print("there is no report yet")
        return FAILED
    if report.link is not None and pid is not None:
        print(f"link: {words(report.link)}")
    print(f"desired state {report.desired.version}: {report.desired.code} {report.desired.message}")
    if report.agent_release is not None:
        wanted = report.agent_release
        print(f"release that the hub asks for: {wanted.wanted}, {wanted.state} {wanted.reason}".rstrip())
    print(f"limits of process modules: {_LIMITS.get(report.limits_by, 'unknown')}")
    for name, module in sorted(report.modules.items()):
        print(f"  {name:<24} {module.state:<10} {module.address or '':<24} {module.reason}")
    if report.buffer is not None:
        print(f"telemetry: {report.buffer.queued_messages} messages queued, {report.buffer.dropped_messages} dropped")
    for decision in decisions[-10:]:
        print(f"  {decision.at:%Y-%m-%d %H:%M:%S} {decision.action:<16} {decision.module or 'device':<24} {decision.reason}")
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
