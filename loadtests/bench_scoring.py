"""Scoring beside its peers: one model, one machine, servers in turn.

    python -m loadtests.bench_scoring [--rounds 3] [--seconds 3] [--only tiny heads script cnn observing] [--json FILE]

Each round starts every server in turn, waits for its first right answer (= start-up), checks the answers of all the different
bodies against onnxruntime, warms up, loads it with wrk on the same cores, reads CPU time and memory of all its processes, and
stops it. Ratios are medians of per-round ratios, so they hold on a noisy machine; how much of the processors other machines
took ("steal") is told beside. Servers' output goes nowhere, ours included, but what they say on stderr is kept until the end,
and for good with --folder. The ten minutes at 80 % of peak are soak_scoring.py's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from loadtests.scoring import bars, tables
from loadtests.scoring.contests import PARTS
from loadtests.scoring.rounds import Found, Options, hold


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scoring beside its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, help="file for every round's figures")
    parser.add_argument("--folder", type=Path, help="folder for the servers' logs and everything else; kept")
    options = parser.parse_args(arguments)
    with run_folder(options.folder) as name:
        found = _hold_all(options.only, Options(options.rounds, options.seconds, Path(name)))
    verdicts = bars.judged(found)
    if verdicts:
        print(bars.table(verdicts))
    if options.json is not None:
        met = [{"what": one.bar.what, "value": one.value, "limit": one.bar.limit, "met": one.met} for one in verdicts]
        write_json(options.json, {"contests": [tables.as_json(one) for one in found], "bars": met})


def _hold_all(parts: Sequence[str], options: Options) -> list[Found]:
    found = []
    for part in parts:
        for contest in PARTS[part](options.folder):
            found.append(hold(contest, options))
            print(tables.table(found[-1]), flush=True)
    return found


def run_folder(kept: Path | None) -> tempfile.TemporaryDirectory[str] | nullcontext[str]:
    """A folder for one run; the given one is kept."""
    if kept is None:
        return tempfile.TemporaryDirectory(prefix="hedgerow-bench-")
    kept.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(kept.absolute()))


def write_json(file: Path, figures: dict[str, Any]) -> None:
    file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
