"""Answers the calls of ``inference.GRPCInferenceService`` from the same lanes and facts as the REST face (oip/face.py).

A handler is a coroutine on the worker's event loop. It only ever waits for a model's turn or for a load; what goes wrong
becomes a status with the sentence that REST would give.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Final

import grpc

from hedgerow.errors import Bug, HedgerowError
from runtime.errors import BadBody
from runtime.front.auth import Guard
from runtime.grpc.contents import Message, feeds_from, fill_outputs
from runtime.grpc.schema import CALLS, CONFIG_TYPES, SERVICE
from runtime.http_errors import INTERNAL, failure_of, status_of
from runtime.models.errors import ModelFailed, NoSharedMemory
from runtime.models.jobs import Job, LargeJob
from runtime.models.model_lane import INLINE_BYTES, ModelLane
from runtime.models.outputs import Outputs
from runtime.models.served_models import Standing
from runtime.observing.metrics import Board
from runtime.oip.answers import arrays_of
from runtime.oip.binary import pack
from runtime.oip.facts import OipFacts
from runtime.oip.messages import InferRequest, InferWanted, check_wanted
from runtime.oip.repository import chosen, load_request
from runtime.scoring import Scoring
from runtime.tensors import Array

_log = logging.getLogger("hedgerow.runtime.grpc")

Context = Any
_CODES: Final[Mapping[int, grpc.StatusCode]] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# What a guard calls these; everything else needs a key.
_PATHS: Final = {"ServerLive": "/v2/health/live", "ServerReady": "/v2/health/ready"}


class _Caller:
    """Whoever waits for a job."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.gone = False


def _finish(job: Job, finish: Callable[[Outputs], Message]) -> None:
    """On the loop, what the model's thread has not done already."""
    if job.error is None and job.result is None and job.outputs is not None:
        try:
            job.result = finish(job.outputs.values())
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            job.error = problem


