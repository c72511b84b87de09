"""Answers the calls of ``inference.GRPCInferenceService`` from the same lanes and facts as the REST face (oip/face.py).

A handler is a coroutine on the worker's event loop. It only ever waits for a model's turn or for a load; what goes wrong
becomes a status with the sentence that REST would give.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from hedgerow.errors import AccessError
from runtime.errors import BadBody
from runtime.exchange import Headers
from runtime.front.auth import Guard
from runtime.grpc.calls import Calls, Context, Message, Received, answered, headers_of, refused
from runtime.grpc.health import HealthFace
from runtime.grpc.messages import message_classes
from runtime.grpc.schema import CALLS, CONFIG_TYPES, HEALTH_MESSAGES, HEALTH_PACKAGE, HEALTH_SERVICE, SERVICE
from runtime.grpc.scoring_calls import ScoringCalls, parameters_of
from runtime.grpc.told import Refusal
from runtime.models.served_models import Standing
from runtime.observing.metrics import Board
from runtime.oip.facts import OipFacts
from runtime.oip.repository import chosen, load_request
from runtime.scoring import Scoring

CHECK, WATCH = f"{HEALTH_SERVICE}/Check", f"{HEALTH_SERVICE}/Watch"
# What a guard calls these; everything else needs a key.
_PATHS: Final = {
    f"{SERVICE}/ServerLive": "/v2/health/live",
    f"{SERVICE}/ServerReady": "/v2/health/ready",
    CHECK: "/v2/health/ready",
    WATCH: "/v2/health/ready",
}


class GrpcFace:
    """``classes`` are messages.py's, by name. ``guard`` None: no keys are asked for. ``calls`` makes the exchanges of scoring."""

    def __init__(
        self, scoring: Scoring, board: Board, facts: OipFacts, classes: Mapping[str, Any], guard: Guard | None, calls: Calls
    ) -> None:
        self._scoring, self._facts, self._classes, self._guard, self._calls = scoring, facts, classes, guard, calls
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._scores = ScoringCalls(scoring, board, classes, calls, self._enter, self._may_answer)
        self._health_classes = message_classes(HEALTH_MESSAGES, HEALTH_PACKAGE)
        self._health = HealthFace(facts.ready, self._health_classes)

    @property
    def begun(self) -> int:
        """How many calls have come."""
        return self._calls.begun

    def hold(self) -> None:
        """Keep answers back until :meth:`release`: callers that wait for one send nothing new (door.py)."""
        self._may_answer.clear()

    def release(self) -> None:
        """Answer, and end what never ends by itself: streams, and those who watch the health."""
        self._may_answer.set()
        self._scores.leave()
        self._health.leave()

    def handlers(self) -> tuple[Any, ...]:
        """What a grpc.aio server is given."""
        pages: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }
        # Messages are read and written here and in scoring_calls.py: whoever watches wants to see their bytes.
        asks = self._calls.receives(self._classes["ModelInferRequest"])
        found = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer, asks),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream, asks),
        }
        for call, page in pages.items():
            asks = self._calls.receives(self._classes[CALLS[call][0]])
            found[call] = grpc.unary_unary_rpc_method_handler(self._answering(f"{SERVICE}/{call}", page), asks)
        asks = self._calls.receives(self._health_classes["HealthCheckRequest"])
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self._answering(CHECK, self._health.check), asks),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, asks),
        }
        return (
            grpc.method_handlers_generic_handler(SERVICE, found),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
        )

    async def _infer(self, received: Received, context: Context) -> bytes:
        try:
            return await self._scores.infer(received, context)
        except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
            refusal = Refusal.of(problem)
        return await self._refuse(refusal, context)

    async def _stream(self, _messages: object, context: Context) -> None:
        try:
            await self._scores.stream(context)
            return
        except Exception as problem:  # noqa: BLE001 - like every other call's
            refusal = Refusal.of(problem)
        await self._refuse(refusal, context)

    async def _watch(self, received: Received, context: Context) -> None:
        try:
            self._enter(WATCH, headers_of(context), context)
            service = received.understood().service
        except (AccessError, BadBody) as problem:
            refusal = Refusal.of(problem)
        else:
            await self._health.watch(service, context)
            return
        await self._refuse(refusal, context)

    def _answering(
        self, call: str, answer: Callable[[Message], Awaitable[Message]]
    ) -> Callable[[Received, Context], Awaitable[bytes]]:
        async def handler(received: Received, context: Context) -> bytes:
            headers = headers_of(context)
            exchange = self._calls.begin(call, headers, received, context)
            try:
                self._enter(call, headers, context)
                body: bytes = (await answer(received.understood())).SerializeToString()
            except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
                refusal = Refusal.of(problem)
            else:
                await self._may_answer.wait()
                answered(exchange, body)
                return body
            refused(exchange, refusal)
            return await self._refuse(refusal, context)

        return handler

    async def _refuse(self, refusal: Refusal, context: Context) -> bytes:
        """End the call; does not come back."""
        await self._may_answer.wait()
        await context.abort(refusal.code, refusal.text)
        return b""

    def _enter(self, call: str, headers: Headers, context: Context) -> None:
        """Raises KeyNeeded."""
        if self._guard is not None and not self._guard.lets_in(_PATHS.get(call, f"/{call}"), headers, context.peer()):
            raise self._guard.refusal(headers)

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
            for size in stats.batch_stats:
                batch = one.batch_stats.add(batch_size=size.batch_size)
                for name in ("compute_input", "compute_infer", "compute_output"):
                    duration, place = getattr(size, name), getattr(batch, name)
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
        asked = load_request(request.model_name, parameters_of(request.parameters))
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
