"""What a server tells of itself and its models in the Open Inference Protocol, over REST (face.py) and gRPC (grpc/) alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from hedgerow.contracts.model import TensorSpec
from runtime.observing.metrics import Board
from runtime.oip.statistics import ModelStats, model_stats
from runtime.scoring import Scoring

PLATFORM = "onnx_onnxv1"
SERVER_NAME = "hedgerow"
_ALWAYS = ("binary_tensor_data", "classification", "model_configuration", "parameters", "statistics")


class OipFacts:
    """``wall_ms`` is the time now in milliseconds since 1970."""

    def __init__(self, scoring: Scoring, board: Board, server_version: str, wall_ms: Callable[[], int]) -> None:
        self._scoring, self._board, self._wall_ms = scoring, board, wall_ms
        self.server_version = server_version

    def server(self) -> dict[str, object]:
        """Metadata of the server."""
        return {"name": SERVER_NAME, "version": self.server_version, "extensions": self.extensions()}

    def extensions(self) -> list[str]:
        """What is offered beyond the protocol itself, in Triton's names."""
        control = self._scoring.control
        return sorted([*_ALWAYS, *(["model_repository"] if control is not None and control.offered else [])])

    def live(self) -> bool:
        """This worker answers."""
        return self._scoring.state != "stuck"

    def ready(self) -> bool:
        """It also scores."""
        return self._scoring.state == "ready"

    def model_ready(self, model: str, version: str | None) -> bool:
        """Whether one model can be scored now; one that is still loading is known and not ready. Raises UnknownModel…"""
        self._scoring.check_known(model, version)
        return self._scoring.models.find(model, version) is not None and self.ready()

    def model(self, model: str, version: str | None) -> dict[str, object]:
        """Inputs and outputs of a model. Raises UnknownModel, UnknownModelVersion or NotReady."""
        found = self._scoring.model(model, version)
        said: dict[str, object] = {
            "name": found.name,
            "versions": self._scoring.versions(model),
            "platform": PLATFORM,
            "inputs": found.inputs,
            "outputs": found.outputs,
        }
        # Of models in stages: what each of them runs on here.
        return said | {"parameters": found.parameters} if found.parameters else said

    def config(self, model: str, version: str | None) -> dict[str, object]:
        """A model's configuration in Triton's words. Raises UnknownModel, UnknownModelVersion or NotReady."""
        lane = self._scoring.lane(model, version)
        most_rows = lane.most_rows
        return {
            "name": lane.model.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": most_rows,
            "input": _config_tensors(lane.model.inputs, batched=most_rows > 0),
            "output": _config_tensors(lane.model.outputs, batched=most_rows > 0),
        }

    def statistics(self, model: str | None, version: str | None) -> list[ModelStats]:
        """Of all models, of all versions of one, or of one version. Raises UnknownModel or UnknownModelVersion."""
        if model is not None:
            self._scoring.check_known(model, version)
        lanes = [
            lane
            for lane in self._scoring.models.ready()
            if model in (None, lane.model.name) and version in (None, lane.model.version)
        ]
        return [model_stats(self._board, lane.key, self._ended_ms(lane.ended_at)) for lane in lanes]

    def _ended_ms(self, ended_at: float) -> int:
        return self._wall_ms() - round((perf_counter() - ended_at) * 1000) if ended_at else 0


def _config_tensors(specs: Sequence[TensorSpec], *, batched: bool) -> list[dict[str, object]]:
    """Triton leaves the rows out of the lengths of a model that takes batches."""
    return [
        {
            "name": spec.name,
            "data_type": "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}",
            "dims": spec.shape[1:] if batched else spec.shape,
        }
        for spec in specs
    ]
