"""Calls of Triton's gRPC client to a scoring server, for tests."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

from tests.scoring_server import ScoringServer

Answer = tuple[Any, Any]


def address(server: ScoringServer) -> str:
    return str(server.ready["grpc_address"])


def filled(name: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def pair(number: float) -> Any:
    """An input for the model that echoes."""
    return filled("x", np.array([[number, -number]], np.float32), "FP32")


def raw_request(model: str, name: str, array: np.ndarray[Any, Any], datatype: str, **more: str) -> Any:
    """A ModelInferRequest for a bare stub."""
    request = service_pb2.ModelInferRequest(model_name=model, **more)
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


@contextmanager
def stream(client: Any, **options: Any) -> Iterator[queue.Queue[Answer]]:
    """An open stream; results and errors come into the queue."""
    answers: queue.Queue[Answer] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), **options)
    try:
        yield answers
    finally:
        client.stop_stream()
