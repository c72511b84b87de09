"""One node with what flows into it: what the rule of an operator is asked with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from runtime.models.rows.flows import Flow, mixed, unknown
from runtime.models.rows.graph import Node


class Step(NamedTuple):
    """``inputs``: None where one is left out. ``opset``: the version of the operator's own set."""

    node: Node
    inputs: tuple[Flow | None, ...]
    opset: int

    @property
    def name(self) -> str:
        return self.node.operator.rpartition("::")[2]

    def input(self, place: int) -> Flow | None:
        return self.inputs[place] if place < len(self.inputs) else None

    @property
    def given(self) -> list[Flow]:
        return [flow for flow in self.inputs if flow is not None]

    def numbers(self, place: int, attribute: str) -> list[int] | None:
        """Whole numbers that newer operators take as an input and older ones as an attribute; None: not given, or not fixed."""
        flow = self.input(place)
        return self.node.wholes(attribute) if flow is None else flow.fixed_items()

    def lacks(self, place: int, attribute: str) -> bool:
        """Whether neither of the two was given."""
        return self.input(place) is None and attribute not in self.node.given

    def mixes(self, how: str = "takes rows together") -> Flow:
        return mixed(f"{self.name} {how}")

    def unsure(self, what: str) -> Flow:
        return unknown(f"{self.name} {what}")

    def only_first(self) -> Flow | None:
        """None when the first input alone depends on rows; otherwise what that makes of the answer."""
        if any(flow.carries for flow in self.given[1:]):
            return self.unsure("takes what rows decide as a setting of its own")
        return None


# The flows of a node's outputs in order; those that are not given are not known.
Answer = Flow | Sequence[Flow]
Rule = Callable[[Step], Answer]


def axis_of(axis: int, rank: int) -> int:
    """Counted from the left."""
    return axis + rank if axis < 0 else axis
