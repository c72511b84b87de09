"""``hedgerow-fleet-sim``: thousands of devices on a running control plane.

    hedgerow-fleet-sim --devices 2000 --rate 1 --size 200 --duration 60 [--churn 5]

Talks to the control plane that HEDGEROW_URL, HEDGEROW_WORKSPACE or the context in use names. Enrols its devices, lets each of
them speak the whole telemetry protocol through the broker, and removes them. Exit code 1 when a message got lost.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import sys

import msgspec

from hedgerow.errors import HedgerowError
from hedgerow.sdk.connect import connect
from loadtests.fleet_sim.drive import Load, run
from loadtests.fleet_sim.enrolment import enrolled
from loadtests.fleet_sim.tally import Figures

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 ok, 1 failed or lost something, 2 wrong use."""
    options = _parser().parse_args(arguments)
    if min(options.devices, options.size, options.rate, options.duration) <= 0 or options.churn < 0:
        print("hedgerow-fleet-sim: every number must be above 0", file=sys.stderr)
        return USAGE
    allow_connections(options.devices)
    load = Load(options.rate, options.size, options.duration, options.churn)
    try:
        with (
            connect(options.workspace, start=False) as client,
            enrolled(client, options.devices, options.prefix or f"sim-{secrets.token_hex(3)}", keep=options.keep) as configs,
        ):
            figures = run(configs, load, _say)
    except (HedgerowError, RuntimeError) as problem:
        print(f"hedgerow-fleet-sim: {problem}", file=sys.stderr)
        return FAILED
    print(msgspec.json.encode(figures).decode() if options.json else shown(figures))
    return FAILED if figures.lost or figures.contradictions else OK


def shown(figures: Figures) -> str:
    """For people."""
    refusals = ", ".join(f"{what} {count}" for what, count in figures.refusals.items()) or "none"
    return "\n".join(
        (
            f"devices                   {figures.devices}",
            f"messages sent             {figures.made} ({figures.sent_per_s}/s over {figures.seconds} s)",
            f"stored and acknowledged   {figures.acknowledged} ({figures.stored_per_s}/s while they spoke)",
            f"lost                      {figures.lost}",
            f"device to database        p50 {figures.p50_s:.3f} s, p95 {figures.p95_s:.3f} s, p99 {figures.p99_s:.3f} s",
            f"hellos, reports           {figures.hellos}, {figures.reports}",
            f"sent again, reconnects    {figures.repeats}, {figures.reconnects}",
            f"refusals                  {refusals}",
        )
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def allow_connections(count: int) -> None:
    """Raise this process' limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 100
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _parser() -> argparse.ArgumentParser:
    text = (__doc__ or "").replace("``hedgerow-fleet-sim``: t", "T")
    parser = argparse.ArgumentParser(
        prog="hedgerow-fleet-sim", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="MSG_PER_S", help="messages of each per second (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=200, metavar="BYTES", help="of one message (default: %(default)s)")
    parser.add_argument(
        "--duration", type=float, default=30.0, metavar="SECONDS", help="how long they speak (default: %(default)s)"
    )
    parser.add_argument("--churn", type=float, default=0.0, metavar="PER_S", help="connections cut per second (default: none)")
    parser.add_argument("--prefix", help="begin of the devices' names (default: sim- and a random part)")
    parser.add_argument("--keep", action="store_true", help="leave the devices enrolled")
    parser.add_argument("--workspace", metavar="WHERE", help="URL or folder of the control plane (default: the one in use)")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
