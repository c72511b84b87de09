"""Sums of products: matrices, convolutions, recurrent nets, attention. Rows are mixed where they are what is summed over."""

from __future__ import annotations

from runtime.models.rows.elementwise import broadcast, spread_over
from runtime.models.rows.flows import Flow, Shape, none, rows
from runtime.models.rows.lengths import ALL_ROWS, ONE, Length, unknown_length
from runtime.models.rows.step import Answer, Step


def matmul(step: Step) -> Flow:
    return _matmul(step, step.given[0], step.given[1])


def matmul_quantised(step: Step) -> Flow:
    """With scales and zero points that no row may decide."""
    names = {"MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "MatMulIntegerToFloat": (0, 1), "MatMulNBits": (0, 1)}
    left, right = (step.inputs[place] for place in names[step.name])
    if left is None or right is None or any(flow.carries for flow in step.given if flow is not left and flow is not right):
        return step.unsure("takes a scale from the rows")
    if step.name == "MatMulNBits":
        if right.carries or left.shape is None or left.kind != "rows" or left.axis == len(left.shape) - 1:
            return none() if not left.carries and not right.carries else step.mixes("sums over the rows")
        return rows((*left.shape[:-1], Length(step.node.whole("N", 1))), left.axis)
    return _matmul(step, left, right)


def gemm(step: Step) -> Flow:
    left, right = (_turned(flow, step.node.whole(name, 0)) for flow, name in zip(step.given, ("transA", "transB"), strict=False))
    made = _matmul(step, left, right)
    addend = step.input(2)
    return made if addend is None or made.bad else spread_over(step, [made, addend])


def _turned(flow: Flow, turn: int) -> Flow:
    if not turn or flow.shape is None:
        return flow
    return Flow(flow.kind, flow.shape[::-1], len(flow.shape) - 1 - flow.axis)


def _matmul(step: Step, left: Flow, right: Flow) -> Flow:
    if left.shape is None or right.shape is None or not left.shape or not right.shape:
        return step.unsure("has inputs of unknown shape") if left.carries or right.carries else none()
    # A vector is a matrix of one row or one column, which the answer then lacks.
    one_row, one_column = len(left.shape) == 1, len(right.shape) == 1
    a = Flow(left.kind, (ONE, *left.shape), left.axis + 1) if one_row else left
    b = Flow(right.kind, (*right.shape, ONE), right.axis) if one_column else right
    a_shape, b_shape = a.shape or (), b.shape or ()
    front = broadcast([a_shape[:-2], b_shape[:-2]]) or ()
    shape = (*front, *(() if one_row else (a_shape[-2],)), *(() if one_column else (b_shape[-1],)))
    if not a.carries and not b.carries:
        return none(shape)
    if "number" in a.kind or "number" in b.kind:
        return step.mixes("takes the place of a row in its batch for a value")
    if (a.carries and a.from_right == 0) or (b.carries and b.from_right == 1):
        return step.mixes("sums over the rows")
    return _of_matrices(step, a, b, front, shape)


def _of_matrices(step: Step, a: Flow, b: Flow, front: Shape, shape: Shape) -> Flow:
    a_shape, b_shape = a.shape or (), b.shape or ()
    if a.carries and a.from_right == 1:
        return step.mixes("sets each row against each other row") if b.carries else rows(shape, len(front))
    if b.carries and b.from_right == 0:
        return step.mixes("sets each row against each other row") if a.carries else rows(shape, len(shape) - 1)
    # The rows number whole matrices.
    stacks = [Flow(flow.kind if flow.carries else "none", own[:-2], flow.axis) for flow, own in ((a, a_shape), (b, b_shape))]
    made = spread_over(step, stacks)
    return rows((*(made.shape or ()), *shape[len(front) :]), made.axis) if made.kind == "rows" else made


def einsum(step: Step) -> Flow:
    if not any(flow.carries for flow in step.given):
        return none()
    equation = step.node.word("equation", "").replace(" ", "")
    terms, arrow, answer = equation.partition("->")
    letters = terms.split(",")
    if not arrow or "." in equation or len(letters) != len(step.given):
        return step.unsure("has an equation that is not followed")
    if any(len(flow.shape or "") != len(term) for term, flow in zip(letters, step.given, strict=True)):
        return step.unsure("has inputs of unknown shape")
    return _summed(step, letters, answer)


def _summed(step: Step, letters: list[str], answer: str) -> Flow:
    """The letters of each input's axes, and of the answer's."""
    lengths: dict[str, Length] = {}
    for term, flow in zip(letters, step.given, strict=True):
        for letter, length in zip(term, flow.shape or (), strict=True):
            lengths[letter] = length if lengths.get(letter, ONE) == ONE else lengths[letter]
    found = {term[flow.axis] for term, flow in zip(letters, step.given, strict=True) if flow.carries}
    carrier = found.pop()
    if found:
        return step.mixes("sets each row against each other row")
    if any(flow.kind in ("number", "numbered") for flow in step.given):
        return step.mixes("takes the place of a row in its batch for a value")
    if carrier not in answer or any(term.count(carrier) > 1 for term in [*letters, answer]):
        return step.mixes("sums over the rows")
    if any(carrier in term and not flow.carries for term, flow in zip(letters, step.given, strict=True)):
        return step.unsure("has a value of its own for each place in the batch")
    return rows([lengths[letter] for letter in answer], answer.index(carrier))


def conv(step: Step) -> Flow:
    """Conv and its like: images by themselves, weights that no row decides."""
    flow = step.given[0]
    weights = step.input(3 if step.name == "QLinearConv" else 1)
    if not flow.carries:
        return (
            step.unsure("has weights that rows decide")
            if any(one.carries for one in step.given)
            else none(_conv_shape(step, flow, weights))
        )
    if flow.axis != 0 or flow.kind != "rows":
        return step.mixes("goes along the axis of the rows")
    return step.only_first() or rows(_conv_shape(step, flow, weights) or (), 0)


def pool(step: Step) -> Answer:
    """The second output numbers places in the whole batch."""
    flow = step.given[0]
    if flow.shape is None:
        return flow
    if flow.carries and (flow.axis != 0 or flow.kind != "rows"):
        return step.mixes("goes along the axis of the rows")
    spatial = len(flow.shape) - 2
    ends = [ONE] * spatial if step.name.startswith("Global") else [_end(step, place, flow) for place in range(spatial)]
    made = Flow(flow.kind, (*flow.shape[:2], *ends), 0)
    return [step.only_first() or made, step.mixes("numbers places in the whole batch") if flow.carries else none()]


def first_axis(step: Step) -> Flow:
    """Images in, images out: DepthToSpace, GridSample. The rows come first in whatever carries them."""
    flow = step.given[0]
    if flow.shape is None or any(one.carries and (one.axis or one.kind != "rows") for one in step.given):
        return step.mixes("takes the first axis for the rows, and it is not")
    lengths = {one.shape[0] for one in step.given if one.carries and one.shape}
    if not lengths:
        return none([unknown_length() for _ in flow.shape])
    if len(lengths) > 1 or not all(one.carries for one in step.given):
        return step.unsure("has a value of its own for each place in the batch")
    return rows([lengths.pop(), *(unknown_length() for _ in flow.shape[1:])], 0)


def _conv_shape(step: Step, flow: Flow, weights: Flow | None) -> Shape | None:
    if flow.shape is None:
        return None
    turned = step.name == "ConvTranspose"
    made = weights.shape[0] if weights is not None and weights.shape and not turned else unknown_length()
    ends = [unknown_length() if turned else _end(step, place, flow, weights) for place in range(len(flow.shape) - 2)]
    return (flow.shape[0], made, *ends)


def _end(step: Step, place: int, flow: Flow, weights: Flow | None = None) -> Length:
    """How long an image is after a window has gone along it."""
    node, spatial = step.node, len(flow.shape or ()) - 2
    length = (flow.shape or ())[place + 2].fixed
    kernel = (node.wholes("kernel_shape") or [])[place : place + 1]
    if not kernel and weights is not None and weights.shape:
        kernel = [weights.shape[place + 2].fixed or 0]
    if length is None or not kernel or not kernel[0] or node.whole("ceil_mode", 0):
        return unknown_length()
    pads, paces, wide = (node.wholes(name) for name in ("pads", "strides", "dilations"))
    pace = paces[place] if paces else 1
    if node.word("auto_pad", "NOTSET").startswith("SAME"):
        return Length(-(-length // pace))
    around = pads[place] + pads[place + spatial] if pads and node.word("auto_pad", "NOTSET") == "NOTSET" else 0
    window = (kernel[0] - 1) * (wide[place] if wide else 1) + 1
    return Length((length + around - window) // pace + 1)


def recurrent(step: Step) -> Answer:
    """LSTM, GRU, RNN: the rows come second, or first with ``layout`` 1."""
    flow, weights = step.given[0], step.given[1:]
    first = step.node.whole("layout", 0) == 1
    place = 0 if first else 1
    if flow.shape is None or len(flow.shape) != 3 or (flow.carries and (flow.axis != place or flow.kind != "rows")):
        return [step.mixes("takes another axis for the rows") if flow.carries else none()] * 3
    starts = [(number, one) for number, one in enumerate(step.inputs[4:7], start=4) if one is not None]
    # Where each further input has its rows: lengths of sequences first, states beside the directions.
    wrong = [one for number, one in starts if one.carries and (one.kind != "rows" or one.axis != (0 if number == 4 else place))]
    if (
        any(one.carries for one in weights[:2])
        or any(one.carries for one in step.inputs[3:4] + step.inputs[7:] if one is not None)
        or wrong
    ):
        return [step.unsure("has weights that rows decide")] * 3
    if not flow.carries:
        return [none() if not any(one.carries for _, one in starts) else step.unsure("has no rows of its own")] * 3
    batch, hidden, ways = flow.shape[place], Length(step.node.whole("hidden_size", 1)), _directions(step)
    if any((one.shape or ())[one.axis] != batch for _, one in starts if one.carries):
        return [step.unsure("joins rows of different sizes")] * 3
    if first:
        return [rows((batch, flow.shape[1], ways, hidden), 0), *[rows((batch, ways, hidden), 0)] * 2]
    return [rows((flow.shape[0], ways, batch, hidden), 2), *[rows((ways, batch, hidden), 1)] * 2]


def _directions(step: Step) -> Length:
    return Length(2 if step.node.word("direction", "forward") == "bidirectional" else 1)


def attention(step: Step) -> Answer:
    """Fused attention: whatever carries rows has them first, one place each. Only the first output is followed."""
    carriers = [flow for flow in step.given if flow.carries]
    if not carriers:
        return none()
    for flow in carriers:
        if flow.kind != "rows" or flow.axis or not flow.shape or flow.shape[0] != ALL_ROWS:
            return step.mixes("takes the first axis for the rows, and it is not")
    query, mask = step.given[0], step.input(3)
    # ONNX's own operator spreads a smaller mask over the batch.
    if step.node.operator == "Attention" and mask is not None and mask.carries and len(mask.shape or ()) != 4:
        return step.mixes("takes the rows of its mask for something else")
    if query is not carriers[0] or query.shape is None or len(query.shape) < 2:
        return step.unsure("has no rows in its first input")
    return rows([ALL_ROWS, *(unknown_length() for _ in query.shape[1:])], 0)


def embedding(step: Step) -> Answer:
    """EmbedLayerNormalization: tokens to vectors, and how many tokens of each row count."""
    made = attention(step)
    ids = step.given[0]
    if not isinstance(made, Flow) or made.kind != "rows" or len(ids.shape or ()) != 2:
        return step.unsure("has no rows in its first input") if ids.carries else made
    return [rows([ALL_ROWS, unknown_length(), unknown_length()], 0), rows([ALL_ROWS], 0)]
