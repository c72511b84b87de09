"""The hash chain of telemetry: the same for every way of cutting it into batches, different for every other content."""

from __future__ import annotations

import string
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.document import convert
from hedgerow.contracts.telemetry import CHAIN_START, TelemetryMessage, Watermark, chain_over, extend_chain
from hedgerow.errors import InvalidDocument

# Not from NAME_PATTERN: Hypothesis takes a hundred times as long for a name of up to 128 characters as for the rest of a test.
WORDS = st.lists(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6), min_size=1, max_size=3)
MODULES = st.builds(str.join, st.sampled_from([".", "_", "__", "-", "---"]), WORDS)
BODIES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MESSAGES = st.lists(st.tuples(st.integers(-(2**40), 2**50), MODULES, BODIES), min_size=1, max_size=12).map(
    lambda rows: [
        TelemetryMessage(sequence=n, time_ms=time, module=module, body=body) for n, (time, module, body) in enumerate(rows, 1)
    ]
)
ONE = TelemetryMessage(sequence=1, time_ms=1_700_000_000_000, module="anomaly", body='{"score":0.25}')


def test_the_chain_is_fixed() -> None:
    """Hubs remember chain values for ever: this may never change."""
    first = extend_chain(CHAIN_START, ONE)
    assert first == "b25efcb3b8aa7a3948407e222f87decc34f689894c8580d6037bc81a4d10b736"
    assert chain_over(CHAIN_START, []) == CHAIN_START
    assert len(first) == 64


@given(MESSAGES, st.lists(st.integers(0, 12), max_size=6))
def test_batches_may_be_cut_anywhere(messages: list[TelemetryMessage], cuts: list[int]) -> None:
    whole = chain_over(CHAIN_START, messages)
    edges = [0, *sorted(min(cut, len(messages)) for cut in cuts), len(messages)]
    chain = CHAIN_START
    for first, last in pairwise(edges):
        chain = chain_over(chain, messages[first:last])
    assert chain == whole


@given(MESSAGES, st.data())
def test_any_other_content_gives_another_chain(messages: list[TelemetryMessage], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(messages) - 1))
    old = messages[position]
    changes: dict[str, st.SearchStrategy[object]] = {
        "sequence": st.integers(1, 100).map(lambda step: old.sequence + step),
        "time_ms": st.integers(0, 40).map(lambda bit: old.time_ms ^ (1 << bit)),
        "module": MODULES.filter(lambda name: name != old.module),
        "body": BODIES.filter(lambda body: body != old.body),
    }
    field = data.draw(st.sampled_from(sorted(changes)))
    new = data.draw(changes[field])
    changed = [*messages[:position], msgspec.structs.replace(old, **{field: new}), *messages[position + 1 :]]
    assert chain_over(CHAIN_START, changed) != chain_over(CHAIN_START, messages)


@given(MESSAGES)
def test_left_out_doubled_or_swapped_messages_show(messages: list[TelemetryMessage]) -> None:
    whole = chain_over(CHAIN_START, messages)
    assert chain_over(CHAIN_START, messages[:-1]) != whole
    assert chain_over(CHAIN_START, [*messages, messages[-1]]) != whole
    if len(messages) > 1:
        assert chain_over(CHAIN_START, messages[::-1]) != whole


def test_fields_cannot_run_into_each_other() -> None:
    """``|`` separates; no field before the body can hold it."""
    one = msgspec.structs.replace(ONE, module="a", body="b|c")
    other = msgspec.structs.replace(ONE, module="a-b", body="c")
    assert extend_chain(CHAIN_START, one) != extend_chain(CHAIN_START, other)


def test_being_sent_again_later_does_not_change_a_message() -> None:
    assert extend_chain(CHAIN_START, ONE) == extend_chain(CHAIN_START, msgspec.structs.replace(ONE, historical=True))


@pytest.mark.parametrize("chain", ["", "0" * 63, "g" * 64, "0" * 65, "0" * 64 + "\n", "A" * 64])
def test_a_chain_value_is_64_hex_digits(chain: str) -> None:
    with pytest.raises(InvalidDocument, match="chain"):
        convert({"epoch": "e", "stream": "s", "watermark": 0, "chain": chain}, Watermark)
