"""What a soak was like, minute by minute, and whether it holds the bar: no error, memory flat, p99 at most five times p50."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtests.scoring.latencies import Latencies
from loadtests.scoring.open_loop import Minute
from loadtests.scoring.soak import Look, Soaked

# Memory counts as flat when a line through the looks after the first minute rises by no more than this share of it.
_FLAT = 0.02
_SETTLED_AFTER_S = 60.0
_LEAST_LOOKS = 12
_TAIL = 5.0
# A rate counts as kept when this share of what was due went out.
_KEPT = 0.999


@dataclass(frozen=True)
class Growth:
    """``mb_per_minute``: slope of the line; ``share``: what it adds up to, against the first value of the line."""

    mb_per_minute: float
    share: float

    @classmethod
    def after_first_minute(cls, looks: Sequence[Look]) -> Growth | None:
        """None when less than a minute of looks is left."""
        settled = [look for look in looks if look.at_s >= _SETTLED_AFTER_S]
        if len(settled) < _LEAST_LOOKS:
            return None
        minutes = np.array([look.at_s / 60 for look in settled])
        slope, start = np.polyfit(minutes - minutes[0], [look.rss_mb for look in settled], 1)
        return cls(float(slope), float(slope * (minutes[-1] - minutes[0]) / start))


@dataclass(frozen=True)
class Point:
    """One point of the bar; ``met`` is None where the soak was too short to say."""

    what: str
    found: str
    met: bool | None

    @property
    def line(self) -> str:
        return f"| {self.what} | {self.found} | {({True: 'met', False: 'MISSED', None: 'not measured'})[self.met]} |"


def points(soaked: Soaked) -> list[Point]:
    """The bar, point by point."""
    outcome = soaked.outcome
    whole = Latencies.together(_of(minute) for minute in outcome.minutes)
    p50_ms, p99_ms = whole.percentile_ms(0.5), whole.percentile_ms(0.99)
    growth = Growth.after_first_minute(soaked.looks)
    due = outcome.answered + outcome.unsent
    flat = "too short" if growth is None else f"{growth.mb_per_minute:+.2f} MB/min, {growth.share:+.1%} in all"
    return [
        Point("no error", f"{outcome.errors} of {outcome.answered}", outcome.errors == 0 and outcome.answered > 0),
        Point(f"RSS flat after the first minute (at most {_FLAT:.0%})", flat, None if growth is None else growth.share <= _FLAT),
        Point(f"p99 <= {_TAIL:g} x p50", f"{p99_ms:.2f} / {p50_ms:.2f} ms = {p99_ms / p50_ms:.1f} x", p99_ms <= _TAIL * p50_ms),
        Point("the rate was kept", f"{outcome.unsent} of {due} never sent", outcome.answered >= _KEPT * due),
    ]


def text(soaked: Soaked) -> str:
    """Tables of the minutes, the kinds of requests and the bar."""
    outcome = soaked.outcome
    sending_us = outcome.cpu_s / max(outcome.answered, 1) * 1e6
    lines = [
        "\n### Minute by minute\n",
        f"{soaked.rate:.0f} requests/s were wanted; sending one cost {sending_us:.0f} us here.\n",
        "| minute | req/s | errors | p50 ms | p99 ms | p99.9 ms | worst ms | > 10 ms | sent late, p99 ms | RSS MB | CPU us/req "
        "| loop stood still ms | steal % | others % |",
        "|--:|" + "--:|" * 13,
    ]
    lines += [_minute_line(soaked, number) for number in range(len(outcome.minutes))]
    lines += ["\n### By kind\n", "| what | answers | p50 ms | p99 ms | p99.9 ms |", "|---|--:|--:|--:|--:|"]
    kinds = sorted({kind for minute in outcome.minutes for kind in minute.latencies})
    lines += [_kind_line(kind, outcome.minutes) for kind in kinds]
    lines += ["\n### Bar\n", "| what | found | |", "|---|--:|---|", *(point.line for point in points(soaked))]
    return "\n".join([*lines, *(f"\n{example}" for example in outcome.examples)])


def _minute_line(soaked: Soaked, number: int) -> str:
    minute = soaked.outcome.minutes[number]
    whole, late = _of(minute), Latencies(*minute.late)
    looks = [look for look in soaked.looks if number * 60 <= look.at_s - 1 < number * 60 + 60]
    length_s = min(60.0, soaked.outcome.seconds - number * 60)
    cells = [
        f"{number + 1}",
        f"{whole.count / length_s:.0f}",
        f"{sum(minute.errors.values())}",
        *(f"{whole.percentile_ms(share):.2f}" for share in (0.5, 0.99, 0.999)),
        f"{whole.worst_s * 1000:.1f}",
        f"{whole.above(10)}",
        f"{late.percentile_ms(0.99):.2f}",
        *_look_cells(looks, whole.count),
    ]
    return "| " + " | ".join(cells) + " |"


def _look_cells(looks: list[Look], answered: int) -> list[str]:
    if not looks:
        return [""] * 5
    return [
        f"{looks[-1].rss_mb:.1f}",
        f"{sum(look.cpu_s for look in looks) / max(answered, 1) * 1e6:.0f}",
        f"{max(look.lag_s for look in looks) * 1000:.1f}",
        f"{100 * max(look.steal for look in looks):.1f}",
        f"{100 * sum(look.others for look in looks) / len(looks):.0f}",
    ]


def _kind_line(kind: str, minutes: Sequence[Minute]) -> str:
    whole = Latencies.together(Latencies(*minute.latencies[kind]) for minute in minutes if kind in minute.latencies)
    times = " | ".join(f"{whole.percentile_ms(share):.2f}" for share in (0.5, 0.99, 0.999))
    return f"| {kind} | {whole.count} | {times} |"


def _of(minute: Minute) -> Latencies:
    return Latencies.together(Latencies(*one) for one in minute.latencies.values())


def as_json(soaked: Soaked) -> dict[str, Any]:
    """Rate, minutes, looks and the bar."""
    minutes = []
    for number, minute in enumerate(soaked.outcome.minutes):
        whole = _of(minute)
        shares = {f"p{100 * share:g}_ms": whole.percentile_ms(share) for share in (0.5, 0.99, 0.999)}
        told = {"minute": number + 1, "answers": whole.count, "errors": minute.errors, "worst_ms": whole.worst_s * 1000}
        minutes.append({**told, **shares, "above_10_ms": whole.above(10)})
    return {
        "wish": asdict(soaked.wish),
        "peak_per_s": soaked.peak,
        "rate_per_s": soaked.rate,
        "minutes": minutes,
        "looks": [asdict(look) for look in soaked.looks],
        "bar": [asdict(point) for point in points(soaked)],
        "examples": soaked.outcome.examples,
    }
