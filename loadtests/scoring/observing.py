"""What is observed of each request, switched on in turn under full load: access log, traces, collected data.

Traces go to a receiver on this machine that takes and forgets them; it runs on the same cores (as "others" in the table), so
look at the processor time a request as well as at the throughput. What does not keep up is dropped and counted, never waited
for: the table tells.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from loadtests.scoring import peers
from loadtests.scoring.models import Sent
from loadtests.scoring.peers import Site
from loadtests.scoring.rounds import Contender, Contest

_OFF = "all off"
_TELLS = (
    "hedgerow_access_log_dropped_total",
    "hedgerow_spans_exported_total",
    "hedgerow_spans_dropped_total",
    "hedgerow_collected_records_total",
    "hedgerow_collected_dropped_total",
)


def contests(site: Site, sent: Sequence[Sent], expected: Sequence[Any]) -> Iterator[Contest]:
    """One contest, with a receiver of traces while it lasts."""
    with otlp_receiver() as endpoint:
        log = ("--access-log", "json")
        all_traces = ("--otlp-endpoint", endpoint, "--trace-sample", "1")
        few_traces = ("--otlp-endpoint", endpoint, "--trace-sample", "0.01")
        collect = ("--collect", "--collect-dir", str(site.folder / "collected"), "--collect-sample", "0.01")
        ways: dict[str, tuple[str, ...]] = {
            _OFF: (),
            "access log, JSON to a file": log,
            "traces, 100 %": all_traces,
            "traces, 1 %": few_traces,
            "collected data, 1 %": collect,
            "access log, traces 1 %, collected 1 %": (*log, *few_traces, *collect),
        }
        file = site.folder / "access.log"
        contenders = [
            Contender(name, partial(peers.ours, site, flags=flags, stdout=file), sent, tells=_TELLS)
            for name, flags in ways.items()
        ]
        yield Contest("Observed, tiny model, JSON /score", contenders, expected, (32, 1), (_OFF,))


@contextmanager
def otlp_receiver() -> Iterator[str]:
    """Address of a receiver in a process of its own."""
    argv = [sys.executable, "-m", "loadtests.scoring.otlp_receiver"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
