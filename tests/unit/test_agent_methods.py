"""Which method calls a device carries out, how often, and how its answers travel: no sockets, no hub."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.methods.answer import Answer
from edge_agent.methods.desk import Desk, Method
from edge_agent.methods.errors import AnswerUnwanted, ForeignCall, RepeatedCall, StaleCall
from edge_agent.methods.gate import Gate
from edge_agent.methods.workers import Workers
from edge_agent.observing.metrics import Metrics
from hedgerow.contracts.document import encode
from hedgerow.contracts.methods import MAX_PAYLOAD_BYTES, PART_BYTES, WINDOW_PARTS, MethodAnswer, MethodCall
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE, PAYLOAD_METHOD_CALL
from hedgerow.contracts.signed import SignatureRefused, sign
from hedgerow.errors import HedgerowError, InvalidDocument
from tests.agent_builders import DEVICE_UUID, NOW, Workspace
from tests.waiting import wait_for

WORKSPACE = Workspace()
SESSION, INCARNATION = "s1", "inc-1"


class StillClock:
    """Time that stands where it is put."""

    def __init__(self, now: datetime = NOW) -> None:
        self.moment = now
        self.ticks = 0.0

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        """Ten seconds pass between any two looks."""
        self.ticks += 10.0
        return self.ticks


def call(**changes: object) -> MethodCall:
    made = MethodCall(
        device_uuid=DEVICE_UUID,
        incarnation=INCARNATION,
        session=SESSION,
        id="c1",
        name="count",
        expires_at=NOW + timedelta(seconds=30),
    )
    return msgspec.structs.replace(made, **changes)


def signed(made: MethodCall, *, kind: str = PAYLOAD_METHOD_CALL, key: Ed25519PrivateKey | None = None) -> bytes:
    return sign(kind, encode(made), {"k1": (key or WORKSPACE.key).sign})


class Place:
    """A desk whose method ``count`` counts, and everything that it published."""

    def __init__(self, *, clock: StillClock | None = None, local: object = None) -> None:
        self.runs = 0
        self.published: list[MethodAnswer] = []
        self.metrics = Metrics()
        self.blocked = threading.Event()
        self.blocked.set()
        methods = {"count": Method(self._count), "long": Method(self._long, slow=True), "wrong": Method(self._wrong)}
        self.desk = Desk(
            Gate(WORKSPACE.config),
            methods,
            self._publish,
            clock or StillClock(),
            self.metrics,
            local,  # type: ignore[arg-type]  # a stand-in of one method
        )

    def take(self, envelope: bytes, session: str | None = SESSION, incarnation: str | None = INCARNATION) -> None:
        self.desk.take(envelope, session, incarnation)

    def answer(self, call_id: str = "c1") -> MethodAnswer:
        """The last part of the answer to a call."""

        def look() -> MethodAnswer | None:
            return next((part for part in self.published if part.id == call_id and part.last), None)

        found = wait_for(look, what=f"the answer to {call_id}")
        assert found is not None
        return found

    def _publish(self, part: MethodAnswer) -> bool:
        self.published.append(part)
        return True

    def _count(self, payload: object, answer: Answer) -> int:
        self.runs += 1
        answer.write(msgspec.json.encode(payload).decode())
        return 200

    def _long(self, _payload: object, answer: Answer) -> int:
        assert self.blocked.wait(30)
        for _ in range(3 * WINDOW_PARTS):
            answer.write("x" * PART_BYTES)
        return 200

    def _wrong(self, _payload: object, _answer: Answer) -> int:
        raise ZeroDivisionError


def test_a_signed_call_is_carried_out_and_answered() -> None:
    place = Place()
    place.take(signed(call(payload='{"a": 1}')))
    found = place.answer()
    assert (found.status, found.payload, found.part, found.session) == (200, '{"a":1}', 0, SESSION)


@pytest.mark.parametrize(
    ("envelope", "problem"),
    [
        (b"", InvalidDocument),
        (b'{"payload": "", "payloadType": "x", "signatures": []}', SignatureRefused),
        (encode(call()), InvalidDocument),
        (signed(call(), key=Ed25519PrivateKey.generate()), SignatureRefused),
        (signed(call(), kind=PAYLOAD_DESIRED_STATE), SignatureRefused),
        (signed(call(device_uuid="another")), ForeignCall),
        (signed(call(session="s0")), StaleCall),
        (signed(call(incarnation="inc-0")), StaleCall),
        (signed(call(payload='"' + "x" * MAX_PAYLOAD_BYTES + '"')), InvalidDocument),
    ],
    ids=["empty", "unsigned", "bare", "wrong key", "other kind", "other device", "older session", "older life", "too long"],
)
def test_what_is_not_for_this_device_and_session_is_refused(envelope: bytes, problem: type[HedgerowError]) -> None:
    place = Place()
    with pytest.raises(problem):
        place.take(envelope)
    assert place.runs == 0
    assert place.published == []


def test_without_a_session_nothing_is_carried_out() -> None:
    place = Place()
    with pytest.raises(StaleCall):
        place.take(signed(call()), None, None)
    assert place.runs == 0


def test_an_expired_call_is_answered_but_not_carried_out() -> None:
    """Its caller learns what the device's clock says, which may be the very problem."""
    place = Place(clock=StillClock(NOW + timedelta(days=400)))
    place.take(signed(call()))
    found = place.answer()
    assert (found.status, place.runs) == (408, 0)
    assert "2027" in found.payload
    refused = [sample for sample in place.metrics.samples() if sample.labels.get("key") == "expired_call"]
    assert [sample.value for sample in refused] == [1.0]


