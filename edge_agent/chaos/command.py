"""``hedgerow agent chaos``: arguments in, an experiment, an exit code out."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.chaos import experiments
from edge_agent.chaos.experiments import Lab
from edge_agent.chaos.orders import LONGEST_S
from edge_agent.chaos.trial import Trial, shown
from edge_agent.errors import ChaosRefused
from hedgerow.clock import Clock

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)")
_TEXTS = {
    "offline": "keep the link to the hub down for a time",
    "kill-module": "kill -9 of a module",
    "kill-agent": "kill -9 of the agent",
    "disk-full": "fill the disk of the state folder for a time",
}


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own class for it is private
    """``chaos`` below ``hedgerow agent``."""
    text = "break something on purpose and check the promises (needs an agent that runs with --chaos-allowed)"
    chaos = commands.add_parser("chaos", help=text, description=text)
    faults = chaos.add_subparsers(dest="experiment", required=True)
    for name, what in _TEXTS.items():
        fault = faults.add_parser(name, help=what, description=what)
        fault.add_argument("--config", help="the device.toml of this device")
        fault.add_argument("--state-dir", help="folder of everything the agent keeps")
        fault.add_argument("--json", action="store_true", help="for machines")
        if name in ("offline", "disk-full"):
            fault.add_argument("duration", help="30s, 5m or 1h")
        if name == "kill-module":
            fault.add_argument("module", help="its name")
        if name == "disk-full":
            fault.add_argument("--leave-bytes", type=int, default=0, metavar="N", help="free space that is left (default 0)")


def run(options: argparse.Namespace, state_folder: Path, clock: Clock) -> int:
    """Exit code 0 when the promises were kept, else 1. Raises ChaosNotAllowed, ChaosUnanswered, ChaosRefused."""
    # What was begun is also ended when this command is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    say = _silent if options.json else _say
    trial = _experiment(options, Lab(state_folder, clock, say))
    print(msgspec.json.encode(trial).decode() if options.json else shown(trial))  # noqa: T201 - the command's answer
    return 0 if trial.kept else 1


def duration_s(text: str) -> float:
    """Seconds of ``90``, ``30s``, ``5m`` or ``1h``; raises ChaosRefused."""
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 0.0 < seconds <= LONGEST_S:
        raise ChaosRefused(problem=f"{text[:40]!r} is no time between 0 and 24h (write 30s, 5m or 1h)")
    return seconds


def _experiment(options: argparse.Namespace, lab: Lab) -> Trial:
    match options.experiment:
        case "offline":
            return experiments.offline(lab, duration_s(options.duration))
        case "kill-module":
            return experiments.kill_module(lab, options.module)
        case "kill-agent":
            return experiments.kill_agent(lab)
        case _:
            return experiments.disk_full(lab, duration_s(options.duration), max(0, options.leave_bytes))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what happens, as it happens


def _silent(_text: str) -> None:
    """Machines get the whole answer at the end."""
