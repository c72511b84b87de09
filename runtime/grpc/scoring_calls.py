"""ModelInfer and ModelStreamInfer: a message becomes arrays (contents.py), a job for a model's lane, and a message again.

A call is an exchange (calls.py) from its first moment: it waits for a model that loads, is dropped when its caller leaves, and is
logged, traced and collected as a request of REST's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from runtime.errors import BadBody, NotReady
from runtime.exchange import Exchange, Headers
from runtime.grpc.calls import Calls, Context, Message, Received, answered, headers_of, left, refused
from runtime.grpc.contents import feeds_from, fill_outputs
from runtime.grpc.schema import SERVICE
from runtime.grpc.stream import InferStream
from runtime.grpc.told import Refusal
from runtime.http_errors import failure_of
from runtime.models.errors import ModelFailed, NoSharedMemory
from runtime.models.jobs import Job, LargeJob
from runtime.models.model_lane import INLINE_BYTES, ModelLane
from runtime.models.outputs import Share
from runtime.observing.metrics import Board
from runtime.observing.trace_context import echoed_ids
from runtime.oip.answers import arrays_of
from runtime.oip.binary import pack
from runtime.oip.messages import InferRequest, InferWanted, check_wanted
from runtime.scoring import Scoring
from runtime.tensors import Array

INFER, STREAM = f"{SERVICE}/ModelInfer", f"{SERVICE}/ModelStreamInfer"
Enter = Callable[[str, Headers, Context], None]
# By which clients of streams know that no further answer to the same request follows.
_FINAL = "triton_final_response"


class ScoringCalls:
    """``classes`` are messages.py's, by name. ``enter`` raises KeyNeeded for callers that may not come in.

    ``may_answer`` is waited for before an answer leaves (door.py).
    """

    def __init__(
        self,
        scoring: Scoring,
        board: Board,
        classes: Mapping[str, Any],
        calls: Calls,
        enter: Enter,
        may_answer: asyncio.Event,
    ) -> None:
        self._scoring, self._classes, self._calls, self._may_answer = scoring, classes, calls, may_answer
        self._enter = enter
        self._counters = board.route("infer")
        self._streams: set[InferStream] = set()

    async def infer(self, received: Received, context: Context) -> bytes:
        """One call. Raises Refusal."""
        headers = headers_of(context)
        exchange = self._calls.begin(INFER, headers, received, context)
        found: bytes | Refusal
        try:
            with self._told(exchange):
                self._enter(INFER, headers, context)
                found = await self._scored(exchange, received, streamed=False)
        except Refusal as refusal:
            found = refusal
        await self._may_answer.wait()
        if ids := echoed_ids(exchange.request.headers):
            await context.send_initial_metadata(tuple(ids.items()))
        if isinstance(found, Refusal):
            try:
                raise found
            finally:
                # It knows this frame now, and the frame would know it: together they would wait for the garbage collector.
                del found
        return found

    async def stream(self, context: Context) -> None:
        """One answer for each message, in their order; a message's failure is an answer too.

        Raises Refusal, or NotReady when it is we who end it.
        """
        headers = headers_of(context)
        with self._told(self._calls.begin(STREAM, headers, Received(None, 0, b""), context)):
            self._enter(STREAM, headers, context)
        await context.send_initial_metadata(tuple(echoed_ids(headers).items()))

        async def score(received: Received) -> bytes:
            exchange = self._calls.begin(STREAM, dict(headers), received, context)
            with self._told(exchange):
                return await self._scored(exchange, received, streamed=True)

        async def infer(received: Received) -> bytes:
            if received.message is None or self._merges(received.message):
                return await score(received)
            # One after another: a stream must not be refused because of a queue that it fills by itself.
            async with alone:
                return await score(received)

        alone = asyncio.Lock()
        stream = InferStream(infer, self._classes["ModelStreamInferResponse"], context, self._may_answer)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
        if stream.left:
            raise NotReady(state="draining")

    def leave(self) -> None:
        """End the streams: no one else would, and the server would wait for them."""
        for stream in self._streams:
            stream.leave()

    def _merges(self, request: Message) -> bool:
        """Whether requests for its model share runs."""
        lane = self._scoring.models.find(request.model_name, request.model_version or None)
        return lane is not None and lane.most_rows > 0

    # One request ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _told(self, exchange: Exchange) -> Iterator[None]:
        """Whatever goes wrong is counted and told to those who watch. Raises Refusal."""
        try:
            yield
        except asyncio.CancelledError:
            left(exchange)
            raise
        except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
            refusal = Refusal.of(problem)
            self._counters.answered(refusal.status, perf_counter() - exchange.started_at)
            refused(exchange, refusal)
            try:
                raise refusal from None
            finally:
                # As in infer().
                del refusal

    async def _scored(self, exchange: Exchange, received: Received, *, streamed: bool) -> bytes:
        """The ModelInferResponse."""
        with self._calls.scoring(exchange, received):
            return await self._score(exchange, received, streamed=streamed)

    async def _score(self, exchange: Exchange, received: Received, *, streamed: bool) -> bytes:
        message = received.understood()
        name, version = message.model_name, message.model_version or None
        if not self._scoring.loaded:
            self._scoring.check_known(name, version)
            await self._loaded(exchange)
        lane = self._scoring.lane(name, version)
        exchange.model = lane.key
        job = self._question(exchange, lane, received, streamed=streamed)
        try:
            job = await _run(lane, job)
        except asyncio.CancelledError:
            lane.counters.failed("CANCELED")
            raise
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            job.error = problem
        return self._counted(exchange, lane, job)

    async def _loaded(self, exchange: Exchange) -> None:
        """A worker that replaces another: its first requests wait for the model instead of failing. Raises Overloaded."""
        loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def again(_exchange: Exchange) -> None:
            if not loaded.done():
                loaded.set_result(None)

        def refuse(_exchange: Exchange, problem: Exception) -> None:
            if not loaded.done():
                loaded.set_exception(problem)

        self._scoring.wait_until_loaded(exchange, again, refuse)
        await loaded

    def _question(self, exchange: Exchange, lane: ModelLane, received: Received, *, streamed: bool) -> Job:
        """Raises BadBody, BadTensor, BadTensorNames or NoSharedMemory."""
        message, model = received.understood(), lane.model
        asked = _asked(message)
        wanted = tuple([one.name for one in asked.outputs])

        def prepare(_job: Job | None = None) -> dict[str, Array]:
            feeds = feeds_from(model, message)
            model.check_names(feeds, wanted)
            return feeds

        def answer(share: Share) -> bytes:
            response = self._classes["ModelInferResponse"](model_name=model.name, model_version=model.version, id=message.id)
            fill_outputs(response, arrays_of(model.name, asked, share.values()), pack, raw=bool(message.raw_input_contents))
            if streamed:
                response.parameters[_FINAL].bool_param = True
            body: bytes = response.SerializeToString()
            return body

        if received.size_bytes > INLINE_BYTES:
            return LargeJob(exchange, _nobody, answer, prepare, wanted=wanted)
        job = Job(exchange, _nobody, answer, feeds=prepare(), wanted=wanted)
        job.may_share(model)
        return job

    def _counted(self, exchange: Exchange, lane: ModelLane, job: Job) -> bytes:
        exchange.work = job
        # It knows the message: a job that others hold on to need not keep it.
        job.answer = _made
        if job.error is not None or not isinstance(job.result, bytes):
            problem = job.error if isinstance(job.error, Exception) else ModelFailed(model=lane.model.name)
            lane.counters.failed(failure_of(problem))
            self._scoring.recorder.failed()
            job.error = None
            try:
                raise problem
            finally:
                del problem
        self._scoring.recorder.scored(job, job.outputs.values if job.outputs else None)
        answered(exchange, job.result)
        now = perf_counter()
        self._counters.answered(200, now - exchange.started_at)
        return job.result


async def _run(lane: ModelLane, job: Job) -> Job:
    """Wait for its run; for a run that takes too long another job is given back in its place. Raises Overloaded."""
    ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

    def done(job: Job) -> None:
        if not ended.done():
            ended.set_result(job)

    job.done = done
    lane.submit(job)
    found = await ended
    # It knows whom to tell, who knows it: together they would wait for the garbage collector.
    found.done = _nobody
    return found


def _nobody(_job: Job) -> None:
    """Whom an answered job tells."""


def _made(_share: Share) -> object:
    """What makes an answer that is made."""


def _asked(request: Message) -> InferRequest:
    """What a request wants, in REST's words. Raises BadBody or NoSharedMemory."""
    outputs = [InferWanted(wanted.name, parameters_of(wanted.parameters)) for wanted in request.outputs]
    check_wanted(outputs)
    for given in request.inputs:
        if given.parameters and "shared_memory_region" in given.parameters:
            raise NoSharedMemory
    return InferRequest([], outputs=outputs)


def parameters_of(parameters: Mapping[str, Message]) -> dict[str, Any]:
    """Raises BadBody for a parameter without a value."""
    found = {}
    for name, parameter in parameters.items():
        chosen_field = parameter.WhichOneof("parameter_choice")
        if chosen_field is None:
            raise BadBody(problem=f"parameter {name[:100]!r} has no value", hint="Give it one.")
        found[name] = getattr(parameter, chosen_field)
    return found
