"""Reads the graph out of an ONNX file: nodes in order, the shapes of its constants and the small whole numbers among them.

Large things (weights, trees) are stepped over; an attribute is read only when a rule asks for it. ``place`` is a field's number
in onnx.proto, whichever message is read.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runtime.models.protobuf import Payload, fields, number, signed, text, whole_numbers

# Shapes, axes and steps have few values; more are data.
_MOST_ITEMS = 64
_MOST_FRACTIONS = 8
# Beyond this a look would take longer than a model's load may.
MOST_NODES = 20_000
UINT8, INT8 = 2, 3
_FLOAT, _INT32, _INT64, _BOOL, _DOUBLE = 1, 6, 7, 9, 11
_FORMATS = {_FLOAT: "f", UINT8: "B", INT8: "b", _INT32: "i", _INT64: "q", _BOOL: "?", _DOUBLE: "d"}
_OWN_DOMAINS = ("", "ai.onnx")


class TooLarge(Exception):
    """The graph has more nodes than are worth a look: verdict.py turns it into words, nobody else sees it."""


class Constant(NamedTuple):
    """``items``: its values, where they are few and plain numbers (None for a value that is not whole).

    ``kind``: the type of its elements as ONNX numbers them, 0 where it is not known.
    """

    shape: tuple[int, ...]
    items: tuple[int | None, ...] | None = None
    kind: int = 0


@dataclass(frozen=True)
class Node:
    """``operator``: with its domain, ``domain::Name``, outside ONNX's own. ``given``: bytes of its attributes, by name."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    given: dict[str, memoryview]

    def whole(self, name: str, default: int) -> int:
        """An attribute that is one whole number."""
        found = [signed(value) for place, value in self._parts(name) if place == 3 and isinstance(value, int)]
        return found[-1] if found else default

    def wholes(self, name: str) -> list[int] | None:
        """An attribute that is a list of whole numbers; None where it is not given."""
        if name not in self.given:
            return None
        return [one for place, value in self._parts(name) if place == 8 for one in whole_numbers(value)]

    def word(self, name: str, default: str) -> str:
        found = [text(value) for place, value in self._parts(name) if place == 4]
        return found[-1] if found else default

    def count(self, name: str) -> int:
        """How many numbers or words an attribute lists."""
        parts = self._parts(name)
        return sum(len(whole_numbers(value)) if place == 8 else place == 9 for place, value in parts)

    def tensor(self, name: str) -> Constant | None:
        found = [_constant(value)[1] for place, value in self._parts(name) if place == 5 and isinstance(value, memoryview)]
        return found[-1] if found else None

    def graph(self, name: str) -> Graph | None:
        found = [_graph(value) for place, value in self._parts(name) if place == 6 and isinstance(value, memoryview)]
        return found[-1] if found else None

    def _parts(self, name: str) -> list[tuple[int, Payload]]:
        return list(fields(self.given[name])) if name in self.given else []


