"""Ten minutes at 80 % of peak: ``python -m loadtests.soak_scoring [--minutes 10] [--share 0.8] [--rate N] [--json FILE]``.

Requests of 1 to 256 rows in three encodings go out at a fixed rate, whether answers come or not; a latency counts from when its
request was meant to go, and every answer is compared. Ends with 1 when the bar is missed. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench_scoring import run_folder, write_json
from loadtests.scoring import soak_report
from loadtests.scoring.soak import Wish, soak


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Minutes of mixed load at a share of the peak.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the measured peak")
    parser.add_argument("--rate", type=float, help="requests a second instead of a share of the peak")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--folder", type=Path, help="folder for the server's log and everything else; kept")
    options = parser.parse_args(arguments)
    with run_folder(options.folder) as name:
        soaked = soak(Wish(options.minutes, options.share, options.rate), Path(name))
    print(soak_report.text(soaked), flush=True)
    if options.json is not None:
        write_json(options.json, soak_report.as_json(soaked))
    return int(any(point.met is False for point in soak_report.points(soaked)))


if __name__ == "__main__":
    sys.exit(main())
