"""What the scoring server is held to, each bar beside what ``bench_scoring`` found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.scoring.rounds import Found, Ran


@dataclass(frozen=True)
class Bar:
    """``figure`` returns None where a server was missing. ``at_least``: more is better, else less is."""

    contest: str
    what: str
    limit: float
    at_least: bool
    figure: Callable[[Found], float | None]


@dataclass(frozen=True)
class Verdict:
    bar: Bar
    value: float | None

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.bar.limit if self.bar.at_least else self.value <= self.bar.limit

    @property
    def line(self) -> str:
        sign = ">=" if self.bar.at_least else "<="
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        value = "" if self.value is None else f"{self.value:.3g}"
        return f"| {self.bar.what} | {value} | {sign} {self.bar.limit:g} | {word} |"


def _ratio(name: str, base: str) -> Callable[[Found], float | None]:
    return lambda found: found.ratio(name, base)


def _median(name: str, figure: Callable[[Ran], float]) -> Callable[[Found], float | None]:
    return lambda found: found.median(name, figure) if found.rans.get(name) else None


def _bars() -> list[Bar]:
    tiny, oip, script = "Tiny model, JSON /score", "Tiny model, Open Inference Protocol", "The same score.py"
    net_json, net = "Convolutional net, JSON /score", "Convolutional net, binary tensors"
    return [
        Bar(tiny, "tiny JSON, x azmlinfsrv w1", 20, True, _ratio("hedgerow", "azmlinfsrv w1")),
        Bar(tiny, "tiny JSON, CPU us a request", 25, False, _median("hedgerow", lambda ran: ran.loads[32].cpu_us)),
        Bar(tiny, "tiny JSON, one connection, p50 ms", 0.12, False, _median("hedgerow", lambda ran: ran.loads[1].counted.p50_ms)),
        Bar(tiny, "tiny JSON, p99 ms", 2, False, _median("hedgerow", lambda ran: ran.loads[32].counted.p99_ms)),
        Bar(tiny, "tiny, PSS MB", 85, False, _median("hedgerow", lambda ran: ran.pss_mb)),
        Bar(tiny, "start s", 0.4, False, _median("hedgerow", lambda ran: ran.start_s)),
        Bar(tiny, "stop s", 0.5, False, _median("hedgerow", lambda ran: ran.stop_s)),
        Bar(oip, "/v2 JSON, x MLServer", 12, True, _ratio("hedgerow v2 json", "mlserver")),
        Bar(oip, "/v2 binary, x MLServer", 12, True, _ratio("hedgerow v2 binary", "mlserver")),
        Bar(oip, "/v2 JSON, x PyTriton JSON", 8, True, _ratio("hedgerow v2 json", "pytriton json")),
        Bar(oip, "/v2 binary, x PyTriton binary", 8, True, _ratio("hedgerow v2 binary", "pytriton binary")),
        Bar(script, "score.py, x azmlinfsrv w1", 5, True, _ratio("hedgerow script w1", "azmlinfsrv w1")),
        Bar(net_json, "net JSON, x azmlinfsrv w2", 1.6, True, _ratio("hedgerow", "azmlinfsrv w2")),
        Bar(net, "net binary, x bare session.run", 0.88, True, _ratio("hedgerow v2 binary", "bare session.run")),
        Bar(net, "net, PSS MB", 130, False, _median("hedgerow v2 binary", lambda ran: ran.pss_mb)),
    ]


def judged(all_found: Sequence[Found]) -> list[Verdict]:
    """The bars of the contests that were held."""
    by_title = {found.contest.title: found for found in all_found}
    return [Verdict(bar, bar.figure(by_title[bar.contest])) for bar in _bars() if bar.contest in by_title]


def table(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(["\n### Bars\n", "| what | measured | bar | |", "|---|--:|--:|---|", *(one.line for one in verdicts)])