def test_the_same_call_again_is_not_carried_out_again() -> None:
    place = Place()
    envelope = signed(call())
    place.take(envelope)
    place.answer()
    for _ in range(3):
        with pytest.raises(RepeatedCall):
            place.take(envelope)
    assert place.runs == 1
    # What is not acknowledged is sent again: the hub may have missed it.
    assert {part.payload for part in place.published} == {"null"}


def test_a_new_session_forgets_the_old_one() -> None:
    place = Place()
    place.take(signed(call()))
    place.answer()
    place.take(signed(call(session="s2", id="c2")), "s2")
    place.answer("c2")
    with pytest.raises(StaleCall):
        place.take(signed(call()), "s2")
    assert place.runs == 2


def test_a_method_that_fails_says_so() -> None:
    place = Place()
    place.take(signed(call(name="wrong")))
    assert place.answer().status == 500
    place.take(signed(call(name="none", id="c2")))
    assert place.answer("c2").status == 404
    place.take(signed(call(payload="{", id="c3")))
    assert place.answer("c3").status == 400


def test_slow_methods_never_keep_quick_ones_waiting() -> None:
    place = Place()
    place.blocked.clear()
    for number in range(12):
        place.take(signed(call(name="long", id=f"long-{number}")))
    # Three at work and five waiting: the others were refused at once.
    refused = [part for part in place.published if part.status == 503]
    assert len(refused) == 4
    place.take(signed(call(id="quick")))
    assert place.answer("quick").status == 200
    place.desk.close()
    place.blocked.set()


def test_a_long_answer_waits_for_the_hub() -> None:
    place = Place()
    envelope = call(name="long")
    place.take(signed(envelope))
    wait_for(lambda: len(place.published) == WINDOW_PARTS, what="a window of parts")
    assert [part.part for part in place.published] == list(range(WINDOW_PARTS))
    # Nothing new: what the hub lacks comes again.
    with pytest.raises(RepeatedCall):
        place.take(signed(msgspec.structs.replace(envelope, acknowledged_parts=0)))
    assert [part.part for part in place.published[WINDOW_PARTS:]] == list(range(WINDOW_PARTS))
    place.published.clear()
    for acknowledged in range(WINDOW_PARTS, 4 * WINDOW_PARTS, WINDOW_PARTS):
        place.take(signed(msgspec.structs.replace(envelope, acknowledged_parts=acknowledged)))
        expected = min(acknowledged + WINDOW_PARTS, 3 * WINDOW_PARTS)
        wait_for(lambda expected=expected: place.published[-1:] and place.published[-1].part == expected - 1, what="more parts")  # type: ignore[misc]  # a default binds the value
    assert place.answer().part == 3 * WINDOW_PARTS - 1
    assert all(len(part.payload) <= PART_BYTES for part in place.published)


