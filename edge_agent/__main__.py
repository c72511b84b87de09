"""``python -P -m edge_agent``: run the agent, show its last report, or check the device. The composition root."""

from __future__ import annotations

import argparse
import dataclasses
import os
import select
import signal
import sys
from collections.abc import Sequence

import msgspec

from edge_agent.checks import run_checks
from edge_agent.device_config import default_state_dir, others_can_read, read_device_config
from edge_agent.settings import AgentSettings, load_agent_settings
from edge_agent.state_store import StateStore
from hedgerow import __version__
from hedgerow.clock import SystemClock
from hedgerow.contracts.status import StatusReport
from hedgerow.errors import HedgerowError, UserError
from hedgerow.logs import set_up_logs
from hedgerow.process.lock import hold_lock, lock_holder
from hedgerow.settings import rows

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Exit code of one command: 0 ok, 1 failed, 2 wrong use."""
    options = _parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if name in {row.name for row in rows(AgentSettings)}}
    try:
        settings = load_agent_settings(os.environ, given)
        match options.command:
            case "run":
                return _run(settings)
            case "status":
                return _status(settings, as_json=options.json)
            case _:
                return _check(settings, as_json=options.json)
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
            if row.type_name == "bool":
                command.add_argument(flag, dest=row.name, action="store_true", default=None, help=row.help)
            else:
                default = f"default {row.shown_default}, " if row.shown_default else ""
                command.add_argument(flag, dest=row.name, help=f"{row.help} ({default}{row.env})".replace("%", "%%"))
        if name != "run":
            command.add_argument("--json", action="store_true", help="for machines")
    return parser


def _run(settings: AgentSettings) -> int:
    # Only this command needs the libraries of the extra `edge`; `status` and `check` work without them.
    from edge_agent.assembly import Assembly, Device, module_environment

    set_up_logs(settings.log_level, settings.log_format)
    config = read_device_config(settings.config)
    if others_can_read(settings.config):
        print(f"edge agent: other users can read {settings.config}, which holds this device's key: chmod 600 it", file=sys.stderr)
    store = StateStore(default_state_dir(settings))
    store.prepare()
    with hold_lock(store.lock, f"The agent of {store.folder}"):
        wakeup = _listen_for_signals()
        device = Device(config, settings, store, __version__, module_environment(os.environ))
        assembly = Assembly(device, SystemClock())
        assembly.start()
        _wait_for_end(wakeup, watch_parent=settings.watch_parent)
        assembly.close()
    return OK


def _listen_for_signals() -> int:
    """A descriptor that becomes readable when the process is told to end."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGINT):
        # A handler is needed for the wake-up descriptor to be written; it has nothing to do itself.
        signal.signal(signum, lambda _signum, _frame: None)
    return reading


def _wait_for_end(wakeup: int, *, watch_parent: bool) -> None:
    watched = [wakeup, sys.stdin.fileno()] if watch_parent else [wakeup]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wakeup in ready or not os.read(sys.stdin.fileno(), 4096):
            return


def _status(settings: AgentSettings, *, as_json: bool) -> int:
    from edge_agent.decisions import read_decisions

    store = StateStore(default_state_dir(settings))
    report = store.load("report.json", StatusReport) if store.report.exists() else None
    decisions = read_decisions(store.decisions)
    pid = lock_holder(store.lock)
    if as_json:
        print(msgspec.json.encode({"pid": pid, "report": report, "decisions": decisions}).decode())
        return OK if report else FAILED
    print(f"agent: {'not running' if pid is None else f'running, pid {pid}'} ({store.folder})")
    if report is None:
        print("there is no report yet")
        return FAILED
    print(f"desired state {report.desired.version}: {report.desired.code} {report.desired.message}")
    for name, module in sorted(report.modules.items()):
        print(f"  {name:<24} {module.state:<10} {module.address or '':<24} {module.reason}")
    if report.buffer is not None:
        print(f"telemetry: {report.buffer.queued_messages} messages queued, {report.buffer.dropped_messages} dropped")
    for decision in decisions[-10:]:
        print(f"  {decision.at:%Y-%m-%d %H:%M:%S} {decision.action:<16} {decision.module or 'device':<24} {decision.reason}")
    return OK


def _check(settings: AgentSettings, *, as_json: bool) -> int:
    checks = list(run_checks(settings.config, default_state_dir(settings), SystemClock().now()))
    if as_json:
        print(msgspec.json.encode([dataclasses.asdict(check) for check in checks]).decode())
    else:
        for check in checks:
            print(f"{'ok    ' if check.ok else 'failed'} {check.name:<22} {check.detail}")
            if not check.ok:
                print(f"       {'':<22} {check.remedy}")
    return OK if all(check.ok for check in checks) else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
