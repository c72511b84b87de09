"""Operators that give a value another shape: the rows stay whole, in order, along one axis, or they are lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.models.rows.elementwise import spread_over
from runtime.models.rows.flows import Flow, Shape, by_shape, none, rows
from runtime.models.rows.lengths import ALL_ROWS, ONE, ROWS, ZERO, Length, product, unknown_length
from runtime.models.rows.step import Answer, Step, axis_of


def transpose(step: Step) -> Flow:
    flow = step.given[0]
    if flow.shape is None:
        return flow
    order = step.node.wholes("perm") or list(range(len(flow.shape)))[::-1]
    shape = [flow.shape[axis] for axis in order]
    if not flow.carries:
        return none(shape)
    if flow.kind == "numbered" and order[-1] != len(shape) - 1:
        return step.unsure("turns the numbers of rows")
    return Flow(flow.kind, tuple(shape), order.index(flow.axis))


def reshape(step: Step) -> Flow:
    flow, target = step.given[0], step.input(1)
    wanted = target.items if target is not None else _lengths(step.node.wholes("shape"))
    if wanted is None:
        if flow.carries:
            return step.unsure("takes a shape that is not known beforehand")
        rank = target.shape[0].fixed if target is not None and target.shape else None
        return none(None if rank is None else [unknown_length() for _ in range(rank)])
    if flow.shape is None:
        return none(_filled(wanted, ()))
    shape = _target(flow.shape, wanted, allow_zero=step.node.whole("allowzero", 0) == 1)
    return reshaped(step, flow, shape, filled_up=Length(-1) in wanted)


def flatten(step: Step) -> Flow:
    flow = step.given[0]
    if flow.shape is None:
        return none([unknown_length(), unknown_length()])
    axis = axis_of(step.node.whole("axis", 1), len(flow.shape))
    return reshaped(step, flow, (product(flow.shape[:axis]), product(flow.shape[axis:])))


def squeeze(step: Step) -> Flow:
    flow = step.given[0]
    if flow.shape is None:
        return flow
    axes = step.numbers(1, "axes")
    if axes is None:
        if not step.lacks(1, "axes") or any(length.fixed is None for length in flow.shape):
            return step.unsure("does not say which axes it takes away") if flow.carries else none(None, flow.items)
        axes = [place for place, length in enumerate(flow.shape) if length == ONE]
    gone = {axis_of(axis, len(flow.shape)) for axis in axes}
    if flow.carries and flow.axis in gone:
        return step.mixes("takes the axis of the rows away")
    if flow.kind == "numbered" and len(flow.shape) - 1 in gone:
        return step.unsure("turns the numbers of rows")
    left = [place for place in range(len(flow.shape)) if place not in gone]
    axis = left.index(flow.axis) if flow.carries else 0
    return Flow(flow.kind, tuple(flow.shape[place] for place in left), axis, flow.items)


def unsqueeze(step: Step) -> Flow:
    flow = step.given[0]
    axes = step.numbers(1, "axes")
    if flow.shape is None or axes is None:
        return step.unsure("does not say which axes it adds") if flow.carries else none(None, flow.items)
    rank = len(flow.shape) + len(axes)
    new = {axis_of(axis, rank) for axis in axes}
    if flow.kind == "numbered" and rank - 1 in new:
        return step.unsure("turns the numbers of rows")
    old = [place for place in range(rank) if place not in new]
    shape = [ONE] * rank
    for place, length in zip(old, flow.shape, strict=True):
        shape[place] = length
    return Flow(flow.kind, tuple(shape), old[flow.axis] if flow.carries else 0, flow.items)


def concat(step: Step) -> Flow:
    flows = step.given
    shapes = [flow.shape for flow in flows if flow.shape is not None]
    carriers = [flow for flow in flows if flow.carries]
    if len(shapes) < len(flows) or len({len(shape) for shape in shapes}) != 1:
        return step.unsure("has inputs of unknown shape") if carriers else none()
    axis = axis_of(step.node.whole("axis", 1), len(shapes[0]))
    along = _sum(shape[axis] for shape in shapes)
    shape = [*shapes[0][:axis], along, *shapes[0][axis + 1 :]]
    if not carriers:
        items = [flow.items for flow in flows]
        joined = [item for column in items if column is not None for item in column]
        return none(shape, joined if None not in items and len(shape) == 1 else None)
    first = carriers[0]
    if axis == first.axis and len(carriers) == 1 and all((one.shape or ())[axis] == ZERO for one in flows if one is not first):
        return first
    if any(one.axis != first.axis for one in carriers) or axis == first.axis:
        return step.mixes("puts rows and others one behind the other")
    if len(carriers) < len(flows) or len({one[first.axis] for one in shapes}) > 1:
        return step.unsure("joins rows with something of a fixed number of rows")
    if all(one.kind == "rows" for one in flows):
        return rows([*shape], first.axis)
    if first.kind == "number" and axis == len(shape) - 1 and all(one.kind == "rows" for one in flows[1:]):
        return Flow("numbered", tuple(shape), first.axis)
    return step.mixes("takes the place of a row in its batch for a value")


def split(step: Step) -> Answer:
    flow = step.given[0]
    count = len(step.node.outputs)
    if flow.shape is None:
        return [none() for _ in range(count)]
    axis = axis_of(step.node.whole("axis", 0), len(flow.shape))
    if flow.carries and (axis == flow.axis or flow.kind == "numbered"):
        return [step.mixes("cuts the rows apart")] * count
    sizes = _lengths(step.numbers(1, "split"))
    if sizes is None or len(sizes) != count:
        each = flow.shape[axis].over(Length(count)) if step.lacks(1, "split") else None
        sizes = [each or unknown_length() for _ in range(count)]
    pieces, at = [], 0
    for size in sizes:
        items = None
        if flow.items is not None and len(flow.shape) == 1 and size.fixed is not None:
            items, at = flow.items[at : at + size.fixed], at + size.fixed
        pieces.append(Flow(flow.kind, (*flow.shape[:axis], size, *flow.shape[axis + 1 :]), flow.axis, items))
    return pieces


def expand(step: Step) -> Flow:
    flow, target = step.given[0], step.input(1)
    wanted = target.items if target is not None else None
    if wanted is None or flow.shape is None:
        return step.unsure("takes a shape that is not known beforehand") if flow.carries or target_tells(target) else none()
    target_flow = by_shape(tuple(wanted), f"{step.name} sets each row against each other row")
    if flow.kind != "number":
        return spread_over(step, [flow, target_flow])
    made = spread_over(step, [flow._replace(kind="rows"), target_flow])
    return made._replace(kind="number") if made.kind == "rows" else made


def tile(step: Step) -> Flow:
    flow, target = step.given[0], step.input(1)
    times = target.items if target is not None else None
    if times is None or flow.shape is None or len(times) != len(flow.shape):
        return step.unsure("repeats a number of times that is not known beforehand") if flow.carries else none()
    if flow.carries and (times[flow.axis] != ONE or any(one.tells_rows for one in times)):
        return step.mixes("repeats the rows")
    shape = tuple(length.times(one) for length, one in zip(flow.shape, times, strict=True))
    if flow.carries:
        return Flow(flow.kind if flow.kind != "numbered" else "unknown", shape, flow.axis)
    repeated = [place for place, one in enumerate(times) if one.tells_rows]
    if repeated and flow.tells_rows:
        return step.unsure("reckons with the number of rows")
    if repeated and any(flow.shape[place] != ONE for place in repeated):
        return step.unsure("repeats several values for each row")
    return by_shape(shape, f"{step.name} sets each row against each other row")


def filled(step: Step) -> Flow:
    """ConstantOfShape: one value everywhere."""
    target = step.given[0]
    if target.items is None:
        rank = target.shape[0].fixed if target.shape else None
        return none(None if rank is None else [unknown_length() for _ in range(rank)])
    made = by_shape(target.items, f"{step.name} sets each row against each other row")
    constant = step.node.tensor("value")
    value = constant.items[0] if constant is not None and constant.items else 0 if constant is None else None
    size = target.items[0].fixed if len(target.items) == 1 else None
    if made.kind == "none" and value is not None and size is not None and 0 <= size <= 64:
        return none(target.items, [Length(value)] * size)
    return made


def shape_of(step: Step) -> Flow:
    """Lengths, whatever the values are like."""
    flow = step.given[0]
    if flow.shape is None:
        return step.unsure("asks for lengths that are not known") if flow.bad else none([unknown_length()])
    rank = len(flow.shape)
    start, end = axis_of(step.node.whole("start", 0), rank), axis_of(step.node.whole("end", rank), rank)
    items = flow.shape[max(start, 0) : max(min(end, rank), 0)]
    return none([Length(len(items))], items)


def size_of(step: Step) -> Flow:
    flow = step.given[0]
    if flow.shape is None:
        return step.unsure("asks for lengths that are not known") if flow.bad else none(())
    return none((), [product(flow.shape)])


def numbers_up(step: Step) -> Flow:
    """Range."""
    values = [flow.items[0] if flow.items is not None and len(flow.items) == 1 else None for flow in step.given]
    start, limit, delta = (*values, None, None, None)[:3]
    if limit is None or not limit.tells_rows:
        if any(value is not None and value.tells_rows for value in values):
            return step.unsure("reckons with the number of rows")
        known = limit is not None and start == ZERO and delta == ONE and limit.number >= 0
        return none([limit if known and limit is not None else unknown_length()])
    if start == ZERO and delta == ONE and limit == ALL_ROWS:
        return Flow("number", (ALL_ROWS,), 0)
    return step.unsure("reckons with the number of rows")


def target_tells(target: Flow | None) -> bool:
    return target is not None and (target.carries or target.tells_rows)


def reshaped(step: Step, flow: Flow, shape: Shape, *, filled_up: bool = False) -> Flow:
    """The same values in row-major order under another shape; ``filled_up``: one of its lengths is whatever is left."""
    if flow.items is not None:
        return none(shape, flow.items)
    if not flow.carries:
        return none(shape)
    if flow.kind != "rows":
        return step.unsure("turns the numbers of rows")
    # A graph that asks for more or fewer values than there are is no error everywhere: onnxruntime rewrites some of them.
    if not filled_up and product(shape) != product(flow.shape or ()):
        return step.unsure("may not keep all values")
    # Where as much lies before an axis as before, and its length is a number of rows, each row keeps its places.
    before = product((flow.shape or ())[: flow.axis])
    for axis, length in enumerate(shape):
        if ROWS in length.names and product(shape[:axis]) == before:
            return rows(shape, axis)
    return step.mixes("moves values from row to row")


def _target(shape: Shape, wanted: Sequence[Length], *, allow_zero: bool) -> Shape:
    lengths = [
        shape[place] if length == ZERO and not allow_zero and place < len(shape) else length
        for place, length in enumerate(wanted)
    ]
    if Length(-1) not in lengths:
        return tuple(lengths)
    place = lengths.index(Length(-1))
    rest = product(length for length in lengths if length != Length(-1))
    # Names that stand on both sides are the same number; a length of zero makes no rows at all.
    left = product(shape).over(rest)
    lengths[place] = left if left is not None else unknown_length(shape if not rest.tells_rows else ())
    return tuple(lengths)


def _filled(wanted: Sequence[Length], shape: Shape) -> Shape:
    return tuple(unknown_length() if length.number < 0 or (length == ZERO and not shape) else length for length in wanted)


def _lengths(numbers: Sequence[int] | None) -> list[Length] | None:
    return None if numbers is None else [Length(number) for number in numbers]


def _sum(lengths: Iterable[Length]) -> Length:
    total = ZERO
    for length in lengths:
        total = total.plus(length)
    return total
