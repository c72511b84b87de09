"""Servers in turn, several times: each is started, checked, loaded, measured and stopped before the next one."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtests.scoring import serving, wrk
from loadtests.scoring.heads import HeadKind
from loadtests.scoring.models import Sent
from loadtests.scoring.peers import LeftOut, Ports, Server
from loadtests.scoring.processes import Processors, cpu_s, family, pss_mb
from loadtests.scoring.serving import Running
from loadtests.scoring.wrk import Counted

_WARM_UP_S = 1.0


@dataclass(frozen=True)
class Options:
    """How often and how long, and where files go while it lasts."""

    rounds: int
    seconds: float
    folder: Path


@dataclass(frozen=True)
class Contender:
    """A server, and what is sent to it. ``tells``: counters of its /metrics to be told beside (ours only)."""

    name: str
    make: Callable[[Ports], Server]
    sent: Sequence[Sent]
    heads: HeadKind = "same"
    tells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What is measured once a round without any server: ``per_s`` takes seconds and returns runs a second."""

    name: str
    per_s: Callable[[float], float]


@dataclass(frozen=True)
class Contest:
    """``bases``: contenders to which the others' throughput is put in relation; the first of ``connections`` counts for it."""

    title: str
    contenders: Sequence[Contender]
    expected: Sequence[Any]
    connections: tuple[int, ...]
    bases: tuple[str, ...]
    beside: Beside | None = None


@dataclass(frozen=True)
class Load:
    """What one server made of one kind of load; ``cpu_us`` is its processes'.

    ``steal`` and ``others``: shares of the processors that other machines, and other programs of this one, took meanwhile.
    """

    counted: Counted
    cpu_us: float
    steal: float
    others: float


@dataclass(frozen=True)
class Ran:
    """One server in one round; ``loads`` by number of connections."""

    loads: dict[int, Load]
    pss_mb: float
    start_s: float
    stop_s: float
    told: dict[str, float]


@dataclass
class Found:
    """All rounds of a contest; ``rans`` and ``beside`` by round, so that ratios are of what ran next to each other."""

    contest: Contest
    rans: dict[str, dict[int, Ran]] = field(default_factory=lambda: defaultdict(dict))
    beside: dict[int, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def median(self, name: str, figure: Callable[[Ran], float]) -> float:
        return statistics.median(figure(ran) for ran in self.rans[name].values())

    def worst(self, name: str, figure: Callable[[Ran], float]) -> float:
        return max(figure(ran) for ran in self.rans[name].values())

    def ratio(self, name: str, base: str) -> float | None:
        """Median of the rounds' throughput ratios, None without a round in which both ran."""
        most = self.contest.connections[0]
        mine, others = self._per_s(name, most), self._per_s(base, most)
        return middle(mine[number] / others[number] for number in mine.keys() & others.keys())

    def _per_s(self, name: str, connections: int) -> dict[int, float]:
        if self.contest.beside is not None and name == self.contest.beside.name:
            return self.beside
        return {number: ran.loads[connections].counted.per_s for number, ran in self.rans.get(name, {}).items()}


def middle(values: Iterable[float]) -> float | None:
    """The median, None of nothing."""
    listed = list(values)
    return statistics.median(listed) if listed else None


def hold(contest: Contest, options: Options) -> Found:
    """Every contender in turn, ``options.rounds`` times. One that fails is told with its reason and tried again next round."""
    found = Found(contest)
    absent: set[str] = set()
    for number in range(options.rounds):
        if contest.beside is not None:
            found.beside[number] = contest.beside.per_s(options.seconds)
        for contender in contest.contenders:
            if contender.name in absent:
                continue
            try:
                found.rans[contender.name][number] = _run(contender, contest, number, options)
            except LeftOut as reason:
                absent.add(contender.name)
                _tell(found, f"{contender.name} is left out: {reason}")
            except (serving.DidNotComeUp, serving.WrongAnswer, wrk.WrkFailed, HTTPException, OSError) as problem:
                _tell(found, f"{contender.name}, round {number + 1}: {type(problem).__name__}: {problem}")
    return found


def _tell(found: Found, problem: str) -> None:
    found.failures.append(problem)
    print(problem, flush=True)


def _run(contender: Contender, contest: Contest, number: int, options: Options) -> Ran:
    name = re.sub(r"[^a-z0-9]+", "-", f"{contest.title} {contender.name} {number + 1}".lower())
    running = serving.start(contender.make, name, options.folder, contender.sent[0], contest.expected[0])
    try:
        serving.check(running, contender.sent, contest.expected)
        server = running.server
        script = wrk.script_for(options.folder, "wrk", contender.sent, contender.heads, server.path, server.port)
        wrk.load(server.port, script, max(contest.connections), _WARM_UP_S)
        loads = {count: measured(running, script, count, options.seconds) for count in contest.connections}
        memory = pss_mb(family(running.process.pid))
        told = serving.told_by(server.port) if contender.tells else {}
    finally:
        stop_s = running.stop()
    return Ran(loads, memory, running.start_s, stop_s, {name: told.get(name, 0.0) for name in contender.tells})


def measured(running: Running, script: Path, connections: int, seconds: float) -> Load:
    pids = family(running.process.pid)
    before, processors = cpu_s(pids), Processors.now()
    counted = wrk.load(running.server.port, script, connections, seconds)
    used_s, after = cpu_s(pids) - before, Processors.now()
    others = after.others_since(processors, used_s + counted.own_cpu_us * counted.requests / 1e6)
    return Load(counted, used_s / max(counted.requests, 1) * 1e6, after.stolen_since(processors), others)
