"""Direct methods at the hub: calls that the server noted are signed and sent, answers are kept part by part.

What is to be done for one call is decided by ``next_step`` (pure); everything is in the table, so another hub process goes on
where this one ended. A call is repeated until its answer moves; the device carries out an id once, and takes a repetition as
news of how much of the answer is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from hedgerow.contracts.document import encode
from hedgerow.contracts.methods import WINDOW_PARTS, MethodAnswer, MethodCall
from hedgerow.contracts.names import PAYLOAD_METHOD_CALL
from hedgerow.contracts.signed import Signer, sign
from registry.hub.link import Downlink
from registry.hub.signing import GetSigning, always
from registry.store import device_methods, facts
from registry.store.database import Database
from registry.store.device_methods import KEPT_S, Call
from registry.wakeups import Wakeups

# A call or a part that was lost is made good for after this time, then twice as long, …
RESEND_S, RESEND_MOST_S = 2.0, 30.0
# While parts come: brokers lose some.
RESEND_PART_S = 1.0
# Beyond the method's own time: for the way there and back, and for a device that is busy with others.
GRACE_S = 10.0
# So long a reader of a stream may stand still before nobody seems to read it.
READER_PATIENCE_S = 300.0
# The problem of a call whose device did not come in time; the server has words for it.
OFFLINE = "offline"
# Wake-ups can be lost, and none comes from a server on another machine.
LOOK_EVERY_S = 5.0
_FORGET_EVERY_S, _FORGET_AT_ONCE = 300.0, 200


@dataclass(frozen=True)
class Send:
    """Publish the call (again), to this session; ``cancelled`` tells the device that the rest is not wanted."""

    session: str
    cancelled: bool = False


@dataclass(frozen=True)
class Fail:
    """The call ends without an answer. ``tell_session``: a device that may be at it is told to stop."""

    problem: str
    tell_session: str = ""


@dataclass(frozen=True)
class WaitUntil:
    """Nothing is due before then."""

    at: datetime


Step = Send | Fail | WaitUntil


def next_step(call: Call, now: datetime) -> Step:
    """What to do about a call that has not ended. Pure."""
    if call.state == "waiting":
        if call.live_session is not None:
            return Send(call.live_session)
        return Fail(OFFLINE) if now >= call.connect_by else WaitUntil(call.connect_by)
    if call.state == "cancelled":
        return Fail(call.problem, call.session if call.session == call.live_session else "")
    if call.live_session is not None and call.live_session != call.session:
        return Fail("its agent was started again meanwhile")
    if not call.room:
        deadline = call.moved_at + timedelta(seconds=READER_PATIENCE_S)
        return Fail("nobody reads the answer", call.session) if now >= deadline else WaitUntil(deadline)
    deadline = call.moved_at + timedelta(seconds=call.timeout_s + GRACE_S)
    if now >= deadline:
        return Fail(f"nothing came for {call.timeout_s + GRACE_S:g} s", call.session)
    if call.parts - call.told_parts >= WINDOW_PARTS // 2:
        return Send(call.session)
    again_at = _again_at(call)
    return Send(call.session) if now >= again_at else WaitUntil(min(again_at, deadline))


def _again_at(call: Call) -> datetime:
    first_s = RESEND_PART_S if call.state == "answering" else RESEND_S
    delay_s = min(RESEND_MOST_S, first_s * 2 ** max(0, min(call.sends, 10) - 1))
    return max(call.sent_at or call.asked_at, call.moved_at) + timedelta(seconds=delay_s)


class Methods:
    """Used by the hub's loop only. ``wake_in_s`` is how long that may sleep as far as calls are concerned."""

    def __init__(self, database: Database, signers: Mapping[str, Signer] | GetSigning, wakeups: Wakeups) -> None:
        self._database, self._wakeups = database, wakeups
        self._signing = signers if callable(signers) else always(signers)
        # Calls may have been noted before this process began.
        self._due_s = 0.0
        self._forget_at_s = 0.0

    def wake_in_s(self, now_s: float) -> float:
        """Seconds until :meth:`tend` is due; ``now_s`` is monotonic."""
        return max(0.0, self._due_s - now_s)

    def hurry(self) -> None:
        """:meth:`tend` is due now: a call was noted, or a device came."""
        self._due_s = 0.0

    def postpone(self, now_s: float) -> None:
        """It did not work: :meth:`tend` is due again in a moment."""
        self._due_s = now_s + RESEND_S

    def take(self, answers: Sequence[MethodAnswer], now: datetime) -> None:
        """Keep answers, unsealed and of their devices' sessions. Raises DatabaseUnavailable; they may be handed in again."""
        if not answers:
            return
        with self._database.write() as connection:
            moved = device_methods.take_answers(connection, answers, now)
        if moved:
            self._due_s = 0.0
            self._wakeups.wake("server")

    def tend(self, now: datetime, now_s: float) -> list[Downlink]:
        """What has to be published for calls now. Raises DatabaseUnavailable."""
        if now_s >= self._forget_at_s:
            self._forget(now)
            self._forget_at_s = now_s + _FORGET_EVERY_S
        with self._database.read() as connection:
            steps = [next_step(call, now) for call in device_methods.open_calls(connection, now)]
        published: list[Downlink] = []
        ended = False
        if any(not isinstance(step, WaitUntil) for step in steps):
            with self._database.write() as connection:
                # Decided again from what is true inside this transaction.
                incarnation = facts.incarnation(connection)
                steps = []
                for call in device_methods.open_calls(connection, now, lock=True):
                    step = next_step(call, now)
                    published += self._carry_out(connection, call, step, incarnation, now)
                    ended = ended or isinstance(step, Fail)
                    steps.append(step)
        waits_s = [(_look_at(step, now) - now).total_seconds() for step in steps if not isinstance(step, Fail)]
        self._due_s = now_s + max(0.0, min([LOOK_EVERY_S, *waits_s]))
        if ended:
            self._wakeups.wake("server")
        return published

    def _carry_out(self, connection: Connection, call: Call, step: Step, incarnation: str, now: datetime) -> list[Downlink]:
        match step:
            case Send(session):
                device_methods.note_sent(connection, call, session, now)
                return [self._downlink(call, session, incarnation, now)]
            case Fail(problem, tell_session):
                device_methods.fail(connection, call.id, problem, now)
                return [self._downlink(call, tell_session, incarnation, now, cancelled=True)] if tell_session else []
            case WaitUntil():
                return []

    def _downlink(self, call: Call, session: str, incarnation: str, now: datetime, *, cancelled: bool = False) -> Downlink:
        signed = MethodCall(
            device_uuid=call.device_uuid,
            incarnation=incarnation,
            session=session,
            id=call.id,
            module=call.module,
            name=call.method,
            payload="null" if cancelled else call.payload,
            timeout_s=call.timeout_s,
            expires_at=now + timedelta(seconds=call.timeout_s + GRACE_S),
            acknowledged_parts=call.parts,
            cancelled=cancelled,
        )
        return Downlink(call.device_uuid, "methods", sign(PAYLOAD_METHOD_CALL, encode(signed), self._signing().methods))

    def _forget(self, now: datetime) -> None:
        more = True
        while more:
            with self._database.write() as connection:
                gone = device_methods.forget_old(connection, now - timedelta(seconds=KEPT_S), _FORGET_AT_ONCE)
            more = gone == _FORGET_AT_ONCE


def _look_at(step: Step, now: datetime) -> datetime:
    return step.at if isinstance(step, WaitUntil) else now + timedelta(seconds=RESEND_S)
