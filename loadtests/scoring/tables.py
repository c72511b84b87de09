"""What was found, as a table for docs/benchmarks.md and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loadtests.scoring.rounds import Found, Ran


def table(found: Found) -> str:
    """Medians over the rounds; in brackets the worst round where outliers matter.

    "steal" and "others" are the shares of the processors that other machines and other programs took, to judge outliers by.
    """
    contest = found.contest
    many = contest.connections[0]
    bases = [*contest.bases, *([contest.beside.name] if contest.beside is not None else [])]
    heads = [
        f"req/s c{many}",
        *(f"x {base}" for base in bases),
        "CPU us/req",
        "wrk us/req",
        f"p50 ms c{many}",
        "p99 ms (worst)",
        "p99.9 ms (worst)",
        "> 10 ms",
        *(["p50 ms c1"] if 1 in contest.connections else []),
        "PSS MB",
        "start s",
        "stop s",
        "wrong",
        "steal % (worst)",
        "others % (worst)",
        *(name.removeprefix("hedgerow_").removesuffix("_total").replace("_", " ") for name in contest.contenders[0].tells),
    ]
    lines = [f"\n### {contest.title}\n", "| server | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    lines += ["| " + " | ".join([name, *_cells(found, name, bases)]) + " |" for name in found.rans if found.rans[name]]
    if contest.beside is not None and found.beside:
        lines.append(f"\n{contest.beside.name}: {', '.join(f'{per_s:.0f}' for per_s in found.beside.values())} runs/s")
    return "\n".join(lines)


def _cells(found: Found, name: str, bases: list[str]) -> list[str]:
    contest = found.contest
    many = contest.connections[0]

    def both(figure: Any, form: str) -> str:
        return f"{found.median(name, figure):{form}} ({found.worst(name, figure):{form}})"

    return [
        f"{found.median(name, lambda ran: ran.loads[many].counted.per_s):.0f}",
        *(_ratio(found.ratio(name, base)) for base in bases),
        f"{found.median(name, lambda ran: ran.loads[many].cpu_us):.1f}",
        f"{found.median(name, lambda ran: ran.loads[many].counted.own_cpu_us):.1f}",
        f"{found.median(name, lambda ran: ran.loads[many].counted.p50_ms):.3f}",
        both(lambda ran: ran.loads[many].counted.p99_ms, ".2f"),
        both(lambda ran: ran.loads[many].counted.p999_ms, ".1f"),
        f"{found.median(name, lambda ran: ran.loads[many].counted.slow):.0f}",
        *([f"{found.median(name, lambda ran: ran.loads[1].counted.p50_ms):.3f}"] if 1 in contest.connections else []),
        f"{found.median(name, lambda ran: ran.pss_mb):.0f}",
        f"{found.median(name, lambda ran: ran.start_s):.2f}",
        f"{found.median(name, lambda ran: ran.stop_s):.2f}",
        f"{sum(load.counted.wrong for ran in found.rans[name].values() for load in ran.loads.values())}",
        both(lambda ran: 100 * max(load.steal for load in ran.loads.values()), ".1f"),
        both(lambda ran: 100 * max(load.others for load in ran.loads.values()), ".0f"),
        *(_told(found, name, counter) for counter in contest.contenders[0].tells),
    ]


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _told(found: Found, name: str, counter: str) -> str:
    def value(ran: Ran) -> float:
        return ran.told[counter]

    return f"{found.median(name, value):.0f}"


def as_json(found: Found) -> dict[str, Any]:
    """Every round's figures, and the ratios."""
    contest = found.contest
    bases = [*contest.bases, *([contest.beside.name] if contest.beside is not None else [])]
    return {
        "title": contest.title,
        "connections": list(contest.connections),
        "servers": {
            name: [{"round": number, **asdict(ran)} for number, ran in rans.items()] for name, rans in found.rans.items()
        },
        "beside": {contest.beside.name: list(found.beside.values())} if contest.beside is not None else {},
        "ratios": {base: {name: found.ratio(name, base) for name in found.rans} for base in bases},
        "failures": found.failures,
    }