class GrpcFace:
    """``classes`` are messages.py's, by name. ``guard`` None: no keys are asked for."""

    def __init__(self, scoring: Scoring, board: Board, facts: OipFacts, classes: Mapping[str, Any], guard: Guard | None) -> None:
        self._scoring, self._facts, self._classes, self._guard = scoring, facts, classes, guard
        self._counters = board.route("infer")
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    def hold(self) -> None:
        """Keep answers back until :meth:`release`: callers that wait for one send nothing new (door.py)."""
        self._may_answer.clear()

    def release(self) -> None:
        self._may_answer.set()

    def handlers(self) -> Any:  # noqa: ANN401 - grpc has no types
        """What a grpc.aio server is given."""
        methods: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }
        found = {}
        for call, (asked, answered, streams) in CALLS.items():
            kind = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
            handler = self._stream if streams else self._answering(call, methods[call])
            found[call] = kind(
                handler,
                request_deserializer=self._classes[asked].FromString,
                response_serializer=self._classes[answered].SerializeToString,
            )
        return grpc.method_handlers_generic_handler(SERVICE, found)

    def _answering(
        self, call: str, answer: Callable[[Message], Awaitable[Message]]
    ) -> Callable[[Message, Context], Awaitable[Message]]:
        async def handler(request: Message, context: Context) -> Message:
            try:
                self._check_key(call, context)
                found = await answer(request)
                await self._may_answer.wait()
                return found
            except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
                code, text = told(problem)
            return await context.abort(code, text)

        return handler

    def _check_key(self, call: str, context: Context) -> None:
        if self._guard is not None:
            headers = {str(name).lower(): str(value) for name, value in context.invocation_metadata() or ()}
            if not self._guard.lets_in(_PATHS.get(call, f"/v2/{call}"), headers, context.peer()):
                raise self._guard.refusal(headers)

    # Scoring ----------------------------------------------------------------------------------------------------------

    async def _model_infer(self, request: Message) -> Message:
        received_at = perf_counter()
        try:
            lane = self._scoring.lane(request.model_name, request.model_version or None)
            answer = await self._scored(request, lane, received_at)
        except Exception as problem:
            self._counters.answered(status_of(problem, "error"), perf_counter() - received_at)
            raise
        self._counters.answered(200, perf_counter() - received_at)
        return answer

    async def _scored(self, request: Message, lane: ModelLane, received_at: float) -> Message:
        model, asked = lane.model, _asked(request)
        raw, caller = bool(request.raw_input_contents), _Caller(received_at)
        answered: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def prepare() -> dict[str, Array]:
            feeds = feeds_from(model, request)
            model.check_names(feeds, [wanted.name for wanted in asked.outputs])
            return feeds

        def finish(outputs: Outputs) -> Message:
            response = self._classes["ModelInferResponse"](model_name=model.name, model_version=model.version, id=asked.id or "")
            fill_outputs(response, arrays_of(model.name, asked, outputs), pack, raw=raw)
            return response

        def done(job: Job) -> None:
            _finish(job, finish)
            if not answered.done():
                answered.set_result(job)

        wanted = tuple([one.name for one in asked.outputs])
        if request.ByteSize() > INLINE_BYTES:
            job: Job = LargeJob(caller, done, prepare=lambda _job: prepare(), finish=finish, wanted=wanted)
        else:
            job = Job(caller, done, feeds=prepare(), wanted=wanted)
            job.may_share(model)
        try:
            lane.submit(job)
            job = await answered
            # It knows where the job is: together they would wait for the garbage collector.
            job.done = _nobody
        except asyncio.CancelledError:
            caller.gone = True
            lane.counters.failed("CANCELED")
            raise
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            job.error = problem
        return self._counted(lane, job, received_at)

    def _counted(self, lane: ModelLane, job: Job, received_at: float) -> Message:
        if job.error is not None:
            problem = job.error if isinstance(job.error, Exception) else ModelFailed(model=lane.model.name)
            lane.counters.failed(failure_of(problem))
            self._scoring.recorder.failed()
            raise problem
        self._scoring.recorder.scored(job.rows, (job.queued_s + job.ran_s) * 1000, job.outputs.values if job.outputs else None)
        return job.result

    async def _stream(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        """One answer for each request, in their order; a request's failure is an answer too."""
        try:
            self._check_key("ModelStreamInfer", context)
        except HedgerowError as problem:
            await context.abort(*told(problem))
        answer_class = self._classes["ModelStreamInferResponse"]
        async for request in requests:
            try:
                found = answer_class(infer_response=await self._model_infer(request))
                await self._may_answer.wait()
                yield found
            except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
                yield answer_class(error_message=told(problem)[1])

    # Facts ------------------------------------------------------------------------------------------------------------

    async def _server_live(self, _request: Message) -> Message:
        return self._classes["ServerLiveResponse"](live=self._facts.live())

    async def _server_ready(self, _request: Message) -> Message:
        return self._classes["ServerReadyResponse"](ready=self._facts.ready())

    async def _model_ready(self, request: Message) -> Message:
        return self._classes["ModelReadyResponse"](ready=self._facts.model_ready(request.name, request.version or None))

    async def _server_metadata(self, _request: Message) -> Message:
        return self._classes["ServerMetadataResponse"](**self._facts.server())

    async def _model_metadata(self, request: Message) -> Message:
        facts = self._facts.model(request.name, request.version or None)
        response = self._classes["ModelMetadataResponse"](
            name=facts["name"], versions=facts["versions"], platform=facts["platform"]
        )
        lane = self._scoring.lane(request.name, request.version or None)
        for field, specs in ((response.inputs, lane.model.inputs), (response.outputs, lane.model.outputs)):
            for spec in specs:
                field.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return response

    async def _model_config(self, request: Message) -> Message:
        lane = self._scoring.lane(request.name, request.version or None)
        facts = self._facts.config(request.name, request.version or None)
        response = self._classes["ModelConfigResponse"]()
        config = response.config
        config.name, config.platform, config.backend = lane.model.name, facts["platform"], facts["backend"]
        config.max_batch_size = lane.most_rows
        first = 1 if lane.most_rows else 0
        for field, specs in ((config.input, lane.model.inputs), (config.output, lane.model.outputs)):
            for spec in specs:
                field.add(name=spec.name, data_type=CONFIG_TYPES[spec.datatype], dims=spec.shape[first:])
        return response

    async def _model_statistics(self, request: Message) -> Message:
        response = self._classes["ModelStatisticsResponse"]()
        for stats in self._facts.statistics(request.name or None, request.version or None):
            one = response.model_stats.add(name=stats.name, version=stats.version, last_inference=stats.last_inference)
            one.inference_count, one.execution_count = stats.inference_count, stats.execution_count
            for name in stats.inference_stats.__struct_fields__:
                duration, place = getattr(stats.inference_stats, name), getattr(one.inference_stats, name)
                place.count, place.ns = duration.count, duration.ns
        return response

    # The repository ---------------------------------------------------------------------------------------------------

    async def _repository_index(self, request: Message) -> Message:
        found: asyncio.Future[list[Standing] | Exception] = asyncio.get_running_loop().create_future()
        if self._scoring.control is None:
            found.set_result(self._scoring.models.standings())
        else:
            self._scoring.control.index(lambda index: None if found.done() else found.set_result(index))
        index = await found
        if isinstance(index, Exception):
            raise index
        response = self._classes["RepositoryIndexResponse"]()
        for one in chosen(index, only_ready=request.ready):
            response.models.add(name=one.name, version=one.version, state=one.state, reason=one.reason)
        return response

    async def _repository_load(self, request: Message) -> Message:
        asked = load_request(request.model_name, _parameters(request.parameters))
        await self._change(lambda done: self._scoring.loads(asked, done))
        return self._classes["RepositoryModelLoadResponse"]()

    async def _repository_unload(self, request: Message) -> Message:
        await self._change(lambda done: self._scoring.unloads(request.model_name, done))
        return self._classes["RepositoryModelUnloadResponse"]()

    async def _change(self, begin: Callable[[Callable[[Exception | None], None]], None]) -> None:
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        begin(lambda problem: None if ended.done() else ended.set_result(problem))
        if (problem := await ended) is not None:
            raise problem


def _nobody(_job: Job) -> None:
    """Whom an answered job tells."""


def told(problem: Exception) -> tuple[grpc.StatusCode, str]:
    """Status and sentence of a failure; what we did not foresee is logged with its traceback and told to nobody."""
    if not isinstance(problem, HedgerowError) or isinstance(problem, Bug):
        _log.error("a request failed inside Hedgerow", exc_info=problem)
        return grpc.StatusCode.INTERNAL, INTERNAL
    return _CODES.get(status_of(problem, "error"), grpc.StatusCode.INTERNAL), problem.sentence()


def _asked(request: Message) -> InferRequest:
    """What a request wants, in REST's words. Raises BadBody or NoSharedMemory."""
    outputs = [InferWanted(wanted.name, _parameters(wanted.parameters)) for wanted in request.outputs]
    check_wanted(outputs)
    for given in request.inputs:
        if given.parameters and "shared_memory_region" in given.parameters:
            raise NoSharedMemory
    return InferRequest([], id=request.id or None, outputs=outputs)


def _parameters(parameters: Mapping[str, Message]) -> dict[str, Any]:
    """Raises BadBody for a parameter without a value."""
    found = {}
    for name, parameter in parameters.items():
        chosen_field = parameter.WhichOneof("parameter_choice")
        if chosen_field is None:
            raise BadBody(problem=f"parameter {name[:100]!r} has no value", hint="Give it one.")
        found[name] = getattr(parameter, chosen_field)
    return found
