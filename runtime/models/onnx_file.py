"""Reads an ONNX file's own facts without loading it: IR version, opsets, and whether it reaches outside its folder.

onnxruntime tells neither the opsets nor the external files from Python, and older ones follow a path out of the model's
folder. The file is a protobuf; the few messages that matter are walked here, so nothing is trusted before it is checked.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from runtime.models.errors import ModelUnsafe, ModelUnusable
from runtime.models.protobuf import fields, number, text

_DEEPEST = 100
# Message -> field number -> message inside it: every way from a model to a tensor, and to a node's operator.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
_NODE_OPERATOR, _TENSOR_EXTERNAL = 4, 13
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 1, 7, 8, 25
_GRAPH_NODE, _NODE_DOMAIN = 1, 7
# Listing more nodes would take longer than what the list is for is worth: such a model takes no microseconds.
_MOST_NODES = 500


@dataclass
class OnnxFacts:
    """What a file says about itself. ``external`` are paths as written in it; ``compiled`` marks EPContext blobs.

    ``operators`` are those of the graph itself, ``domain::Name`` outside ONNX's own domain; None when it has functions of its own
    or more nodes than are worth a list. What stands inside an If, Loop or Scan is not among them.
    """

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)
    compiled: bool = False
    operators: frozenset[str] | None = None


def read_facts(file: Path, model: str) -> OnnxFacts:
    """Raises ModelUnusable when ``file`` is missing or no ONNX protobuf."""
    try:
        with file.open("rb") as opened:
            # Never closed by hand: slices of it may still be held by an exception; it goes when they go.
            facts = _read(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not an ONNX file"
        raise ModelUnusable(model=model, file=file, problem=reason) from None
    if not facts.ir_version or not facts.opsets:
        raise ModelUnusable(model=model, file=file, problem="it is not an ONNX file")
    return facts


def check_safe(facts: OnnxFacts, file: Path, model: str) -> None:
    """Raises ModelUnsafe when the model would read a file outside its own folder, or carries code compiled elsewhere."""
    if facts.compiled:
        raise ModelUnsafe(model=model, problem="it holds a compiled EPContext blob")
    folder = file.resolve().parent
    for location in sorted(facts.external):
        if Path(location).is_absolute() or not (folder / location).resolve().is_relative_to(folder):
            raise ModelUnsafe(model=model, problem=f"its data file {location!r} lies outside its folder")


def _read(content: mmap.mmap) -> OnnxFacts:
    facts = OnnxFacts()
    view = memoryview(content)
    for place, value in fields(view):
        if place == _MODEL_IR_VERSION and isinstance(value, int):
            facts.ir_version = value
        elif place == _MODEL_OPSET and isinstance(value, memoryview):
            opset = dict(fields(value))
            facts.opsets[text(opset.get(1))] = number(opset.get(2))
    facts.operators = _operators(view)
    # Both marks stand in the file as plain bytes wherever they are used; without them the long walk finds nothing.
    if content.find(b"location") >= 0 or content.find(b"EPContext") >= 0:
        _walk(view, "model", facts, 0)
    return facts


def _operators(view: memoryview) -> frozenset[str] | None:
    """One level deep, so that attributes (a tree has megabytes of them) are stepped over."""
    found: set[str] = set()
    nodes = 0
    for place, value in fields(view):
        if place == _MODEL_FUNCTION:
            return None
        if place != _MODEL_GRAPH or not isinstance(value, memoryview):
            continue
        for kind, node in fields(value):
            if kind != _GRAPH_NODE or not isinstance(node, memoryview):
                continue
            nodes += 1
            if nodes > _MOST_NODES:
                return None
            found.add(_operator(node))
    return frozenset(found)


def _operator(node: memoryview) -> str:
    name = domain = ""
    for place, value in fields(node):
        if place == _NODE_OPERATOR and isinstance(value, memoryview):
            name = text(value)
        elif place == _NODE_DOMAIN and isinstance(value, memoryview):
            domain = text(value)
    return name if domain in ("", "ai.onnx", "ai.onnx.ml") else f"{domain}::{name}"


def _walk(view: memoryview, message: str, facts: OnnxFacts, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    children = _CHILDREN[message]
    for place, value in fields(view):
        if not isinstance(value, memoryview):
            continue
        if place in children:
            _walk(value, children[place], facts, depth + 1)
        elif message == "node" and place == _NODE_OPERATOR:
            facts.compiled = facts.compiled or text(value) == "EPContext"
        elif message == "tensor" and place == _TENSOR_EXTERNAL:
            entry = dict(fields(value))
            if text(entry.get(1)) == "location":
                facts.external.add(text(entry.get(2)))
