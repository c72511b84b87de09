"""Model data collection: sampled requests and their answers, with ids and time stamps, into files.

    sent()      on the loop: draw, and put what is needed into a bounded queue
    _store()    on a thread: bodies become values, values records (the shape of Azure ML's ``model_data_collection``)

Headers are never kept: they carry keys. What finds no room is dropped and counted by what was too small.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import msgspec
import numpy as np

from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError
from runtime.exchange import KEPT_BYTES, Exchange, Response
from runtime.front.compression import encoding_of, unpacked
from runtime.observing.collected_files import CollectedFiles, Record
from runtime.observing.outbox import Outbox
from runtime.oip.binary import HEADER_LENGTH
from runtime.tensors import DTYPES
from runtime.timestamps import utc_text

_log = logging.getLogger("hedgerow.runtime.observing")

_MOST_WAITING = 8192
_MOST_WAITING_BYTES = 64 * 1024 * 1024
_LARGEST_RECORD = KEPT_BYTES


@dataclass(frozen=True)
class Origin:
    """What every record says of where it comes from."""

    workspace: str
    service: str
    container: str

    @classmethod
    def here(cls, workspace: str, service: str) -> Origin:
        return cls(workspace, service, socket.gethostname())


class Sampled(msgspec.Struct, frozen=True):
    """One request that was drawn. ``answered_at`` is perf_counter's."""

    answered_at: float
    took_s: float
    route: str
    status: int
    request_id: str
    client_request_id: str
    traceparent: str
    model: tuple[str, str] | None
    body: bytes
    answer: bytes
    body_json_bytes: int | None
    answer_json_bytes: int | None
    answer_encoding: str
    streamed: bool


class BodyReader(Protocol):
    """Makes values of the bodies of a route whose requests are no JSON (grpc/documents.py)."""

    def asked(self, body: bytes) -> object: ...

    def answered(self, body: bytes) -> object: ...


