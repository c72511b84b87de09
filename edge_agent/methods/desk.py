"""The story of a direct method on the device: let in, carried out once, answered in parts.

``take`` runs on the courier's thread and only checks, remembers and hands over; the work is done by two small groups of threads,
so that neither logs of a hundred megabytes nor a module that does not answer keep a ``ping`` or a restart waiting. The same
id again is never carried out again: it says how much of the answer the hub has.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edge_agent.methods.answer import Answer
from edge_agent.methods.errors import (
    AnswerUnwanted,
    ExpiredCall,
    MethodPayloadInvalid,
    NoSuchMethod,
    RepeatedCall,
    TooManyMethods,
)
from edge_agent.methods.gate import Gate, check_time
from edge_agent.methods.workers import Workers
from edge_agent.observing.metrics import Metrics
from hedgerow.clock import Clock
from hedgerow.contracts.methods import MethodAnswer, MethodCall
from hedgerow.errors import ConflictError, ForbiddenError, HedgerowError, NotFoundError, UnavailableError, UserError

# Ids of a session that are remembered, so that none is carried out twice.
REMEMBERED = 4096
# Answers that are kept in case that a part was lost.
KEPT_ANSWERS, KEPT_BYTES, KEPT_S = 32, 1024 * 1024, 60.0
_STATUS: tuple[tuple[type[HedgerowError], int], ...] = (
    (ExpiredCall, 408),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (UserError, 400),
    (ConflictError, 409),
    (UnavailableError, 503),
)
log = logging.getLogger(__name__)

# A method writes its answer's JSON text and returns its status. Raises HedgerowError.
Handler = Callable[[object, Answer], int]


@dataclass(frozen=True)
class Method:
    """``slow`` methods have threads of their own, and never keep a quick one waiting."""

    handler: Handler
    slow: bool = False


class LocalModules(Protocol):
    """The device's local hub, as methods need it."""

    def call(self, module: str, name: str, payload: str, timeout_s: float) -> tuple[int, str]:
        """Status and JSON text that the module answers; 404 when it has no such method or is not there, 408 when it is late."""
        ...