def test_an_answer_that_nobody_wants_ends() -> None:
    place = Place()
    made = call(name="long")
    place.take(signed(made))
    wait_for(lambda: len(place.published) == WINDOW_PARTS, what="a window of parts")
    place.take(signed(msgspec.structs.replace(made, cancelled=True)))
    wait_for(lambda: not _at_work("slow-method"), what="the worker to be free")
    assert len(place.published) == WINDOW_PARTS


def _at_work(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


class OneModule:
    """A local hub with one module."""

    def call(self, module: str, name: str, payload: str, timeout_s: float) -> tuple[int, str]:
        return (200, f'["{module}","{name}",{payload},{timeout_s:g}]') if module == "pump" else (404, '"no such module"')


def test_methods_of_modules_go_through_the_local_hub() -> None:
    place = Place(local=OneModule())
    place.take(signed(call(module="pump", name="prime", payload="7", timeout_s=5)))
    assert (place.answer().status, place.answer().payload) == (200, '["pump","prime",7,5]')
    place.take(signed(call(module="fan", name="prime", id="c2")))
    assert place.answer("c2").status == 404


def test_without_a_local_hub_modules_have_no_methods() -> None:
    place = Place()
    place.take(signed(call(module="pump", name="prime")))
    assert place.answer().status == 404


@given(st.lists(st.text(max_size=40_000), max_size=12))
def test_parts_joined_are_what_was_written(pieces: list[str]) -> None:
    parts: list[MethodAnswer] = []
    answer = Answer(call(), _kept(parts), StillClock().monotonic_s)
    for piece in pieces:
        answer.write(piece)
        answer.acknowledged(len(parts))
    answer.finish(200)
    assert "".join(part.payload for part in parts) == "".join(pieces)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part.payload.encode()) <= PART_BYTES for part in parts)


def _kept(parts: list[MethodAnswer]) -> Callable[[MethodAnswer], bool]:
    def publish(part: MethodAnswer) -> bool:
        parts.append(part)
        return True

    return publish


def test_a_hub_that_takes_no_more_is_not_waited_for_for_ever() -> None:
    answer = Answer(call(), lambda _: True, StillClock().monotonic_s, stall_s=0.05)
    answer.write("x" * WINDOW_PARTS * PART_BYTES)
    with pytest.raises(AnswerUnwanted):
        answer.write("x" * 2 * PART_BYTES)


def test_threads_end_when_there_is_nothing_to_do() -> None:
    workers = Workers("brief", threads=2, waiting=3)
    done: list[int] = []
    begin = threading.Event()

    def job(number: int) -> Callable[[], None]:
        def run() -> None:
            assert begin.wait(30)
            done.append(number)
            if number == 1:
                raise ZeroDivisionError

        return run

    taken = [workers.submit(job(number)) for number in range(7)]
    assert taken == [True] * 5 + [False] * 2
    begin.set()
    wait_for(lambda: sorted(done) == [0, 1, 2, 3, 4], what="all five jobs")
    wait_for(lambda: not _at_work("brief"), what="the threads to end")
    assert workers.submit(lambda: done.append(9))
    wait_for(lambda: 9 in done, what="another job")


def test_the_time_is_that_of_the_clock() -> None:
    """A clock that was never set (1970) carries calls out: the session makes them fresh."""
    place = Place(clock=StillClock(datetime(1970, 1, 2, tzinfo=UTC)))
    place.take(signed(call()))
    assert place.answer().status == 200
