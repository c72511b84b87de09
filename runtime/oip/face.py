"""The Open Inference Protocol v2 over REST: infer, and the pages about server and models; errors ``{"error": …}``.

messages.py   a request becomes arrays          answers.py   outputs become an answer
binary.py     tensors as bytes                  facts.py     what is told of server and models
repository.py load and unload                   routes.py    which path is which
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import msgspec

from runtime.exchange import Exchange, Response, with_headers
from runtime.http_errors import answer_error, failure_of
from runtime.models.errors import ModelFailed
from runtime.models.jobs import Job, LargeJob
from runtime.models.model_lane import INLINE_BYTES, ModelLane
from runtime.models.outputs import Share
from runtime.observing.metrics import Board
from runtime.observing.trace_context import echoed_ids
from runtime.oip.answers import infer_answer
from runtime.oip.facts import OipFacts
from runtime.oip.messages import InferRequest, rows_from, understand
from runtime.scoring import Scoring
from runtime.tensors import Array


class OipFace:
    """Answers the ``/v2`` routes."""

    def __init__(self, scoring: Scoring, board: Board, facts: OipFacts) -> None:
        self._scoring, self._facts = scoring, facts
        self._counters = board.route("infer")

    def infer(self, exchange: Exchange, model: str, version: str | None) -> None:
        """Answer now or later; never raises for what a caller or a model did."""
        try:
            if not self._scoring.loaded:
                self._scoring.check_known(model, version)
                self._scoring.wait_until_loaded(exchange, lambda again: self.infer(again, model, version), self._refused)
                return
            self._infer(exchange, self._scoring.lane(model, version))
        except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
            self._refused(exchange, problem)

    def _infer(self, exchange: Exchange, lane: ModelLane) -> None:
        exchange.model = lane.key
        large = len(exchange.request.body) > INLINE_BYTES
        job = self._large_job(exchange, lane) if large else self._job(exchange, lane)
        try:
            lane.submit(job)
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            self._failed(exchange, lane, job, problem)

    def _job(self, exchange: Exchange, lane: ModelLane) -> Job:
        request, model = exchange.request, lane.model

        def answer(share: Share) -> Response:
            return infer_answer(model, question, share)

        def done(job: Job) -> None:
            self._done(exchange, lane, job)

        form = model.row_form
        if form is not None and (found := rows_from(model, form, request)) is not None:
            question, values, rows = found
            job = Job(exchange, done, answer, wanted=_wanted(question))
            job.bring(form, values, rows)
            return job
        question, feeds = understand(model, request)
        job = Job(exchange, done, answer, feeds=feeds, wanted=_wanted(question))
        job.may_share(model)
        return job

    def _large_job(self, exchange: Exchange, lane: ModelLane) -> Job:
        model = lane.model
        asked: list[InferRequest] = []

        def prepare(job: Job) -> dict[str, Array]:
            question, feeds = understand(model, exchange.request)
            exchange.release_body()
            asked.append(question)
            job.wanted = _wanted(question)
            return feeds

        def answer(share: Share) -> Response:
            return infer_answer(model, asked[0], share)

        def done(job: Job) -> None:
            self._done(exchange, lane, job)

        return LargeJob(exchange, done, answer, prepare)

    def _done(self, exchange: Exchange, lane: ModelLane, job: Job) -> None:
        share = job.outputs
        if job.error is not None or share is None or not isinstance(job.result, Response):
            self._failed(exchange, lane, job, job.error)
            return
        exchange.work = job
        self._scoring.recorder.scored(job, share.values)
        self._send(exchange, job.result)

    def _failed(self, exchange: Exchange, lane: ModelLane, job: Job, error: BaseException | None) -> None:
        problem = error if isinstance(error, Exception) else ModelFailed(model=lane.model.name)
        exchange.work, job.error = job, problem
        lane.counters.failed(failure_of(problem))
        self._scoring.recorder.failed()
        self._refused(exchange, problem)

    def _send(self, exchange: Exchange, response: Response) -> None:
        headers = exchange.request.headers
        if "x-request-id" in headers or "traceparent" in headers:
            response = with_headers(response, echoed_ids(headers))
        exchange.answer(response)
        self._counters.answered(response.status, perf_counter() - exchange.started_at)

    def _refused(self, exchange: Exchange, problem: Exception) -> None:
        self._send(exchange, answer_error(problem, "error"))

    # Pages ------------------------------------------------------------------------------------------------------------

    def server(self) -> Response:
        """Metadata of the server."""
        return _json(self._facts.server())

    def health(self, word: str) -> Response:
        """``live`` (this worker answers) or ``ready`` (it also scores): false has status 503."""
        fine = self._facts.live() if word == "live" else self._facts.ready()
        return _json({word: fine}, 200 if fine else 503)

    def metadata(self, model: str, version: str | None) -> Response:
        """Inputs and outputs of a model."""
        return _page(lambda: self._facts.model(model, version))

    def config(self, model: str, version: str | None) -> Response:
        """Its configuration in Triton's words."""
        return _page(lambda: self._facts.config(model, version))

    def statistics(self, model: str | None, version: str | None) -> Response:
        """What was scored, in Triton's shape."""
        return _page(lambda: {"model_stats": self._facts.statistics(model, version)})

    def ready(self, model: str, version: str | None) -> Response:
        """Whether one model can be scored now. A model that is still loading is known and not ready."""
        try:
            fine = self._facts.model_ready(model, version)
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            return answer_error(problem, "error")
        return _json({"name": model, "ready": fine}, 200 if fine else 503)


def _wanted(asked: InferRequest) -> tuple[str, ...]:
    return tuple([wanted.name for wanted in asked.outputs]) if asked.outputs else ()


def _page(document: Callable[[], object]) -> Response:
    try:
        return _json(document())
    except Exception as problem:  # noqa: BLE001 - mapped like every other
        return answer_error(problem, "error")


def _json(body: object, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(body))
