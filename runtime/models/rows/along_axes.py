"""Operators that work along some axes: reduce, normalise, sort, add up. Rows are mixed where the rows' axis is one of those."""

from __future__ import annotations

from collections.abc import Collection

from runtime.models.rows.flows import Flow, Shape, none, rows
from runtime.models.rows.lengths import ONE, Length, product, unknown_length
from runtime.models.rows.step import Answer, Step, axis_of


def reduce(step: Step) -> Flow:
    """ReduceSum and its like."""
    flow = step.given[0]
    keep = step.node.whole("keepdims", 1) == 1
    axes = step.numbers(1, "axes")
    if flow.shape is None or (axes is None and not step.lacks(1, "axes")):
        return step.unsure("does not say along which axes") if flow.carries else none()
    if not axes:
        axes = [] if step.node.whole("noop_with_empty_axes", 0) else list(range(len(flow.shape)))
    gone = {axis_of(axis, len(flow.shape)) for axis in axes}
    if flow.items is not None and step.name == "ReduceProd" and gone == {0} and len(flow.shape) == 1:
        return none((ONE,) if keep else (), [product(flow.items)])
    return _without(step, flow, gone, keep=keep)


def arg(step: Step) -> Flow:
    """ArgMax, ArgMin."""
    flow = step.given[0]
    if flow.shape is None:
        return none()
    axis = axis_of(step.node.whole("axis", 0), len(flow.shape))
    return _without(step, flow, {axis}, keep=step.node.whole("keepdims", 1) == 1)


def softmax(step: Step) -> Flow:
    """Softmax, LogSoftmax, Hardmax: before opset 13 over everything from its axis on."""
    flow = step.given[0]
    if flow.shape is None:
        return flow
    axis = axis_of(step.node.whole("axis", -1 if step.opset >= 13 else 1), len(flow.shape))
    return _kept(step, flow, {axis} if step.opset >= 13 else range(axis, len(flow.shape)))


def one_axis(step: Step) -> Flow:
    """LpNormalization."""
    flow = step.given[0]
    return flow if flow.shape is None else _kept(step, flow, {axis_of(step.node.whole("axis", -1), len(flow.shape))})


def add_up(step: Step) -> Flow:
    """CumSum: its axis is an input."""
    flow, where = step.given[0], step.input(1)
    axes = where.fixed_items() if where is not None else None
    if flow.shape is None or axes is None:
        return step.unsure("does not say along which axis") if flow.carries else none(flow.shape)
    return _kept(step, flow, {axis_of(axes[0], len(flow.shape))})


def top(step: Step) -> Answer:
    """TopK: values and places."""
    flow, count = step.given[0], step.input(1)
    if flow.shape is None:
        return [none(), none()]
    if count is not None and (count.carries or count.tells_rows):
        return [step.unsure("takes a number from the rows")] * 2
    axis = axis_of(step.node.whole("axis", -1), len(flow.shape))
    found = _kept(step, flow, {axis})
    wanted = count.items[0] if count is not None and count.items else unknown_length()
    shape = (*flow.shape[:axis], wanted, *flow.shape[axis + 1 :])
    found = Flow(found.kind, shape, found.axis, why=found.why)
    return [found, found]


def layer_norm(step: Step) -> Answer:
    """Over everything from its axis on; the further outputs are mean and deviation."""
    flow = step.given[0]
    if flow.shape is None or step.only_first():
        return step.only_first() or flow
    axis = axis_of(step.node.whole("axis", -1), len(flow.shape))
    return _kept(step, flow, range(axis, len(flow.shape)))


def skip_layer_norm(step: Step) -> Answer:
    """Adds its first two inputs, then the last axis. Only the first output is followed."""
    flow, skip = step.given[0], step.given[1]
    if flow.shape is None or skip.shape != flow.shape or (skip.axis, skip.kind) != (flow.axis, flow.kind):
        return step.unsure("adds values of different shapes")
    if any(other.carries for other in step.given[2:]):
        return step.unsure("takes what rows decide as a setting of its own")
    return _kept(step, flow, {len(flow.shape) - 1})


def each_row(step: Step) -> Answer:
    """InstanceNormalization, GroupNormalization, LRN: each row by itself, if the rows come first."""
    return step.only_first() or _first(step, step.given[0])


def batch_norm(step: Step) -> Answer:
    """With the recorded means; in training it would take those of the batch."""
    training = step.node.whole("training_mode", 0) or len([name for name in step.node.outputs if name]) > 1
    flow = step.given[0]
    if training and flow.carries:
        return [step.mixes("in training takes the mean of the batch")] * len(step.node.outputs)
    return step.only_first() or _first(step, flow)


def mean_variance(step: Step) -> Flow:
    axes = step.node.wholes("axes")
    flow = step.given[0]
    return flow if flow.shape is None else _kept(step, flow, {axis_of(one, len(flow.shape)) for one in axes or (0, 2, 3)})


def triangle(step: Step) -> Flow:
    """Trilu: the places along the last two axes matter."""
    flow = step.given[0]
    return flow if flow.shape is None else _kept(step, flow, {len(flow.shape) - 1, len(flow.shape) - 2})


