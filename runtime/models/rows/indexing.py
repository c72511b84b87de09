"""Operators that pick values by their places: the places of rows must not be among what is picked by."""

from __future__ import annotations

from runtime.models.rows.flows import Flow, Shape, none, rows
from runtime.models.rows.lengths import ALL_ROWS, ONE, ZERO, Length, product, unknown_length
from runtime.models.rows.step import Step, axis_of

# Axis, start, end and pace.
Cut = tuple[int, Length, Length, Length]
# What exporters write for "to the end"; smaller ones than int64's are meant too.
_TO_THE_END = 2**31 - 1


def slices(step: Step) -> Flow:
    """Slice: by inputs, or by attributes before opset 10."""
    flow = step.given[0]
    if flow.shape is None:
        return none()
    cuts = _cuts(step, len(flow.shape))
    if cuts is None:
        if flow.carries or any(one.tells_rows for one in step.given):
            return step.unsure("cuts along axes that are not known beforehand")
        return none([unknown_length() for _ in flow.shape])
    return _cut(step, flow, flow.shape, cuts)


def _cut(step: Step, flow: Flow, whole: Shape, cuts: list[Cut]) -> Flow:
    shape, items = list(whole), flow.items
    for axis, start, end, pace in cuts:
        length = shape[axis]
        if _whole(length, start, end, pace):
            continue
        if flow.carries and axis == flow.axis:
            return step.mixes("leaves rows out or turns their order")
        if flow.kind == "numbered" or start.tells_rows or end.tells_rows or pace.tells_rows:
            return step.unsure("cuts where the number of rows says")
        if items is not None and len(whole) == 1 and start.fixed is not None and end.fixed is not None and pace == ONE:
            items = items[start.fixed : end.fixed]
            shape[axis] = Length(len(items))
            continue
        if items is not None and any(item.tells_rows for item in items):
            return step.unsure("cuts lengths where the rows say")
        items = None
        shape[axis] = _cut_length(length, start, end, pace)
    return Flow(flow.kind, tuple(shape), flow.axis, items)


def gather(step: Step) -> Flow:
    """Gather: whole slices by number."""
    flow, index = step.given[0], step.given[1]
    if index.kind in ("number", "numbered") or flow.kind in ("number", "numbered"):
        return _by_number(step, flow, index)
    if flow.shape is None or index.shape is None:
        return step.unsure("has inputs of unknown shape") if flow.carries or index.carries else none()
    if index.tells_rows:
        return step.unsure("picks by the number of rows")
    axis = axis_of(step.node.whole("axis", 0), len(flow.shape))
    shape = (*flow.shape[:axis], *index.shape, *flow.shape[axis + 1 :])
    if flow.carries and index.carries:
        return step.mixes("picks for each row out of every row")
    if index.carries:
        return step.unsure("reckons with the number of rows") if flow.tells_rows else rows(shape, axis + index.axis)
    if flow.carries:
        if axis == flow.axis:
            return step.mixes("picks rows by their number")
        return rows(shape, flow.axis + (len(index.shape) - 1 if axis < flow.axis else 0))
    return none(shape, _picked(flow, index))


def gather_elements(step: Step) -> Flow:
    """GatherElements, which picks along one axis and keeps the places of all others."""
    flow, index = step.given[0], step.given[1]
    if not flow.carries and not index.carries:
        return none(index.shape)
    axis = step.node.whole("axis", 0)
    if flow.shape is None or index.shape is None or flow.kind != "rows" or index.kind != "rows":
        return step.unsure("picks by the places of rows")
    if flow.axis != index.axis or flow.shape[flow.axis] != index.shape[index.axis] or axis_of(axis, len(flow.shape)) == flow.axis:
        return step.mixes("picks along the axis of the rows")
    return rows(index.shape, index.axis)


def gather_nd(step: Step) -> Flow:
    """GatherND: out of a constant by rows, or for each row out of its own."""
    flow, index = step.given[0], step.given[1]
    if flow.shape is None or index.shape is None or index.shape[-1].fixed is None:
        return step.unsure("has inputs of unknown shape") if flow.carries or index.carries else none()
    depth, shared = index.shape[-1].fixed, step.node.whole("batch_dims", 0)
    shape = (*index.shape[:-1], *flow.shape[shared + depth :])
    if not flow.carries and not index.carries:
        return step.unsure("picks by the number of rows") if index.tells_rows or flow.tells_rows else none(shape)
    if not index.carries or index.kind == "number" or index.axis == len(index.shape) - 1 or flow.kind in ("number", "numbered"):
        return step.mixes("picks along the axis of the rows")
    if not flow.carries:
        known = index.kind == "rows" and index.axis >= shared
        return rows(shape, index.axis) if known else step.unsure("picks by the places of rows")
    if (
        index.kind == "rows"
        and flow.axis == index.axis
        and flow.axis < shared
        and flow.shape[flow.axis] == index.shape[index.axis]
    ):
        return rows(shape, index.axis)
    # Each index begins with the number of its own row.
    if index.kind == "numbered" and not shared and flow.axis == 0 and flow.shape[0] == ALL_ROWS:
        return rows(shape, index.axis)
    return step.mixes("picks for each row out of every row")


