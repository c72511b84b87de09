"""Operators that work value by value: shapes are aligned from the right, and so must the rows be."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.models.rows.flows import Flow, Shape, mixed, none, rows, unknown, worst
from runtime.models.rows.lengths import ONE, ZERO, Length, product, same, unknown_length, unknown_number
from runtime.models.rows.step import Step, axis_of

_FLOAT, _INT32, _INT64, _BOOL, _DOUBLE = 1, 6, 7, 9, 11


def elementwise(step: Step) -> Flow:
    """Any number of inputs, spread over each other."""
    return spread_over(step, step.given)


def lengths(step: Step) -> Flow:
    """The same, for operators with which lengths are reckoned."""
    items = _items(step)
    shape = broadcast([flow.shape for flow in step.given])
    # A column beside a row makes a table, of more values than either has.
    if items is not None and shape is not None and product(shape) == Length(len(items)) and not worst(step.given):
        return none(shape, items)
    return spread_over(step, step.given)


def passes(step: Step) -> Flow:
    """Identity, which lengths and numbers of rows pass through as well."""
    return step.given[0]


def cast(step: Step) -> Flow:
    """Whole numbers stay what they are, except as booleans and as text."""
    flow = step.given[0]
    to = step.node.whole("to", 0)
    # Only these hold every number of rows that there may be.
    if to in (_FLOAT, _INT32, _INT64, _DOUBLE) or (flow.items is None and flow.kind not in ("number", "numbered")):
        # A part of something may be rounded on the way: from here on it is another number.
        return flow._replace(items=tuple([item if item.sure else unknown_number([item]) for item in flow.items or ()]) or None)
    if to == _BOOL and flow.items is not None:
        return none(flow.shape, [_truth(item) for item in flow.items])
    if flow.carries:
        return step.mixes("takes the place of a row in its batch for a value")
    return step.unsure("reckons with the number of rows") if flow.tells_rows else none(flow.shape)


def dropout(step: Step) -> list[Flow]:
    """Before opset 12 it does nothing but in training; then an input says which it is."""
    training = step.input(2)
    flow = step.given[0]
    if training is not None and training.fixed_items() != [0]:
        made = step.mixes("in training drops values at random") if training.fixed_items() else step.unsure("may be in training")
        return [made, made]
    return [flow, _like(flow)]


def scaled(step: Step) -> Flow:
    """QuantizeLinear, DequantizeLinear with a scale that no row decides: one for all, or for places along another axis."""
    flow, scale = step.given[0], step.given[1]
    if refused := step.only_first():
        return refused
    if not flow.carries or flow.kind != "rows" or flow.shape is None:
        return none(flow.shape) if not flow.carries else step.mixes("takes the place of a row in its batch for a value")
    single = scale.shape is not None and all(length == ONE for length in scale.shape)
    if not single and (step.node.whole("block_size", 0) or axis_of(step.node.whole("axis", 1), len(flow.shape)) == flow.axis):
        return step.unsure("has a scale of its own for each place in the batch")
    return rows(flow.shape, flow.axis)


def random(step: Step) -> Flow:
    """Nobody's answer is the same twice."""
    return step.mixes("is random")


def _like(flow: Flow) -> Flow:
    return Flow(flow.kind if flow.bad or flow.carries else "none", flow.shape, flow.axis, why=flow.why)


def spread_over(step: Step, flows: Sequence[Flow]) -> Flow:
    """The flow of inputs that are aligned from the right."""
    shape = broadcast([flow.shape for flow in flows])
    if found := worst(flows):
        return mixed(found.why, shape) if found.kind == "mixed" else unknown(found.why, shape)
    if any(flow.tells_rows for flow in flows):
        return unknown(f"{step.name} reckons with the number of rows", shape)
    carriers = [flow for flow in flows if flow.carries]
    if not carriers:
        return none(shape)
    if shape is None:
        return step.unsure("has inputs of unknown shape")
    if len({flow.from_right for flow in carriers}) > 1:
        return mixed(f"{step.name} sets each row against each other row", shape)
    if any(flow.kind != "rows" for flow in carriers):
        return mixed(f"{step.name} takes the place of a row in its batch for a value", shape)
    return _aligned(step, flows, carriers[0], shape)


def _aligned(step: Step, flows: Sequence[Flow], carrier: Flow, shape: Shape) -> Flow:
    place = carrier.from_right
    along = (carrier.shape or ())[carrier.axis]
    for flow in flows:
        there = (flow.shape or ())[::-1]
        if place >= len(there):
            continue
        if flow.carries:
            if there[place] != along:
                return unknown(f"{step.name} joins rows of different sizes", shape)
        elif there[place] != ONE:
            return unknown(f"{step.name} has a value of its own for each place in the batch", shape)
    axis = len(shape) - 1 - place
    return rows([*shape[:axis], along, *shape[axis + 1 :]], axis)


def broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    """Their common shape; lengths that cannot be told are new ones."""
    found: list[Length] = []
    if not shapes or any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    for place in range(max(len(shape) for shape in known)):
        lengths_here = {shape[-1 - place] for shape in known if place < len(shape)} - {ONE}
        found.append(_common(lengths_here))
    return tuple(reversed(found))


def _common(found: set[Length]) -> Length:
    if len(found) <= 1:
        return next(iter(found), ONE)
    # Whatever is not 1 has to be the same; a length that is told apart from a name is that one.
    fixed = [length for length in found if length.fixed is not None]
    return fixed[0] if fixed else unknown_length(found)


# Whole numbers, one by one -------------------------------------------------------------------------------------------


def _items(step: Step) -> list[Length] | None:
    columns = [flow.items for flow in step.given]
    size = max((len(column) for column in columns if column is not None), default=0)
    if any(column is None or len(column) not in (1, size) for column in columns) or not size:
        return None
    spread = [column if len(column) == size else column * size for column in columns if column is not None]
    return [_reckon(step.name, list(one)) for one in zip(*spread, strict=True)]


def _reckon(name: str, values: list[Length]) -> Length:
    if name == "Where":
        known = same(values[0], ZERO)
        return unknown_number(values) if known is None else values[2] if known else values[1]
    if name == "Not":
        return _truth(values[0], turned=True)
    if name == "Neg":
        return values[0].negative()
    left, right = values[0], values[-1]
    if len(values) != 2:
        return left if len(values) == 1 else unknown_number(values)
    return _pair(name, left, right)


def _pair(name: str, left: Length, right: Length) -> Length:
    if name == "Equal":
        known = same(left, right)
        return unknown_number((left, right)) if known is None else Length(1 if known else 0)
    if name in ("Add", "Sub"):
        return left.plus(right if name == "Add" else right.negative())
    if name == "Mul":
        return left.times(right)
    if name == "Div":
        return left.over(right) or unknown_number((left, right), f"({left}/{right})")
    if name in ("Max", "Min") and left.fixed is not None and right.fixed is not None:
        return Length(max(left.fixed, right.fixed) if name == "Max" else min(left.fixed, right.fixed))
    return unknown_number((left, right))


def _truth(value: Length, *, turned: bool = False) -> Length:
    zero = same(value, ZERO)
    return unknown_number([value]) if zero is None else Length(1 if zero == turned else 0)
