"""Prometheus pages as telemetry messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.telemetry.scraper import MetricSample, in_messages, messages_of, read_labels, read_sample

NOW = datetime(2026, 11, 22, 5, 30, 1, 250_000, tzinfo=UTC)
PAGE = r"""
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400",}    3 1395066363000
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\"} #"} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
rpc_duration_seconds{quantile="0.01"} NaN
rpc_duration_seconds_count 2693
foo_bucket{le="1.0"} 11 # {trace_id="KOO5S4vxi0o"} 0.67
no value
# EOF
"""


def test_a_page_becomes_a_list_of_samples() -> None:
    found = messages_of(PAGE, NOW)
    assert (found.samples, found.left_out) == (6, 3)
    (body,) = found.bodies
    samples = json.loads(body)
    assert samples[0] == {
        "TimeGeneratedUtc": "2026-11-22T05:30:01.250Z",
        "Name": "http_requests_total",
        "Value": 1027.0,
        "Labels": {"method": "post", "code": "200"},
    }
    assert samples[2]["Labels"] == {"path": "C:\\DIR\\FILE.TXT", "error": 'Cannot find file:\n"FILE.TXT"} #'}
    assert [sample["Value"] for sample in samples] == [1027, 3, 1.458255915e9, 12.47, 2693, 11]


def test_many_samples_become_several_messages_below_the_limit() -> None:
    page = "\n".join(f'metric_{number}{{label="{"x" * 50}"}} {number}' for number in range(2000))
    found = messages_of(page, NOW)
    assert len(found.bodies) > 1
    assert all(len(body) <= 60_000 for body in found.bodies)
    assert [sample["Value"] for body in found.bodies for sample in json.loads(body)] == list(range(2000))


def test_a_sample_larger_than_a_message_is_left_out() -> None:
    samples = [MetricSample(time_generated_utc="t", name=name, value=1, labels={}) for name in ("a", "b" * 500, "c")]
    assert [sample["Name"] for body in in_messages(samples, 150) for sample in json.loads(body)] == ["a", "c"]


def test_a_line_without_end_is_left_out() -> None:
    found = messages_of('a{x="' + "y" * 100_000 + '"} 1\nb 2', NOW)
    assert (found.samples, found.left_out) == (1, 1)


@pytest.mark.parametrize("text", ["a", 'a="b', 'a="b" c="d"', '="b"', "a=b", '1a="b"'])
def test_labels_that_are_none(text: str) -> None:
    assert read_labels(text) is None


@given(st.text(max_size=80))
def test_any_line_is_read_or_left_out(line: str) -> None:
    sample = read_sample(line, "t")
    assert sample is None or list(in_messages([sample]))


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=12), max_size=4))
def test_labels_come_through(labels: dict[str, str]) -> None:
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for name, value in labels.items()}
    assert read_labels(",".join(f'{name}="{value}"' for name, value in escaped.items())) == labels