class Collecting:
    """A witness of front/door.py. ``count(name, reason)`` counts a record written (reason empty) or dropped.

    ``readers`` are by route; without one, bodies are REST's.
    """

    def __init__(
        self,
        files: CollectedFiles,
        origin: Origin,
        clock: Clock,
        count: Callable[[str, int], None],
        *,
        sample: float,
        file_bytes: int,
    ) -> None:
        self._files, self._origin, self._clock, self._count = files, origin, clock, count
        self._sample = sample
        self._largest = min(file_bytes // 2, _LARGEST_RECORD)
        self._failing = False
        self.readers: dict[str, BodyReader] = {}
        self._outbox: Outbox[Sampled] = Outbox(
            "collecting", self._store, lambda: count("queue", 1), most_items=_MOST_WAITING, most_bytes=_MOST_WAITING_BYTES
        )

    def start(self) -> None:
        self._outbox.start()

    def stop(self) -> None:
        """Write what is left."""
        self._outbox.stop()
        self._guarded(self._files.flush, 0)

    def sent(self, exchange: Exchange, response: Response) -> None:
        """On the loop, for every answer. Only what was scored is kept: that a body was no JSON is for the log."""
        if exchange.work is None or random.random() >= self._sample:  # noqa: S311 - chance, not a secret
            return
        request = exchange.request
        headers = request.headers
        size_bytes = exchange.body_bytes + len(response.body)
        if size_bytes > self._largest:
            self._count("size", 1)
            return
        sampled = Sampled(
            perf_counter(),
            perf_counter() - exchange.started_at,
            exchange.route,
            response.status,
            exchange.request_id or response.headers.get("x-request-id") or headers.get("x-request-id", ""),
            headers.get("x-ms-client-request-id", ""),
            headers.get("traceparent", ""),
            exchange.model,
            # A GET's values stand in its query.
            request.body or request.query.encode(),
            response.body,
            _length(headers),
            _length(response.headers),
            response.headers.get("content-encoding", ""),
            bool(exchange.streamed_bytes),
        )
        self._outbox.put(sampled, size_bytes)

    def _store(self, sampled: Sequence[Sampled]) -> None:
        epoch_s = self._clock.now().timestamp() - perf_counter()
        records = [_record(one, self._origin, epoch_s, self.readers.get(one.route)) for one in sampled]
        # Also without any: a Parquet file that is old enough is written then.
        self._guarded(lambda: self._files.write(records), len(records))

    def _guarded(self, step: Callable[[], None], records: int) -> None:
        try:
            step()
        except OSError as problem:
            self._count("disk", records)
            if not self._failing:
                _log.error("collected data is lost: %s", problem)
            self._failing = True
        else:
            self._count("", records)
            self._failing = self._failing and not records


def _record(sampled: Sampled, origin: Origin, epoch_s: float, reader: BodyReader | None) -> Record:
    return {
        "Timestamp": utc_text(epoch_s + sampled.answered_at),
        "Container Id": origin.container,
        "Request Id": sampled.request_id,
        "Client Request Id": sampled.client_request_id,
        "Trace Id": sampled.traceparent[3:35],
        "Workspace Name": origin.workspace,
        "Service Name": origin.service,
        "Models": [f"{sampled.model[0]}:{sampled.model[1]}"] if sampled.model is not None else [],
        "Route": sampled.route,
        "Status": sampled.status,
        "Duration Ms": round(sampled.took_s * 1000, 3),
        "Input": _asked(sampled, reader),
        "Prediction": _answered(sampled, reader),
    }


def _asked(sampled: Sampled, reader: BodyReader | None) -> object:
    return readable(sampled.body, sampled.body_json_bytes, "inputs") if reader is None else reader.asked(sampled.body)


def _answered(sampled: Sampled, reader: BodyReader | None) -> object:
    if sampled.streamed:
        return None
    # What went wrong is told in JSON everywhere.
    if reader is None or sampled.status != 200:
        return readable(_plain(sampled), sampled.answer_json_bytes, "outputs")
    return reader.answered(sampled.answer)


def _plain(sampled: Sampled) -> bytes:
    """The answer as it was before it was packed for its caller."""
    try:
        encoding = encoding_of(sampled.answer_encoding)
        return unpacked(sampled.answer, encoding, _LARGEST_RECORD) if encoding is not None else sampled.answer
    except HedgerowError:
        # A script's own answer may call itself what it is not.
        return sampled.answer


def readable(body: bytes, json_bytes: int | None, tensors: str) -> object:
    """A body as values: JSON, JSON with binary tensors behind it (then ``tensors`` names their list), text, or base64."""
    if json_bytes is not None:
        return _with_tensors(body, json_bytes, tensors)
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # NaN and infinities, which this side's JSON knows and the files' does not.
        return json.loads(body, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _with_tensors(body: bytes, json_bytes: int, tensors: str) -> object:
    try:
        document: dict[str, Any] = msgspec.json.decode(body[:json_bytes], type=dict)
        at = json_bytes
        for tensor in document.get(tensors, []):
            size = tensor.get("parameters", {}).pop("binary_data_size", None)
            if size is not None:
                tensor["data"] = binary_values(tensor["datatype"], body[at : at + size])
                at += size
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError):
        return {"base64": base64.b64encode(body).decode()}
    return document


def binary_values(datatype: str, data: bytes) -> list[object]:
    """The values of a binary tensor. Raises KeyError or ValueError where it is none."""
    if datatype != "BYTES":
        flat: list[object] = np.frombuffer(data, DTYPES[datatype].newbyteorder("<")).tolist()  # type: ignore[index]  # KeyError is caught
        return flat
    texts: list[object] = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : end].decode("utf-8", "replace"))
        at = end
    return texts


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get(HEADER_LENGTH)
    # Whoever scored has checked it only where it means something; Python refuses to read thousands of digits.
    return int(text) if text is not None and len(text) < 20 and text.isascii() and text.isdigit() else None