class Desk:
    """``publish`` hands a part of an answer to the link; False when it takes none now."""

    def __init__(
        self,
        gate: Gate,
        methods: Mapping[str, Method],
        publish: Callable[[MethodAnswer], bool],
        clock: Clock,
        metrics: Metrics,
        local: LocalModules | None = None,
    ) -> None:
        self._gate = gate
        self._methods = methods
        self._publish = publish
        self._clock = clock
        self._metrics = metrics
        self._local = local
        self._lock = threading.Lock()
        self._session = ""
        # Every id of the session; None: its answer is not kept any more.
        self._calls: OrderedDict[str, Answer | None] = OrderedDict()
        self._kept: OrderedDict[str, float] = OrderedDict()
        self._sweep: threading.Timer | None = None
        self._quick = Workers("method", threads=1, waiting=16)
        self._slow = Workers("slow-method", threads=3, waiting=5)

    def take(self, envelope: bytes, session: str | None, incarnation: str | None) -> None:
        """A call has arrived in the session (and of the incarnation) that the last welcome gave.

        Raises HedgerowError for what is refused: what is not signed for this session, and what came before.
        """
        call = self._gate.open(envelope, session, incarnation)
        with self._lock:
            if call.session != self._session:
                self._begin_session(call.session)
            known = call.id in self._calls
            before = self._calls.get(call.id)
        if known or call.cancelled:
            self._again(call, before)
            return
        answer = Answer(call, self._publish, self._clock.monotonic_s)
        with self._lock:
            self._calls[call.id] = answer
            while len(self._calls) > REMEMBERED:
                self._calls.popitem(last=False)
        self._begin(answer)

    def close(self) -> None:
        """Answers under way are given up."""
        with self._lock:
            self._begin_session("")
            if self._sweep is not None:
                self._sweep.cancel()

    def _begin_session(self, session: str) -> None:
        for answer in self._calls.values():
            if answer is not None:
                answer.cancel()
        self._calls.clear()
        self._kept.clear()
        self._session = session

    def _again(self, call: MethodCall, answer: Answer | None) -> None:
        news = False
        if answer is not None and call.cancelled:
            answer.cancel()
            news = True
        elif answer is not None:
            news = answer.acknowledged(call.acknowledged_parts)
        if not news:
            raise RepeatedCall(method=call.name)

    def _begin(self, answer: Answer) -> None:
        """Refusals of a call that the workspace did sign are answered: its caller learns the reason."""
        call = answer.call
        try:
            check_time(call, self._clock.now())
            method = self._method(call)
        except HedgerowError as problem:
            if isinstance(problem, ExpiredCall):
                self._metrics.count("hedgerow_agent_messages_refused_total", key=problem.key)
            self._refuse(answer, problem)
            return
        group = self._slow if method.slow else self._quick
        if not group.submit(lambda: self._carry_out(answer, method)):
            self._refuse(answer, TooManyMethods(limit=group.limit))

    def _method(self, call: MethodCall) -> Method:
        if call.module is None:
            found = self._methods.get(call.name)
            if found is None:
                raise NoSuchMethod(target="the agent", method=call.name, methods=", ".join(sorted(self._methods)))
            self._metrics.count("edgeagent_direct_method_invocations_count", method_name=call.name)
            return found
        if self._local is None:
            raise NoSuchMethod(target=f"module {call.module}", method=call.name, methods=", ".join(sorted(self._methods)))
        local, module = self._local, call.module

        def of_module(_payload: object, answer: Answer) -> int:
            self._metrics.count("edgehub_direct_methods_total", to=module)
            began_s = self._clock.monotonic_s()
            status, text = local.call(module, call.name, call.payload, call.timeout_s)
            self._metrics.observe("edgehub_direct_method_duration_seconds", self._clock.monotonic_s() - began_s, to=module)
            answer.write(text)
            return status

        return Method(of_module, slow=True)

    def _carry_out(self, answer: Answer, method: Method) -> None:
        try:
            # It may have waited for its turn.
            check_time(answer.call, self._clock.now())
            status = method.handler(_payload(answer.call), answer)
        except AnswerUnwanted as problem:
            log.info("%s", problem)
            answer.cancel()
            return
        except HedgerowError as problem:
            self._refuse(answer, problem)
            return
        except Exception:
            log.exception("method %s failed", answer.call.name)
            answer.write(msgspec.json.encode({"message": f"method {answer.call.name} failed; the agent's log says why"}).decode())
            status = 500
        self._finish(answer, status)

    def _refuse(self, answer: Answer, problem: HedgerowError) -> None:
        status = next((code for family, code in _STATUS if isinstance(problem, family)), 500)
        if answer.begun:
            # What was sent cannot be taken back: only the end tells that it is none.
            status = 500
        else:
            said = {"code": problem.key, "message": str(problem), "remedy": problem.advice}
            answer.write(msgspec.json.encode(said).decode())
        self._finish(answer, status)

    def _finish(self, answer: Answer, status: int) -> None:
        try:
            answer.finish(status)
        except AnswerUnwanted as problem:
            log.info("%s", problem)
            return
        with self._lock:
            if self._calls.get(answer.call.id) is answer:
                self._kept[answer.call.id] = self._clock.monotonic_s() + KEPT_S
                self._drop_old()

    def _drop_old(self) -> None:
        """Let go of answers that nobody will ask for again, and of the oldest when they are many."""
        now_s = self._clock.monotonic_s()
        while self._kept:
            held = [answer for answer in map(self._calls.get, self._kept) if answer is not None]
            too_many = len(held) > KEPT_ANSWERS or sum(answer.kept_bytes for answer in held) > KEPT_BYTES
            call_id, until_s = next(iter(self._kept.items()))
            if not too_many and until_s > now_s:
                break
            del self._kept[call_id]
            if call_id in self._calls:
                self._calls[call_id] = None
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._kept:
            self._sweep = threading.Timer(KEPT_S, self._swept)
            self._sweep.daemon = True
            self._sweep.start()

    def _swept(self) -> None:
        with self._lock:
            self._drop_old()


def _payload(call: MethodCall) -> object:
    try:
        return msgspec.json.decode(call.payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise MethodPayloadInvalid(method=call.name, problem=f"it is no JSON ({problem})") from None