def scatter_elements(step: Step) -> Flow:
    """ScatterElements: each row into its own."""
    if not any(flow.carries for flow in step.given):
        return none(step.given[0].shape)
    first = step.given[0]
    if any(flow.shape is None or flow.kind != "rows" or flow.axis != first.axis for flow in step.given):
        return step.unsure("writes to places that are not its own row's")
    lengths = {(flow.shape or ())[first.axis] for flow in step.given}
    if len(lengths) > 1 or axis_of(step.node.whole("axis", 0), len(first.shape or ())) == first.axis:
        return step.mixes("writes along the axis of the rows")
    return first


def scatter_nd(step: Step) -> Flow:
    """Only constants: which rows are written to is not followed."""
    if any(flow.carries for flow in step.given):
        return step.unsure("writes to places that are not followed")
    return none(step.given[0].shape)


def compress(step: Step) -> Flow:
    """Chooses along one axis, or out of everything."""
    flow, chosen = step.given[0], step.given[1]
    if not flow.carries and not chosen.carries:
        return none()
    if chosen.carries or "axis" not in step.node.given or flow.shape is None or flow.kind != "rows":
        return step.mixes("gives as much as the values of all rows say")
    axis = axis_of(step.node.whole("axis", 0), len(flow.shape))
    if axis == flow.axis:
        return step.mixes("chooses among the rows")
    return rows([*flow.shape[:axis], unknown_length(), *flow.shape[axis + 1 :]], flow.axis)


def reverse_sequence(step: Step) -> Flow:
    flow, lengths = step.given[0], step.given[1]
    if not flow.carries:
        return none(flow.shape) if not lengths.carries else step.unsure("turns a constant by what rows decide")
    batch, time = step.node.whole("batch_axis", 1), step.node.whole("time_axis", 0)
    fits = not lengths.carries or (batch == flow.axis and lengths.kind == "rows" and lengths.shape == (ALL_ROWS,))
    if flow.kind != "rows" or time == flow.axis or not fits:
        return step.mixes("turns the order of the rows")
    return flow


def _cuts(step: Step, rank: int) -> list[Cut] | None:
    """None where the axes are not known."""
    if len(step.inputs) > 1:
        found = [step.input(place) for place in (1, 2, 3, 4)]
        if any(flow is not None and flow.carries for flow in found):
            return None
        starts, ends = (list(flow.items) if flow is not None and flow.items is not None else None for flow in found[:2])
        axes = found[2].fixed_items() if found[2] is not None else None
        paces = list(found[3].items) if found[3] is not None and found[3].items is not None else None
        if (found[2] is not None and axes is None) or (found[3] is not None and paces is None):
            return None
    else:
        starts, ends = ([Length(one) for one in step.node.wholes(name) or ()] for name in ("starts", "ends"))
        axes, paces = step.node.wholes("axes"), None
    count = len(starts or ends or axes or ())
    if not count:
        return None
    unclear = [unknown_length() for _ in range(count)]
    places = [axis_of(axis, rank) for axis in axes or range(count)]
    return list(zip(places, starts or unclear, ends or unclear, paces or [ONE] * count, strict=True))


def _whole(length: Length, start: Length, end: Length, pace: Length) -> bool:
    """Whether it is everything, in order."""
    far = end == length or (end.fixed is not None and end.fixed >= _TO_THE_END)
    return start in (ZERO, Length(-(2**63))) and pace == ONE and far


def _cut_length(length: Length, start: Length, end: Length, pace: Length) -> Length:
    first, last, by = start.fixed, end.fixed, pace.fixed
    if length.fixed is not None and first is not None and last is not None and by:
        return Length(len(range(length.fixed)[first:last:by]))
    if by == 1 and first == 0 and last is None and end.number > 0:
        return end if length == end else unknown_length((length, end))
    return unknown_length((length, start, end))


def _picked(flow: Flow, index: Flow) -> list[Length] | None:
    chosen = index.fixed_items()
    if flow.items is None or len(flow.shape or ()) != 1:
        return None
    if chosen is None or any(not -len(flow.items) <= one < len(flow.items) for one in chosen):
        # One of them, nobody knows which: it may depend on the number of rows.
        return [unknown_length(flow.items)] if flow.tells_rows else None
    return [flow.items[one] for one in chosen]


def _by_number(step: Step, flow: Flow, index: Flow) -> Flow:
    first = flow.kind == "rows" and flow.axis == 0 and (flow.shape or (ONE,))[0] == ALL_ROWS
    # Each row out of its own: nothing changes.
    if index.kind == "number" and index.shape == (ALL_ROWS,) and first and step.node.whole("axis", 0) == 0:
        return flow
    return step.mixes("picks by the place of a row in its batch")


def array_feature(step: Step) -> Flow:
    """ArrayFeatureExtractor: picks along the last axis; a vector is taken for one row."""
    flow, index = step.given[0], step.given[1]
    if flow.shape is None or index.shape is None:
        return step.unsure("has inputs of unknown shape") if flow.carries or index.carries else none()
    if index.carries:
        # Out of a vector, and whatever shape the index has: one long row of what was picked, in its order.
        vector = not flow.carries and product(flow.shape[:-1]) == ONE
        ahead = index.kind == "rows" and product(index.shape[: index.axis]) == ONE
        return rows((ONE, product(index.shape)), 1) if vector and ahead else step.unsure("picks by the places of rows")
    if flow.carries and flow.axis == len(flow.shape) - 1:
        return step.mixes("picks rows by their number")
    shape = (*(flow.shape[:-1] or (ONE,)), product(index.shape))
    return rows(shape, flow.axis) if flow.carries else none(shape)
