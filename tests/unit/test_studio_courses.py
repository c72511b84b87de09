"""Telemetry drawn as courses: what becomes a line, where lines are broken, what is left out."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from registry.server.studio.courses import HEIGHT, MOST_COURSES, WIDTH, Course, courses_of


def drawn(*values: tuple[int, object], module: str = "m") -> list[Course]:
    return courses_of((module, time_ms, json.dumps(value)) for time_ms, value in values)


def test_each_number_of_a_message_is_a_course() -> None:
    found = drawn((0, {"t": {"mean": 20}, "ok": True, "name": "x"}), (1000, {"t": {"mean": 30}, "ok": False}))
    assert [(course.name, course.low, course.high, course.last, course.count) for course in found] == [
        ("t.mean", 20, 30, 30, 2),
        ("ok", 0, 1, 0, 2),
    ]
    assert found[0].lines == (f"0.0,{HEIGHT - 2:.1f} {WIDTH:.1f},2.0",)


def test_time_decides_the_place_not_the_order_of_arrival() -> None:
    late, early = drawn((3000, 3), (0, 0), (1500, 1.5))[0], drawn((0, 0), (1500, 1.5), (3000, 3))[0]
    assert late == early


def test_silence_breaks_the_line() -> None:
    times = [0, 1000, 2000, 3000, 60_000, 61_000, 62_000]
    assert len(drawn(*((time_ms, 1) for time_ms in times))[0].lines) == 2


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert drawn((0, 1)) == []
    assert drawn((0, 1e308), (1, -1e308)) == []
    assert courses_of([("m", 0, "no json"), ("m", 1, "[" * 100_000)]) == []
    assert courses_of([("m", time_ms, json.dumps({"n": 1, "long": "x" * 70_000})) for time_ms in range(3)]) == []


def test_a_message_of_many_numbers_does_not_fill_the_page() -> None:
    assert len(drawn((0, list(range(40))), (1, list(range(40))))) == MOST_COURSES


@given(st.lists(st.tuples(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False)), max_size=30))
def test_every_point_lies_in_the_box(values: list[tuple[int, float]]) -> None:
    for course in drawn(*values):
        places = [place.split(",") for line in course.lines for place in line.split()]
        assert all(-0.1 <= float(x) <= WIDTH + 1 and 0 <= float(y) <= HEIGHT for x, y in places)
