"""A mixed load at a share of the peak, for minutes: the peak is measured, the load is sent at a fixed rate, memory is watched.

The peak is what the same callers with the same mix are answered when each sends as soon as it can.
"""

from __future__ import annotations

import http.client
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from loadtests.scoring import heads, mix, models, peers, serving
from loadtests.scoring.open_loop import Asked, Outcome, Plan
from loadtests.scoring.peers import Site
from loadtests.scoring.processes import Processors, cpu_s, family, rss_mb
from loadtests.scoring.serving import Running, WrongAnswer

_PEAK_CONNECTIONS = 32
_CONNECTIONS = 64
_LOOK_EVERY_S = 5.0
_SHUFFLE = 5


@dataclass(frozen=True)
class Wish:
    """``share`` of the peak, for ``minutes``; the peak is the best of ``tries`` of ``peak_s`` seconds."""

    minutes: float
    share: float = 0.8
    rate: float | None = None
    tries: int = 3
    peak_s: float = 4.0


@dataclass(frozen=True)
class Look:
    """The server ``at_s`` seconds after the start; times and shares are since the look before.

    ``lag_s`` is the longest that its event loop stood still in the last half minute, for the collector or anything else.
    """

    at_s: float
    rss_mb: float
    cpu_s: float
    steal: float
    others: float
    lag_s: float


@dataclass(frozen=True)
class Soaked:
    """``peak`` in requests a second, None where the rate was given."""

    wish: Wish
    peak: float | None
    rate: float
    outcome: Outcome
    looks: list[Look]


def soak(wish: Wish, folder: Path) -> Soaked:
    """Start ours with the tiny model, measure its peak, load it. Raises DidNotComeUp, WrongAnswer or CalledProcessError."""
    site = Site(models.tiny(folder), folder)
    scored = list(mix.scored(site.model))
    first = next(one for one in scored if one.path == "/score")
    running = serving.start(partial(peers.ours, site), "soak", folder, first.sent, first.wanted)
    try:
        port = running.server.port
        asked = [*learned(scored, port), *mix.pages(port)]
        order = mix.order(asked, random.Random(_SHUFFLE))
        peak = None if wish.rate else max(_peak(port, asked, order, wish.peak_s) for _ in range(wish.tries))
        rate = wish.rate or wish.share * (peak or 0.0)
        told = f"peak {peak:.0f} requests/s, " if peak else ""
        print(f"{told}sending {rate:.0f}/s for {wish.minutes:g} minutes", flush=True)
        plan = Plan(port, asked, order, _CONNECTIONS, wish.minutes * 60, rate)
        with callers(plan, folder / "outcome.json") as process:
            looks = list(watched(running, process))
    finally:
        running.stop()
    return Soaked(wish, peak, rate, _outcome(folder / "outcome.json"), looks)


def learned(scored: list[mix.Scored], port: int) -> list[Asked]:
    """Each asked once: what it answers, checked against onnxruntime, is what it must answer from then on."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    asked = []
    for number, one in enumerate(scored):
        status, body, headers = serving.ask(connection, one.path, one.sent)
        if status != 200 or not np.array_equal(np.ravel(serving.values_in(body, headers)), np.ravel(one.wanted)):
            raise WrongAnswer(f"{one.kind}: {status} {body[:300]!r}")
        asked.append(Asked(one.kind, heads.request("same", one.path, port, one.sent, number), body))
    connection.close()
    return asked


def _peak(port: int, asked: list[Asked], order: list[int], seconds: float) -> float:
    plan = Plan(port, asked, order, _PEAK_CONNECTIONS, seconds)
    argv = [sys.executable, "-m", "loadtests.scoring.open_loop"]
    done = subprocess.run(argv, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    if outcome.errors:
        raise WrongAnswer(f"while the peak was measured: {outcome.examples}")
    return outcome.answered / outcome.seconds


@contextmanager
def callers(plan: Plan, outcome: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process that sends; its outcome goes to a file."""
    given = outcome.with_suffix(".plan")
    given.write_bytes(msgspec.json.encode(plan))
    with given.open("rb") as stdin, outcome.open("wb") as stdout:
        process = subprocess.Popen([sys.executable, "-m", "loadtests.scoring.open_loop"], stdin=stdin, stdout=stdout)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def _outcome(file: Path) -> Outcome:
    return msgspec.json.decode(file.read_bytes(), type=Outcome)


def watched(running: Running, process: subprocess.Popen[bytes]) -> Iterator[Look]:
    """A look every five seconds until the callers end."""
    began = time.perf_counter()
    pids = family(running.process.pid)
    used_s, own_s, processors = cpu_s(pids), _own_cpu_s(process.pid), Processors.now()
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_S)
        at_s = time.perf_counter() - began
        pids = family(running.process.pid)
        used_now, own_now, processors_now = cpu_s(pids), _own_cpu_s(process.pid), Processors.now()
        spent_s = used_now - used_s
        others = processors_now.others_since(processors, spent_s + max(own_now - own_s, 0.0))
        lag_s = serving.told_by(running.server.port).get("hedgerow_event_loop_lag_seconds", 0.0)
        yield Look(at_s, rss_mb(pids), spent_s, processors_now.stolen_since(processors), others, lag_s)
        used_s, own_s, processors = used_now, own_now, processors_now


def _own_cpu_s(callers_pid: int) -> float:
    return cpu_s([os.getpid(), callers_pid])
