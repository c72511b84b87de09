"""Batches in whatever order and shape, on a real database: every message is there exactly once in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from hedgerow.contracts.document import encode
from hedgerow.contracts.telemetry import TelemetryBatch
from registry.hub.ingest import BatchUplink, StreamAnswer, store_batches
from registry.store.database import Database
from registry.store.tables import gaps, messages, quarantine
from tests.hub_parts import Tape
from tests.registry_stores import BACKENDS, ready_database

LENGTH = 40


@dataclass
class Store:
    database: Database

    def take(self, *batches: TelemetryBatch) -> list[StreamAnswer]:
        """One transaction."""
        with self.database.write_series() as connection:
            return store_batches(connection, [BatchUplink(batch, encode(batch)) for batch in batches], 7)

    def take_one(self, batch: TelemetryBatch) -> StreamAnswer:
        (answer,) = self.take(batch)
        return answer

    def sequences(self, device_uuid: str) -> list[int]:
        with self.database.read_series() as connection:
            query = select(messages.c.sequence).where(messages.c.device_uuid == device_uuid).order_by(messages.c.id)
            return list(connection.execute(query).scalars())

    def bodies(self, device_uuid: str) -> list[str]:
        with self.database.read_series() as connection:
            query = select(messages.c.body).where(messages.c.device_uuid == device_uuid).order_by(messages.c.sequence)
            return list(connection.execute(query).scalars())

    def lost(self, device_uuid: str) -> list[tuple[int, int, str]]:
        with self.database.read_series() as connection:
            rows = connection.execute(select(gaps).where(gaps.c.device_uuid == device_uuid).order_by(gaps.c.first_sequence))
            return [(row.first_sequence, row.last_sequence, row.reason) for row in rows]

    def quarantined(self) -> int:
        with self.database.read_series() as connection:
            return int(connection.execute(select(func.count()).select_from(quarantine)).scalar_one())

    def forget_up_to(self, sequence: int) -> None:
        """Retention."""
        with self.database.write_series() as connection:
            connection.execute(delete(messages).where(messages.c.sequence <= sequence))


@contextmanager
def made(folder: Path, url: str | None) -> Iterator[Store]:
    with ready_database(folder, url) as database:
        yield Store(database)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with made(tmp_path / "workspace", url) as ready:
        yield ready


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with made(tmp_path_factory.mktemp("ingest") / "workspace", None) as ready:
        yield ready


@pytest.fixture
def tape() -> Tape:
    recorded = Tape("u")
    recorded.record(*(f'{{"n": {n}}}' for n in range(1, 11)))
    return recorded


def test_many_batches_of_many_streams_in_one_transaction(store: Store, tape: Tape) -> None:
    other = Tape("v", epoch="e9", stream="alarms")
    other.record("{}", "[]")
    answers = store.take(tape.batch(1, 4), other.batch(1, 2), tape.batch(5, 10))
    assert [(answer.key.device_uuid, answer.mark.watermark, answer.refused) for answer in answers] == [
        ("u", 10, None),
        ("v", 2, None),
    ]
    assert answers[0].mark.chain == tape.chains[10]
    assert store.sequences("u") == list(range(1, 11))
    assert store.bodies("v") == ["{}", "[]"]


def test_what_was_stored_is_acknowledged_again(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 10))
    for batch in (tape.batch(1, 10), tape.batch(3, 10), tape.batch(2, 5)):
        answer = store.take_one(batch)
        assert (answer.mark.watermark, answer.refused) == (10, None)
    assert store.sequences("u") == list(range(1, 11))


def test_a_retransmission_within_one_group(store: Store, tape: Tape) -> None:
    (answer,) = store.take(tape.batch(1, 5), tape.batch(2, 4), tape.batch(4, 8), tape.batch(1, 3))
    assert (answer.mark.watermark, answer.refused) == (8, None)
    assert store.sequences("u") == list(range(1, 9))


def test_a_hole_is_refused_with_the_watermark_from_which_to_resend(store: Store, tape: Tape) -> None:
    (answer,) = store.take(tape.batch(1, 2), tape.batch(6, 8), tape.batch(3, 5))
    assert (answer.mark.watermark, answer.refused) == (5, "sequence-hole")
    assert store.sequences("u") == [1, 2, 3, 4, 5]
    assert store.quarantined() == 0


def test_a_gap_is_recorded_with_its_reason(store: Store, tape: Tape) -> None:
    (answer,) = store.take(tape.batch(1, 2), tape.gap(3, 6, reason="expired"), tape.batch(7, 10))
    assert (answer.mark.watermark, answer.refused) == (10, None)
    assert store.sequences("u") == [1, 2, 7, 8, 9, 10]
    assert store.lost("u") == [(3, 6, "expired")]


def test_a_gap_that_was_stored_meanwhile_is_no_loss(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 5))
    assert store.take_one(tape.gap(2, 4)).mark.watermark == 5
    assert store.take_one(tape.gap(4, 8)).mark.watermark == 8
    assert store.lost("u") == [(6, 8, "quota")]


def clone(tape: Tape, shared: int) -> Tape:
    """A copied card: the same first messages, others after them."""
    copy = Tape("u")
    copy.record(*(message.body for message in tape.messages[:shared]))
    copy.record(*(f'{{"clone": {n}}}' for n in range(shared + 1, 11)))
    return copy


@pytest.mark.parametrize(("first", "last"), [(1, 10), (5, 7), (5, 5), (3, 6), (6, 6), (7, 10)])
def test_a_copied_card_is_unmasked_and_stores_nothing(store: Store, tape: Tape, first: int, last: int) -> None:
    store.take(tape.batch(1, 6))
    answer = store.take_one(clone(tape, 4).batch(first, last))
    assert (answer.mark.watermark, answer.refused) == (6, "chain-mismatch")
    assert store.bodies("u") == [message.body for message in tape.messages[:6]]
    assert store.quarantined() == 1
    assert store.take_one(tape.batch(7, 10)).mark.watermark == 10


def test_what_two_copies_have_in_common_is_no_contradiction(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 6))
    assert store.take_one(clone(tape, 4).batch(1, 4)).refused is None


def test_after_a_contradiction_the_rest_of_the_group_is_not_looked_at(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 6))
    copy = clone(tape, 4)
    (answer,) = store.take(copy.batch(5, 7), copy.batch(8, 8), copy.batch(9, 10))
    assert answer.refused == "chain-mismatch"
    assert store.quarantined() == 1


def test_messages_for_a_reported_gap_are_not_swallowed(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 2), tape.gap(3, 6), tape.batch(7, 10))
    answer = store.take_one(clone(tape, 2).batch(3, 5))
    assert answer.refused == "chain-mismatch"


def test_watermarks_outlive_retention(store: Store, tape: Tape) -> None:
    store.take(tape.batch(1, 8))
    store.forget_up_to(6)
    assert store.take_one(tape.batch(2, 5)).refused is None
    assert store.take_one(tape.batch(5, 10)).mark.watermark == 10
    assert store.sequences("u") == [7, 8, 9, 10]
    assert store.take_one(clone(tape, 4).batch(5, 7)).refused == "chain-mismatch"


def test_a_batch_that_fails_takes_its_whole_transaction_back(store: Store, tape: Tape) -> None:
    def fail_late() -> None:
        with store.database.write_series() as connection:
            store_batches(connection, [BatchUplink(tape.batch(1, 5), b"")], 7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert store.sequences("u") == []
    assert store.take_one(tape.batch(1, 5)).mark.watermark == 5


BATCHES = st.lists(st.tuples(st.integers(1, LENGTH), st.integers(1, 12)), min_size=1, max_size=30)
GROUPS = st.lists(st.integers(1, 5), min_size=1, max_size=8)
_numbers = iter(range(1, 1_000_000))


@given(pieces=BATCHES, sizes=GROUPS, loss=st.none() | st.tuples(st.integers(2, LENGTH - 1), st.integers(1, 6)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_splits_repeats_and_orders_end_with_every_message_once(
    shared_store: Store, pieces: list[tuple[int, int]], sizes: list[int], loss: tuple[int, int] | None
) -> None:
    tape = Tape(f"device-{next(_numbers)}")
    tape.record(*(f'{{"n": {n}}}' for n in range(1, LENGTH + 1)))
    lost = range(0) if loss is None else range(loss[0], min(loss[0] + loss[1], LENGTH))
    batches = [batch for first, size in pieces for batch in cut(tape, first, min(first + size - 1, LENGTH), lost)]
    watermark = 0
    sizes = list(sizes)
    while batches:
        size = sizes.pop(0) if sizes else 3
        group, batches = batches[:size], batches[size:]
        (answer,) = shared_store.take(*group)
        assert answer.refused in (None, "sequence-hole")
        assert answer.mark.watermark >= watermark
        watermark = answer.mark.watermark
    # The device sends on from where the hub says it stands, as it always does.
    while watermark < LENGTH:
        (answer,) = shared_store.take(cut(tape, watermark + 1, LENGTH, lost)[0])
        assert answer.refused is None
        assert answer.mark.watermark > watermark
        watermark = answer.mark.watermark
    assert shared_store.sequences(tape.device_uuid) == [n for n in range(1, LENGTH + 1) if n not in lost]
    assert shared_store.bodies(tape.device_uuid) == [f'{{"n": {n}}}' for n in range(1, LENGTH + 1) if n not in lost]
    reported = [(lost.start, lost.stop - 1, "quota")] if lost else []
    assert merged(shared_store.lost(tape.device_uuid)) == reported


def cut(tape: Tape, first: int, last: int, lost: range) -> list[TelemetryBatch]:
    """Batches for ``first`` to ``last``, with the lost ones as a gap."""
    found: list[TelemetryBatch] = []
    while first <= last:
        if first in lost:
            end = min(last, lost.stop - 1)
            found.append(tape.gap(first, end))
        else:
            end = min(last, lost.start - 1) if first < lost.start else last
            found.append(tape.batch(first, end))
        first = end + 1
    return found


def merged(parts: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """One gap may have been reported in parts; parts never overlap."""
    whole: list[tuple[int, int, str]] = []
    for first, last, reason in parts:
        if whole and whole[-1][1] >= first - 1:
            assert whole[-1][1] == first - 1, "gaps overlap"
            first = whole.pop()[0]
        whole.append((first, last, reason))
    return whole