@dataclass
class Graph:
    """``inputs`` with their shapes: None for a free length, and no list at all where the number of axes is not told."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: dict[str, list[int | None] | None] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


@dataclass
class Program:
    """A model: its graph, the version of each operator set by domain, and what its own functions are called."""

    graph: Graph = field(default_factory=Graph)
    opsets: dict[str, int] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)


def read_program(file: Path) -> Program:
    """Raises ValueError or OSError for what is no ONNX file, and TooLarge."""
    program = Program()
    with file.open("rb") as opened:
        view = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    for place, value in fields(view):
        if not isinstance(value, memoryview):
            continue
        if place == 7:
            program.graph = _graph(value)
        elif place == 8:
            opset = dict(fields(value))
            program.opsets[text(opset.get(1))] = number(opset.get(2))
        elif place == 25:
            function = {key: found for key, found in fields(value) if key in (1, 10)}
            program.functions.add(_operator(text(function.get(1)), text(function.get(10))))
    return program


def _graph(view: memoryview) -> Graph:
    graph = Graph()
    for place, value in fields(view):
        if not isinstance(value, memoryview):
            continue
        if place == 1:
            graph.nodes.append(_node(value))
            if len(graph.nodes) > MOST_NODES:
                raise TooLarge
        elif place == 5:
            name, constant = _constant(value)
            graph.constants[name] = constant
        elif place == 11:
            name, shape = _declared(value)
            graph.inputs[name] = shape
        elif place == 12:
            graph.outputs.append(_declared(value)[0])
        elif place == 15:
            name, constant = _sparse(value)
            graph.constants[name] = constant
    return graph


def _node(view: memoryview) -> Node:
    inputs, outputs, given = [], [], {}
    name = domain = ""
    for place, value in fields(view):
        if not isinstance(value, memoryview):
            continue
        if place == 1:
            inputs.append(text(value))
        elif place == 2:
            outputs.append(text(value))
        elif place == 4:
            name = text(value)
        elif place == 7:
            domain = text(value)
        elif place == 5:
            given[_name_of(value)] = value
    return Node(_operator(domain, name), tuple(inputs), tuple(outputs), given)


def _operator(domain: str, name: str) -> str:
    return name if domain in _OWN_DOMAINS else f"{domain}::{name}"


def _name_of(attribute: memoryview) -> str:
    """Its first field as a rule, so that megabytes behind it are not walked."""
    return next((text(value) for place, value in fields(attribute) if place == 1), "")


def _declared(view: memoryview) -> tuple[str, list[int | None] | None]:
    """Name and shape of an input or output; no shape for what is no tensor."""
    message = dict(fields(view))
    kind, name = message.get(2), text(message.get(1))
    tensor = dict(fields(kind)).get(1) if isinstance(kind, memoryview) else None
    shape = dict(fields(tensor)).get(2) if isinstance(tensor, memoryview) else None
    if not isinstance(shape, memoryview):
        return name, None
    lengths: list[int | None] = []
    for place, axis in fields(shape):
        if place == 1 and isinstance(axis, memoryview):
            length = dict(fields(axis)).get(1)
            lengths.append(length if isinstance(length, int) and length < 2**63 else None)
    return name, lengths


def _sparse(view: memoryview) -> tuple[str, Constant]:
    """Its name is that of its values."""
    name, shape = "", []
    for place, value in fields(view):
        if place == 1 and isinstance(value, memoryview):
            name = _constant(value)[0]
        elif place == 3:
            shape += whole_numbers(value)
    return name, Constant(tuple(shape))


def _constant(view: memoryview) -> tuple[str, Constant]:
    shape: list[int] = []
    plain: list[int] = []
    kind, name, raw = 0, "", None
    elsewhere = False
    for place, value in fields(view):
        if place == 1:
            shape += whole_numbers(value)
        elif place == 2:
            kind = number(value)
        elif place == 8:
            name = text(value)
        elif place == 9 and isinstance(value, memoryview):
            raw = value
        elif place in (13, 14):
            elsewhere = True
        elif place in (5, 7) and len(plain) <= _MOST_ITEMS and (isinstance(value, int) or len(value) <= 10 * _MOST_ITEMS):
            plain += whole_numbers(value)
    size = 1
    for length in shape:
        size *= length
    items = None if elsewhere or size > _MOST_ITEMS or kind not in _FORMATS else _items(kind, size, plain, view, raw)
    return name, Constant(tuple(shape), items, kind)


def _items(kind: int, size: int, plain: list[int], view: memoryview, raw: memoryview | None) -> tuple[int | None, ...] | None:
    code = _FORMATS[kind]
    if raw is None and code in "fd":
        packed = [value for place, value in fields(view) if place == (4 if code == "f" else 10) and isinstance(value, memoryview)]
        raw = packed[0] if len(packed) == 1 else None
        if raw is None and size:
            return None
    if raw is None:
        return tuple(plain) if len(plain) == size else None
    if len(raw) != size * struct.calcsize(f"<{code}"):
        return None
    items = tuple([_whole(value) for value in struct.unpack(f"<{size}{code}", raw)])
    # Fractions are weights or scales; where there are many, no length is among them.
    return items if size <= _MOST_FRACTIONS or None not in items else None


def _whole(value: float) -> int | None:
    return int(value) if -(2**63) <= value < 2**63 and int(value) == value else None
