"""The Open Inference Protocol v2 over REST: infer, metadata and health, errors ``{"error": …}``.

JSON here is msgspec's, strict: NaN and infinities of an output are written as null (JSON has no word for them), null in a
float input is NaN. The binary tensor extension is in oip_binary.py. Sequences of maps are told as a tensor rows x keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody, BadTensor, ModelFailed
from runtime.exchange import Exchange, Request, Response
from runtime.http_errors import answer_error, failure_of
from runtime.metrics import Board
from runtime.model_lane import INLINE_BYTES, Job, ModelLane, Outputs
from runtime.oip_binary import HEADER_LENGTH, BinaryPart, pack, raw_array, split_body
from runtime.onnx_model import OnnxModel
from runtime.scoring import Scoring
from runtime.tensors import DATATYPES, Array, array_from_json, describe

PLATFORM = "onnx_onnxv1"
EXTENSIONS = ["binary_tensor_data"]


class InferInput(msgspec.Struct):
    """One input of a request; without ``data`` its values are in the binary part."""

    name: str
    datatype: str
    shape: list[int]
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] = {}


class InferWanted(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON part of an infer request."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[InferWanted] = []


class OipFace:
    """Answers the ``/v2`` routes."""

    def __init__(self, scoring: Scoring, board: Board, server_version: str) -> None:
        self._scoring, self._server_version = scoring, server_version
        self._counters = board.route("infer")
        self._decoder = msgspec.json.Decoder(InferRequest)

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

    def server(self) -> Response:
        """Metadata of the server."""
        return _json({"name": "hedgerow", "version": self._server_version, "extensions": EXTENSIONS})

    def health(self, word: str) -> Response:
        """``live`` (this worker answers) or ``ready`` (it also scores): false has status 503."""
        state = self._scoring.state
        fine = state != "stuck" if word == "live" else state == "ready"
        return _json({word: fine}, 200 if fine else 503)

    def metadata(self, model: str, version: str | None) -> Response:
        """Inputs and outputs of a model."""
        try:
            found = self._scoring.model(model, version)
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            return answer_error(problem, "error")
        body = {
            "name": found.name,
            "versions": self._scoring.versions(model),
            "platform": PLATFORM,
            "inputs": found.inputs,
            "outputs": found.outputs,
        }
        return _json(body)

    def ready(self, model: str, version: str | None) -> Response:
        """Whether one model can be scored now. A model that is still loading is known and not ready."""
        try:
            self._scoring.check_known(model, version)
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            return answer_error(problem, "error")
        fine = self._scoring.state == "ready"
        return _json({"name": model, "ready": fine}, 200 if fine else 503)

    def _infer(self, exchange: Exchange, lane: ModelLane) -> None:
        request, model = exchange.request, lane.model
        if len(request.body) > INLINE_BYTES:
            asked: list[InferRequest] = []

            def prepare() -> dict[str, Array]:
                question, feeds = self._understand(model, request)
                asked.append(question)
                job.wanted = _wanted(question)
                return feeds

            def finish(outputs: Outputs) -> Response:
                return self._answer(model, asked[0], outputs)

            job = Job(exchange, lambda job: self._done(exchange, lane, job), prepare=prepare, finish=finish)
        else:
            question, feeds = self._understand(model, request)

            def done(job: Job) -> None:
                if job.error is None:
                    try:
                        job.result = self._answer(model, question, job.outputs or {})
                    except ModelFailed as problem:
                        job.error = problem
                self._done(exchange, lane, job)

            job = Job(exchange, done, feeds=feeds, wanted=_wanted(question))
            job.may_share(model)
        self._scoring.begun()
        try:
            lane.submit(job)
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            job.error = problem
            self._done(exchange, lane, job)

    def _done(self, exchange: Exchange, lane: ModelLane, job: Job) -> None:
        self._scoring.ended()
        if isinstance(job.error, Exception) or not isinstance(job.result, Response):
            problem = job.error if isinstance(job.error, Exception) else ModelFailed(model=lane.model.name)
            lane.counters.failed(failure_of(problem))
            self._scoring.recorder.failed()
            self._refused(exchange, problem)
            return
        lane.counters.scored(job.rows, job.queued_s, job.ran_s, first_of_run=job.leads)
        self._scoring.recorder.scored(job.rows, (job.queued_s + job.ran_s) * 1000, job.outputs)
        self._send(exchange, job.result)

    def _send(self, exchange: Exchange, response: Response) -> None:
        exchange.answer(response)
        self._counters.answered(response.status, perf_counter() - exchange.started_at)

    def _refused(self, exchange: Exchange, problem: Exception) -> None:
        self._send(exchange, answer_error(problem, "error"))

    def _understand(self, model: OnnxModel, request: Request) -> tuple[InferRequest, dict[str, Array]]:
        """The JSON part and the inputs. Raises BadBody, BadTensor or BadTensorNames."""
        head, binary = split_body(request)
        if head is None:
            spec = model.inputs[0]
            if len(model.inputs) != 1:
                raise BadBody(problem="a raw binary request has one tensor", hint=f"Model {model.name} has several inputs.")
            return InferRequest([], parameters={"binary_data_output": True}), {spec.name: raw_array(spec, binary)}
        asked = self._read(head)
        feeds = feeds_from(model, asked.inputs, binary)
        model.check_names(feeds, [wanted.name for wanted in asked.outputs])
        return asked, feeds

    def _read(self, head: bytes) -> InferRequest:
        hint = 'Send {"inputs": [{"name", "shape", "datatype", "data"}]}.'
        try:
            return self._decoder.decode(head)
        except msgspec.DecodeError as problem:  # ValidationError is one of these
            raise BadBody(problem=problem, hint=hint) from None
        except RecursionError:
            raise BadBody(problem="it is nested too deep", hint=hint) from None

    def _answer(self, model: OnnxModel, asked: InferRequest, values: Mapping[str, object]) -> Response:
        default = asked.parameters.get("binary_data_output") is True
        in_binary = {wanted.name: wanted.parameters.get("binary_data", default) is True for wanted in asked.outputs}
        outputs, binary = [], []
        for name, value in values.items():
            array = tensor_of(model.name, value)
            output: dict[str, object] = {"name": name, "datatype": DATATYPES[array.dtype.char], "shape": list(array.shape)}
            if in_binary.get(name, default):
                binary.append(pack(array))
                output["parameters"] = {"binary_data_size": len(binary[-1])}
            else:
                output["data"] = array.ravel().tolist()
            outputs.append(output)
        body: dict[str, object] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
        if asked.id is not None:
            body["id"] = asked.id
        return _with_binary(body, binary) if binary else _json(body)


def _wanted(asked: InferRequest) -> tuple[str, ...]:
    return tuple([wanted.name for wanted in asked.outputs])


def feeds_from(model: OnnxModel, inputs: Sequence[InferInput], binary: BinaryPart) -> dict[str, Array]:
    """Arrays by input name. Raises BadTensorNames, BadTensor or BadBody."""
    model.check_names([given.name for given in inputs])
    specs = {spec.name: spec for spec in model.inputs}
    feeds = {given.name: _array(specs[given.name], given, binary) for given in inputs}
    binary.check_used_up()
    return feeds


def _array(spec: TensorSpec, given: InferInput, binary: BinaryPart) -> Array:
    if given.datatype != spec.datatype:
        raise BadTensor(tensor=spec.name, problem=f"it is sent as {given.datatype}", wanted=describe(spec))
    if "binary_data_size" in given.parameters:
        return binary.take(spec, given.shape, given.parameters["binary_data_size"])
    if given.data is msgspec.UNSET:
        raise BadTensor(tensor=spec.name, problem="it has no data", wanted=describe(spec))
    return array_from_json(spec, given.data, given.shape)


def tensor_of(model: str, value: object) -> Array:
    """An output as one array. A list of maps becomes rows x keys (in the order of the first row's keys).

    Raises ModelFailed for a sequence whose parts do not fit together.
    """
    try:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            keys = list(value[0])
            value = np.array([[row[key] for key in keys] for row in value], dtype=np.float32)
        elif isinstance(value, list):
            value = np.stack([np.asarray(item) for item in value]) if value else np.array([], dtype=np.float32)
        array = np.asarray(value)
    except (KeyError, TypeError, ValueError):
        raise ModelFailed(model=model) from None
    return array if array.dtype.char in DATATYPES else array.astype(np.object_)


def _json(body: object, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(body))


def _with_binary(body: object, parts: Sequence[bytes]) -> Response:
    head = msgspec.json.encode(body)
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(200, b"".join((head, *parts)), "application/octet-stream", headers)
