"""``python -P -m runtime.shadow``: flags to a comparer that runs until SIGTERM; counts go into the working folder.

The edge agent starts it for a module with a shadow. Exit codes: 0 told to end, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from hedgerow.clock import SystemClock
from hedgerow.logs import set_up_logs
from runtime.shadow.asking import Shadow
from runtime.shadow.comparer import Comparer
from runtime.shadow.comparing import Tolerance
from runtime.shadow.ledger import Ledger
from runtime.shadow.taps import Taps


def main(arguments: Sequence[str]) -> int:
    """Compare until told to stop."""
    options = _parser().parse_args(arguments)
    set_up_logs("info")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    comparer = Comparer(
        Taps(options.tap, options.fraction),
        Shadow(options.shadow),
        Ledger(Path.cwd(), options.pair),
        Tolerance(options.rtol, options.atol),
        SystemClock(),
        stopped.is_set,
    )
    comparer.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m runtime.shadow", description="Compare a module with its shadow.")
    parser.add_argument("--tap", type=Path, required=True, help="folder of the module's taps")
    parser.add_argument("--shadow", type=Path, required=True, help="ready-file of the shadow's server")
    parser.add_argument(
        "--pair", required=True, help="names the two versions and the rules: another pair is counted from nothing"
    )
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the requests that is tried")
    parser.add_argument("--rtol", type=float, default=1e-3, help="relative tolerance of numbers")
    parser.add_argument("--atol", type=float, default=1e-4, help="absolute tolerance of numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