def pad(step: Step) -> Flow:
    flow = step.given[0]
    pads = step.numbers(1, "pads")
    if flow.shape is None:
        return flow
    rank, shape = len(flow.shape), tuple(unknown_length() for _ in flow.shape)
    if not flow.carries:
        return step.unsure("pads by the number of rows") if any(one.tells_rows for one in step.given) else none(shape)
    axes = step.input(3).fixed_items() if step.input(3) is not None else list(range(rank))  # type: ignore[union-attr]  # see the condition
    source = step.input(1)
    if pads is None and source is not None and source.items is not None and len(source.items) == 2 * rank:
        # Only those of the rows have to be known.
        pads = [one.fixed if one.fixed is not None else -1 for one in source.items]
    if pads is None or axes is None or len(pads) != 2 * len(axes) or flow.kind != "rows":
        return step.unsure("pads by what is not known beforehand")
    if any(one.carries for one in step.given[1:]):
        return step.unsure("pads with what rows decide")
    for place, axis in enumerate(axes):
        if axis_of(axis, rank) == flow.axis and (pads[place] or pads[place + len(axes)]):
            return step.mixes("adds rows of its own")
    return rows([*shape[: flow.axis], flow.shape[flow.axis], *shape[flow.axis + 1 :]], flow.axis)


def resize(step: Step) -> Flow:
    """Resize, Upsample: the rows keep their number."""
    flow = step.given[0]
    if flow.shape is None:
        return flow
    if not flow.carries:
        unclear = any(one.tells_rows for one in step.given)
        return step.unsure("scales by the number of rows") if unclear else none([unknown_length() for _ in flow.shape])
    if refused := step.only_first():
        return refused
    cropped = step.node.word("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    # Both may change an axis although its own length or scale says otherwise.
    if cropped or step.node.word("keep_aspect_ratio_policy", "stretch") != "stretch":
        return step.unsure("scales one axis by what it does to others")
    axes = step.node.wholes("axes") or list(range(len(flow.shape)))
    sizes, scales = step.input(3), step.input(1 if len(step.inputs) == 2 else 2)
    # By axis: new lengths, or by how much the old ones grow.
    given, kept = (sizes, flow.shape[flow.axis]) if sizes is not None else (scales, ONE)
    wanted = dict(
        zip([axis_of(axis, len(flow.shape)) for axis in axes], given.items if given and given.items else (), strict=False)
    )
    touched = flow.axis in wanted or len(wanted) < len(axes)
    if (touched and wanted.pop(flow.axis, None) != kept) or flow.kind != "rows":
        return step.unsure("scales by what is not known beforehand")
    if any(one.tells_rows for one in wanted.values()):
        return step.unsure("scales by the number of rows")
    return rows([length if axis == flow.axis else unknown_length() for axis, length in enumerate(flow.shape)], flow.axis)


def one_hot(step: Step) -> Flow:
    """A new axis, as long as its second input says."""
    flow, depth = step.given[0], step.given[1]
    if flow.shape is None:
        return none()
    if any(one.carries or one.tells_rows for one in step.given[1:]) or flow.kind not in ("none", "rows"):
        return step.unsure("takes a length from the rows")
    rank = len(flow.shape) + 1
    axis = axis_of(step.node.whole("axis", -1), rank)
    new = depth.items[0] if depth.items else unknown_length()
    shape = (*flow.shape[:axis], new, *flow.shape[axis:])
    return Flow(flow.kind, shape, flow.axis + (1 if axis <= flow.axis else 0)) if flow.carries else none(shape)


def picks_by_value(step: Step) -> Flow:
    """NonZero, Unique and others: how long the answer is, and where a row ends in it, depends on all rows."""
    return step.mixes("gives as much as the values of all rows say") if any(flow.carries for flow in step.given) else none()


def quantises(step: Step) -> Answer:
    """Dynamic quantisation: one scale for everything that is in the batch."""
    carried = any(flow.carries for flow in step.given)
    count = len(step.node.outputs)
    if carried:
        return [step.mixes("takes one scale from all rows")] * count
    return [none(step.given[0].shape), none(()), none(())][:count]


def _first(step: Step, flow: Flow) -> Flow:
    if flow.carries and (flow.axis != 0 or flow.kind != "rows"):
        return step.mixes("takes the first axis for the rows, and it is not")
    return flow


def _kept(step: Step, flow: Flow, along: Collection[int]) -> Flow:
    """The same shape, unless the rows lie along one of these axes."""
    if not flow.carries:
        return none(flow.shape)
    if flow.axis in along:
        return step.mixes("goes along the axis of the rows")._replace(shape=flow.shape)
    return step.mixes("takes the place of a row in its batch for a value") if flow.kind != "rows" else flow


def _without(step: Step, flow: Flow, gone: set[int], *, keep: bool) -> Flow:
    whole: Shape = flow.shape or ()
    left = [place for place in range(len(whole)) if keep or place not in gone]
    shape: list[Length] = [ONE if place in gone else whole[place] for place in left]
    if not flow.carries:
        return step.unsure("reckons with the number of rows") if flow.tells_rows else none(shape)
    if flow.axis in gone:
        return step.mixes("takes the rows together")._replace(shape=tuple(shape))
    if flow.kind != "rows":
        return step.mixes("takes the place of a row in its batch for a value")
    return rows(shape, left.index(flow.axis))
