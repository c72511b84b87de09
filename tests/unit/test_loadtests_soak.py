"""The pure parts of the soak: latencies in little memory, answers taken apart, the mix, and the verdict."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from loadtests.scoring import mix, soak_report
from loadtests.scoring.latencies import Latencies
from loadtests.scoring.open_loop import Asked, Minute, Outcome, answer_in
from loadtests.scoring.soak import Look, Soaked, Wish
from loadtests.scoring.soak_report import Growth


def latencies_of(*seconds: float) -> Latencies:
    latencies = Latencies()
    for one in seconds:
        latencies.add(one)
    return latencies


def test_percentiles_are_within_a_per_cent() -> None:
    latencies = latencies_of(*(number / 1000 for number in range(1, 1001)))
    for share in (0.01, 0.5, 0.99, 0.999, 1.0):
        assert latencies.percentile_ms(share) == pytest.approx(1000 * share, rel=0.011)
    assert latencies.above(900) == pytest.approx(100, abs=10)
    assert latencies.worst_s == 1.0
    assert math.isnan(Latencies().percentile_ms(0.5))


def test_latencies_of_several_minutes_are_put_together() -> None:
    whole = Latencies.together([latencies_of(0.001, 0.002), latencies_of(0.5)])
    assert whole.count == 3
    assert whole.worst_s == 0.5
    assert whole.percentile_ms(1.0) == pytest.approx(500, rel=0.011)


def test_an_answer_is_taken_apart_once_it_is_whole() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx: y\r\n\r\nbody"
    assert [answer_in(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
    assert answer_in(whole) == (200, b"body")
    assert answer_in(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n") == (503, b"")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"nonsense\r\n\r\n"])
def test_an_answer_without_a_length_is_an_error(head: bytes) -> None:
    with pytest.raises(ValueError, match="no answer with a length"):
        answer_in(head)


def test_small_requests_come_most_and_pages_now_and_then() -> None:
    sizes = [Asked(f"{encoding.name}, rows {size}", b"", b"") for encoding in mix.ENCODINGS for size in mix.SIZES]
    asked = [*(one for one in sizes for _ in range(16)), *mix.pages(1)]
    counts = Counter(asked[place].kind for place in mix.order(asked, random.Random(1)))
    for encoding in mix.ENCODINGS:
        assert [counts[f"{encoding.name}, rows {size}"] for size in mix.SIZES] == [256, 128, 64, 32, 16]
    assert counts["/v2/health/ready"] + counts["/metrics"] == (3 * 496) // 500
    assert set(mix.order(asked, random.Random(1))[:10]) != set(range(10)), "in the order of their making"


def looks(*megabytes: float) -> list[Look]:
    return [Look(5.0 * number, rss_mb, 1.0, 0.0, 0.0, 0.001) for number, rss_mb in enumerate(megabytes, 1)]


def test_growth_is_the_slope_after_the_first_minute() -> None:
    steep_then_flat = looks(*(60.0 + number for number in range(11)), *([80.0] * 30))
    growth = Growth.after_first_minute(steep_then_flat)
    assert growth is not None
    assert growth.share == pytest.approx(0.0, abs=1e-9)
    rising = Growth.after_first_minute(looks(*(80.0 + number / 12 for number in range(60))))
    assert rising is not None
    assert rising.mb_per_minute == pytest.approx(1.0)
    assert Growth.after_first_minute(looks(*([80.0] * 20))) is None


def soaked(latencies: Latencies, *, errors: int = 0, unsent: int = 0, memory: list[Look] | None = None) -> Soaked:
    minute = Minute(
        {"/score JSON, rows 1": (dict(latencies.counts), latencies.worst_s)}, errors={"status 503": errors} if errors else {}
    )
    outcome = Outcome(60.0, 1.0, [minute], ["an example"] if errors else [], unsent)
    return Soaked(Wish(1.0), 100.0, 80.0, outcome, looks(*([80.0] * 40)) if memory is None else memory)


STEADY = latencies_of(*([0.001] * 1000))


@pytest.mark.parametrize(
    ("what", "which"),
    [
        (soaked(STEADY), []),
        (soaked(STEADY, errors=1), [0]),
        (soaked(STEADY, memory=looks(*(80.0 + number for number in range(40)))), [1]),
        (soaked(latencies_of(*([0.001] * 980), *([0.006] * 20))), [2]),
        (soaked(STEADY, unsent=10), [3]),
        (soaked(Latencies()), [0, 2]),
    ],
)
def test_the_bar_is_missed_where_it_is_missed(what: Soaked, which: list[int]) -> None:
    points = soak_report.points(what)
    assert [number for number, point in enumerate(points) if point.met is False] == which
    assert all(point.line in soak_report.text(what) for point in points)


def test_a_short_soak_says_nothing_about_memory() -> None:
    points = soak_report.points(soaked(STEADY, memory=looks(80.0, 99.0)))
    assert [point.met for point in points] == [True, None, True, True]


def test_the_report_has_a_row_for_each_minute_and_kind() -> None:
    lines = soak_report.text(soaked(STEADY, errors=2)).splitlines()
    head, _, row = lines[lines.index("### Minute by minute") + 4 :][:3]
    assert head.count("|") == row.count("|")
    assert any(line.startswith("| /score JSON, rows 1 | 1000 |") for line in lines)
    assert lines[-1] == "an example"


def test_the_figures_of_a_soak_name_every_look_and_minute() -> None:
    figures = soak_report.as_json(soaked(STEADY))
    assert figures["minutes"][0]["answers"] == 1000
    assert figures["minutes"][0]["p99_ms"] == pytest.approx(1.0, rel=0.011)
    assert len(figures["looks"]) == 40
