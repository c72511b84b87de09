"""The operators of classical learning (ai.onnx.ml): a table goes in, a row of it is a row."""

from __future__ import annotations

from runtime.models.rows.flows import Flow, none, rows
from runtime.models.rows.lengths import ONE, Length, unknown_length
from runtime.models.rows.step import Answer, Step

_CATEGORIES = ("cats_int64s", "cats_strings")
_LABELS = ("classlabels_int64s", "classlabels_strings", "classlabels_ints")


def regressor(step: Step) -> Flow:
    """Trees, linear and support vector machines: [rows, features] to [rows, targets]."""
    flow = step.given[0]
    # Each kind has an attribute of its own for it, and one target where that is not given.
    targets = Length(step.node.whole("n_targets", step.node.whole("targets", 1)))
    return _table(step, flow) or (rows([_length(flow), targets], 0) if flow.carries else none())


def classifier(step: Step) -> Answer:
    """The same to labels [rows] and scores [rows, classes]."""
    flow = step.given[0]
    if refused := _table(step, flow):
        return [refused, refused]
    if not flow.carries:
        return [none(), none()]
    classes = sum(step.node.count(name) for name in _LABELS)
    # Of two classes some give both scores and others one.
    scores = Length(classes) if classes > 2 else unknown_length()
    return [rows([_length(flow)], 0), rows([_length(flow), scores], 0)]


def columns(step: Step) -> Flow:
    """Scaler, Imputer, Normalizer: each row of a table by itself."""
    flow = step.given[0]
    return _table(step, flow) or flow


def codes(step: Step) -> Flow:
    """OneHotEncoder: a new last axis, as long as the list of its categories."""
    flow = step.given[0]
    if flow.shape is None:
        return none()
    if flow.kind not in ("rows", "none"):
        return step.mixes("takes the place of a row in its batch for a value")
    counts = [count for count in map(step.node.count, _CATEGORIES) if count]
    return Flow(flow.kind, (*flow.shape, Length(counts[0]) if len(counts) == 1 else unknown_length()), flow.axis)


def side_by_side(step: Step) -> Flow:
    """FeatureVectorizer: tables of the same rows become one."""
    if not any(flow.carries for flow in step.given):
        return none()
    for flow in step.given:
        if refused := _table(step, flow):
            return refused
        if not flow.carries or _length(flow) != _length(step.given[0]):
            return step.unsure("joins rows with something of a fixed number of rows")
    return rows([_length(step.given[0]), unknown_length()], 0)


def maps(step: Step) -> Flow:
    """ZipMap: a list with a map for each row."""
    flow = step.given[0]
    return _table(step, flow) or (rows([_length(flow)], 0) if flow.carries else none())


def _table(step: Step, flow: Flow) -> Flow | None:
    """None when rows, if there are any, are those of a table; a vector would be taken for a single row."""
    if not flow.carries:
        return None
    if flow.kind != "rows" or flow.axis or len(flow.shape or ()) != 2:
        return step.mixes("takes its input for a table with the rows first, and it is not")
    return None


def _length(flow: Flow) -> Length:
    return (flow.shape or (ONE,))[0]
