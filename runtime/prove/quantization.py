"""Which operators a model has, and whether those that compute do so in 8-bit integers. Read from the file, nothing is run.

The form that accelerators take (QDQ): every value that goes into a convolution or a matrix product comes out of a
DequantizeLinear of 8-bit integers, so that a compiler can fuse the pairs around it into one integer operator.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from runtime.models.rows.graph import INT8, UINT8, Graph, Node, TooLarge, read_program

_COMPUTE = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# Their first two inputs are data and weights; a bias is 32 bits wide by rule.
_OPERANDS = 2
_MOST_NAMED = 20
# A zero point that is left out is one of type UINT8.
_WITHOUT_ZERO_POINT = UINT8


@dataclass(frozen=True)
class NodeFacts:
    """``operators``: how many nodes of each, {} when the graph is too large to look at. ``compute`` counts convolutions and
    matrix products; ``not_quantized`` names those (by what they make, at most twenty) whose operands are not 8-bit integers.
    """

    operators: dict[str, int]
    compute: int
    not_quantized: list[str]


def node_facts(file: Path) -> NodeFacts:
    """Of the graph itself; what stands inside an If, Loop or Scan is not among them. Never raises for an ONNX file."""
    try:
        graph = read_program(file).graph
    except (TooLarge, OSError, ValueError, IndexError, struct.error):
        return NodeFacts({}, 0, [])
    makers = {name: node for node in graph.nodes for name in node.outputs}
    compute = [node for node in graph.nodes if node.operator in _COMPUTE]
    plain = [node for node in compute if not all(_is_quantized(name, makers, graph) for name in node.inputs[:_OPERANDS])]
    named = [node.outputs[0] if node.outputs else node.operator for node in plain[:_MOST_NAMED]]
    return NodeFacts(dict(sorted(Counter(node.operator for node in graph.nodes).items())), len(compute), named)


def _is_quantized(name: str, makers: dict[str, Node], graph: Graph) -> bool:
    maker = makers.get(name)
    return maker is not None and maker.operator == "DequantizeLinear" and _kind(maker, makers, graph) in (UINT8, INT8)


def _kind(dequantize: Node, makers: dict[str, Node], graph: Graph) -> int:
    """The type of the integers that it takes: its zero point's, or of what it reads."""
    source = dequantize.inputs[0] if dequantize.inputs else ""
    read = graph.constants.get(source)
    for kind in (_constant(dequantize, 2, graph), None if read is None else read.kind):
        if kind is not None:
            return kind
    quantize = makers.get(source)
    if quantize is not None and quantize.operator == "QuantizeLinear" and len(quantize.inputs) > 2:
        return _constant(quantize, 2, graph) or 0
    return _WITHOUT_ZERO_POINT


def _constant(node: Node, place: int, graph: Graph) -> int | None:
    found = graph.constants.get(node.inputs[place]) if len(node.inputs) > place else None
    return None if found is None else found.kind
