"""Messages of scoring calls as values, for collected data: the same documents that REST's JSON would have been. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from runtime.grpc.contents import FIELDS, Message
from runtime.observing.collecting import binary_values


class MessageReader:
    """Reads the bodies that calls.py gave its exchanges. ``classes`` are messages.py's, by name."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._request, self._response = classes["ModelInferRequest"], classes["ModelInferResponse"]

    def asked(self, body: bytes) -> object:
        """A ModelInferRequest."""
        message = self._request.FromString(body)
        document: dict[str, object] = {"id": message.id} if message.id else {}
        try:
            document["inputs"] = _tensors(message.inputs, message.raw_input_contents)
        except (KeyError, ValueError):
            # Bytes that are no such tensor: the request was refused for them.
            return {"base64": base64.b64encode(body).decode()}
        if message.outputs:
            document["outputs"] = [{"name": wanted.name} for wanted in message.outputs]
        return document

    def answered(self, body: bytes) -> object:
        """A ModelInferResponse."""
        message = self._response.FromString(body)
        document: dict[str, object] = {"model_name": message.model_name, "model_version": message.model_version}
        if message.id:
            document["id"] = message.id
        return {**document, "outputs": _tensors(message.outputs, message.raw_output_contents)}


def _tensors(tensors: Any, raw: Any) -> list[dict[str, object]]:  # noqa: ANN401 - protobuf has no types
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "data": binary_values(tensor.datatype, raw[place]) if place < len(raw) else _typed(tensor),
        }
        for place, tensor in enumerate(tensors)
    ]


def _typed(tensor: Message) -> list[object]:
    values = getattr(tensor.contents, FIELDS[tensor.datatype])
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
