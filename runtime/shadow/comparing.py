"""When two answers to one request are the same. Pure; numbers by tolerance, everything else when it is equal.

An answer is read as what it says it is: JSON, JSON with binary tensors behind it (Open Inference Protocol), or bytes. Of an
infer answer only the outputs count: the name and version of the model differ because they should.
"""

from __future__ import annotations

import json
import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

HEADER_LENGTH = "inference-header-content-length"
# Type codes of struct and array, little-endian data. FP16 has none in array.
_CODES = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_DETAIL_CHARS = 200


@dataclass(frozen=True)
class Answer:
    """An answer as it came, unpacked. ``json_bytes``: how long the JSON before binary tensors is, None without any."""

    status: int
    body: bytes
    json_bytes: int | None = None


@dataclass(frozen=True)
class Tolerance:
    """Two numbers are the same when ``abs(a - b) <= atol + rtol * abs(b)``; b is the module's, a the shadow's."""

    rtol: float
    atol: float

    def same(self, a: float, b: float) -> bool:
        try:
            gap = abs(a - b)
            return a == b or (math.isfinite(gap) and gap <= self.atol + self.rtol * abs(b)) or (a != a and b != b)
        except OverflowError:
            # A whole number that no float can hold beside a float.
            return False


@dataclass(frozen=True)
class Comparison:
    """``detail`` says where the answers differ first, "" when they are the same. ``worst``: the largest difference of numbers."""

    detail: str = ""
    worst: float | None = None


def compare(module: Answer, shadow: Answer, route: str, tolerance: Tolerance) -> Comparison:
    """Both statuses are below 500. Never raises, whatever stands in the answers."""
    if module.status != shadow.status:
        return Comparison(f"status {shadow.status}, the module's is {module.status}")
    if module.status >= 400 or module.body == shadow.body:
        # Refused alike: in which words does not matter.
        return Comparison(worst=None if module.status >= 400 else 0.0)
    walk = _Walk(tolerance)
    try:
        theirs, ours = _value(module, route), _value(shadow, route)
        if theirs is None or ours is None:
            return Comparison("its bytes are others")
        walk.compare(ours[0], theirs[0], "")
    except (RecursionError, ValueError, TypeError, KeyError, AttributeError, struct.error, msgspec.MsgspecError):
        return Comparison("its bytes are others, and one of the two is no answer of its kind")
    return Comparison(walk.detail[:_DETAIL_CHARS], walk.worst)


def _value(answer: Answer, route: str) -> tuple[object] | None:
    """What an answer means, None for what is no JSON."""
    if answer.json_bytes is not None:
        return (_outputs(answer.body[: answer.json_bytes], answer.body[answer.json_bytes :]),)
    try:
        value = _read(answer.body)
    except ValueError:
        return None
    if route == "infer" and isinstance(value, dict) and "outputs" in value:
        return (_by_name(value["outputs"]),)
    return (value,)


def _read(text: bytes | str) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        # NaN and infinities, which scripts answer with.
        return json.loads(text)


def _by_name(outputs: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    return {output["name"]: {key: output.get(key) for key in ("datatype", "shape", "data")} for output in outputs}


def _outputs(head: bytes, binary: bytes) -> dict[str, object]:
    document = msgspec.json.decode(head, type=dict[str, Any])
    outputs, at = [], 0
    for output in document.get("outputs", []):
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            output = {**output, "data": _tensor(output["datatype"], binary[at : at + size])}
            at += size
        outputs.append(output)
    return _by_name(outputs)


def _tensor(datatype: str, data: bytes) -> Sequence[object]:
    """Raises KeyError, ValueError or struct.error for what is no such tensor."""
    if datatype == "BOOL":
        return [bool(item) for item in data]
    if datatype == "BYTES":
        return _texts(data)
    code = _CODES[datatype]
    if code == "e":
        return struct.unpack(f"<{len(data) // 2}e", data)
    values = array(code)
    values.frombytes(data)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values.byteswap()
    return values


def _texts(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


class _Walk:
    """Goes through two values at once. ``detail`` is the first difference, ``worst`` the largest of two numbers."""

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self.detail = ""
        self.worst: float | None = None

    def compare(self, ours: object, theirs: object, place: str) -> None:
        """Numbers are compared to the end, for the worst of them; the rest until something differs."""
        if _is_number(ours) and _is_number(theirs):
            self._numbers(ours, theirs, place)  # type: ignore[arg-type]  # numbers, as was just found
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            self._mappings(ours, theirs, place)
        elif _is_list(ours) and _is_list(theirs):
            self._lists(ours, theirs, place)  # type: ignore[arg-type]  # sequences, as was just found
        elif isinstance(ours, str) and isinstance(theirs, str):
            self._strings(ours, theirs, place)
        elif type(ours) is not type(theirs) or ours != theirs:
            self._differ(ours, theirs, place)

    def _numbers(self, ours: float, theirs: float, place: str) -> None:
        try:
            gap = abs(float(ours) - float(theirs))
        except OverflowError:
            gap = math.inf
        if math.isfinite(gap) and (self.worst is None or gap > self.worst):
            self.worst = gap
        if not self._tolerance.same(ours, theirs):
            self._differ(ours, theirs, place)

    def _mappings(self, ours: Mapping[Any, object], theirs: Mapping[Any, object], place: str) -> None:
        if ours.keys() != theirs.keys():
            self._say(place, f"it has {_names(ours)}, the module's answer {_names(theirs)}")
        for key in theirs:
            if key in ours:
                self.compare(ours[key], theirs[key], f"{place}.{key}")

    def _lists(self, ours: Sequence[object], theirs: Sequence[object], place: str) -> None:
        if len(ours) != len(theirs):
            self._say(place, f"it has {len(ours)} items, the module's answer {len(theirs)}")
            return
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            # Equal numbers are most of all; the place is only spelled out where it is needed.
            if one != other or type(one) is not type(other) or _is_list(one) or isinstance(one, Mapping):
                self.compare(one, other, f"{place}[{number}]")
            elif self.worst is None and _is_number(one):
                self.worst = 0.0

    def _strings(self, ours: str, theirs: str, place: str) -> None:
        if ours == theirs:
            return
        # Scripts like to answer with a text that is JSON.
        if ours[:1] in ("{", "[") and theirs[:1] in ("{", "["):
            try:
                inner = _read(ours), _read(theirs)
            except ValueError:
                pass
            else:
                self.compare(*inner, place)
                return
        self._differ(ours, theirs, place)

    def _differ(self, ours: object, theirs: object, place: str) -> None:
        if not self.detail:
            self._say(place, f"{_shown(ours)}, the module's is {_shown(theirs)}")

    def _say(self, place: str, text: str) -> None:
        if not self.detail:
            self.detail = f"{place.lstrip('.')}: {text}" if place else text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | array)


def _names(value: Mapping[Any, object]) -> str:
    return ", ".join(sorted(str(key) for key in value))[:60] or "nothing"


def _shown(value: object) -> str:
    return repr(value)[:40]
