"""The story of a verdict: read a model's graph, follow the rows through it, and say whether any row can reach another's answer.

*proven*: every answer has one row for each that went in, and each was made of its own row and of constants alone. *mixes*: an
operator takes rows together. *unknown*: something is used that no rule here is sure of. Nothing is run; what is proven holds for
every value and every number of rows, which no measurement can say.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from runtime.models.rows.flows import Flow, mixed, none, rows, unknown, worst
from runtime.models.rows.graph import MOST_NODES, Constant, Graph, Node, Program, TooLarge, read_program
from runtime.models.rows.lengths import ALL_ROWS, Length, unknown_length, unknown_number
from runtime.models.rows.operators import OF_LENGTHS, OF_SHAPES, RULES
from runtime.models.rows.step import Step, axis_of

State = Literal["proven", "mixes", "unknown"]
Flows = dict[str, Flow]
# Branches inside branches; deeper ones are nobody's work.
_DEEPEST = 8
# What these answer is no row's, whatever they are asked about.
_LENGTHS_ALONE = ("Shape", "Size")


class RowVerdict(NamedTuple):
    """``why`` is empty when it is proven."""

    state: State
    why: str = ""


def row_verdict(file: Path) -> RowVerdict:
    """What the graph in ``file`` does with rows, all inputs having them first. Never raises: what cannot be read is unknown."""
    try:
        program = read_program(file)
        graph = program.graph
        flows: Flows = {name: _input(shape) for name, shape in graph.inputs.items() if name not in graph.constants}
        _follow(graph, flows, program, 0)
    except TooLarge:
        return RowVerdict("unknown", f"it has more than {MOST_NODES} operators")
    # Branches and attributes are read only when they are met.
    except (OSError, ValueError, IndexError, struct.error):
        return RowVerdict("unknown", "its graph cannot be read")
    return _judged([(name, flows.get(name, unknown("it comes from nowhere"))) for name in graph.outputs])


def _judged(outputs: Sequence[tuple[str, Flow]]) -> RowVerdict:
    if found := worst([flow for _, flow in outputs]):
        return RowVerdict("mixes" if found.kind == "mixed" else "unknown", found.why)
    for name, flow in outputs:
        if flow.kind != "rows" or flow.axis or not flow.shape or flow.shape[0] != ALL_ROWS:
            return RowVerdict("mixes", f"output {name!r} has not one row for each input row")
    return RowVerdict("proven") if outputs else RowVerdict("unknown", "it has no outputs")


def _input(shape: list[int | None] | None) -> Flow:
    if not shape or shape[0] is not None:
        return unknown("an input has no free leading length")
    # Axes of one name are not held to one length by onnxruntime, so each has a name of its own here.
    return rows([ALL_ROWS, *(unknown_length() if length is None else Length(length) for length in shape[1:])], 0)


def _follow(graph: Graph, flows: Flows, program: Program, depth: int) -> None:
    """Add the flow of every value in ``graph`` to ``flows``; those of the graphs around it are in there already."""
    for name, constant in graph.constants.items():
        flows[name] = _of_constant(constant)
    for node in graph.nodes:
        answers = _answers(node, flows, program, depth)
        for place, name in enumerate(node.outputs):
            flows[name] = (
                answers[place] if place < len(answers) else unknown(f"{node.operator} has an output that is not followed")
            )


def _answers(node: Node, flows: Mapping[str, Flow], program: Program, depth: int) -> Sequence[Flow]:
    nowhere = unknown("a value comes from nowhere")
    inputs = tuple(flows.get(name, nowhere) if name else None for name in node.inputs)
    given = [flow for flow in inputs if flow is not None]
    rule, domain = RULES.get(node.operator), node.operator.rpartition("::")[0]
    if node.operator in program.functions:
        # Whatever its name says, its maker may have meant something else.
        rule = None
    elif node.operator == "Constant":
        return [_constant_node(node)]
    elif node.operator in ("If", "Scan"):
        within = _branches if node.operator == "If" else _scanned
        return within(node, inputs, flows, program, depth)
    found = worst(given)
    if found is not None and (rule is None or rule not in OF_SHAPES):
        return [Flow(found.kind, why=found.why)] * len(node.outputs)
    if rule is None or not given:
        return [_unruled(node, given, has_rule=rule is not None)] * len(node.outputs)
    if rule not in OF_LENGTHS and any(flow.tells_rows for flow in given):
        return [unknown(f"{node.operator} reckons with the number of rows")] * len(node.outputs)
    try:
        answer = rule(Step(node, inputs, program.opsets.get(domain, program.opsets.get("", 0))))
    # A graph that no rule expects (too few inputs, axes out of range) is one that onnxruntime would refuse as well.
    except (IndexError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError):
        return [unknown(f"{node.operator} is used in an unforeseen way")] * len(node.outputs)
    return [_held(node, given, flow) for flow in ([answer] if isinstance(answer, Flow) else answer)]


def _unruled(node: Node, given: Sequence[Flow], *, has_rule: bool) -> Flow:
    """Operators without a rule or without inputs: constant among constants, unless chance or a sub-graph is in them."""
    if has_rule and not given and node.operator.startswith("Random"):
        return mixed(f"{node.operator} is random")
    if any(flow.carries or flow.tells_rows for flow in given) or any(_holds_graph(node, name) for name in node.given):
        return unknown(f"operator {node.operator} is not known")
    return none()


def _holds_graph(node: Node, attribute: str) -> bool:
    return node.graph(attribute) is not None


def _held(node: Node, given: Sequence[Flow], flow: Flow) -> Flow:
    """What rules promise: no axis but the rows' is as long as the rows say; neither rows nor their number are forgotten."""
    if flow.bad:
        return flow
    if flow.kind == "none" and node.operator not in _LENGTHS_ALONE and any(one.carries for one in given):
        return unknown(f"{node.operator} takes from the rows how long or where something is")
    if flow.kind == "none" and flow.items is None and any(one.tells_rows for one in given):
        return unknown(f"{node.operator} reckons with the number of rows")
    if any(length.tells_rows for axis, length in enumerate(flow.shape or ()) if not (flow.carries and axis == flow.axis)):
        return unknown(f"{node.operator} makes a length out of the number of rows")
    return flow


def _branches(
    node: Node, inputs: Sequence[Flow | None], flows: Mapping[str, Flow], program: Program, depth: int
) -> Sequence[Flow]:
    """If: both ways have to be sound, and which one is taken must be no row's choice."""
    chosen = inputs[0] if inputs else None
    count = len(node.outputs)
    if chosen is not None and chosen.bad:
        return [chosen] * count
    if chosen is None or chosen.kind != "none" or chosen.tells_rows:
        return [unknown("If goes where a row says")] * count
    ways = [node.graph(name) for name in ("then_branch", "else_branch")]
    fixed = chosen.fixed_items()
    if fixed:
        ways = ways[:1] if fixed[0] else ways[1:]
    if None in ways or depth >= _DEEPEST:
        return [unknown("If has branches that are not followed")] * count
    ends: list[list[Flow]] = []
    for way in ways:
        if way is not None:
            inside = dict(flows)
            _follow(way, inside, program, depth + 1)
            ends.append([inside.get(name, unknown("a value comes from nowhere")) for name in way.outputs])
    return [_joined(parts) for parts in zip(*ends, strict=False)]


def _scanned(
    node: Node, inputs: Sequence[Flow | None], flows: Mapping[str, Flow], program: Program, depth: int
) -> Sequence[Flow]:
    """Scan, once for each row or for each part of a constant: fine as long as nothing is handed from one round to the next."""
    count = len(node.outputs)
    body, states = node.graph("body"), len(inputs) - node.whole("num_scan_inputs", 0)
    turned = any(node.wholes("scan_input_directions") or ()) or any(node.wholes("scan_output_directions") or ())
    given = [flow for flow in inputs if flow is not None]
    if found := worst(given):
        return [Flow(found.kind, why=found.why)] * count
    # Before opset 9 its inputs had rows of their own, in front of what it goes along.
    old = program.opsets.get("", 0) < 9
    if body is None or old or depth >= _DEEPEST or turned or not 0 <= states < len(given) or len(body.inputs) != len(given):
        return [unknown("Scan is used in a way that is not followed")] * count
    over_rows = any(flow.carries for flow in given[states:])
    # In a round for a single row nothing else may be seen that rows decide.
    inside = {name: flow for name, flow in flows.items() if not over_rows or (flow.kind == "none" and not flow.tells_rows)}
    axes = node.wholes("scan_input_axes") or [0] * (len(given) - states)
    parts = [_one_round(flow, axis, over_rows=over_rows) for flow, axis in zip(given[states:], axes, strict=True)]
    if None in parts or (over_rows and any(flow.carries or flow.tells_rows for flow in given[:states])):
        return [unknown("Scan goes along something else than the rows")] * count
    inside |= zip(body.inputs, [*given[:states], *(part for part in parts if part is not None)], strict=True)
    _follow(body, inside, program, depth + 1)
    if any(_source(body, after) != before for before, after in zip(list(body.inputs)[:states], body.outputs, strict=False)):
        return [mixed("Scan hands something from row to row")] * count
    places = node.wholes("scan_output_axes") or [0] * (count - states)
    ends = [inside.get(name, unknown("a value comes from nowhere")) for name in body.outputs[states:]]
    rounds = ALL_ROWS if over_rows else unknown_length()
    return [*given[:states], *(_all_rounds(flow, axis, rounds) for flow, axis in zip(ends, places, strict=False))]


def _one_round(flow: Flow, axis: int, *, over_rows: bool) -> Flow | None:
    """What a round sees of what is scanned: a row, or a part of a constant; None for anything else."""
    if flow.shape is None or flow.tells_rows:
        return None
    place = axis_of(axis, len(flow.shape))
    if over_rows and (flow.kind != "rows" or flow.axis != place or flow.shape[place] != ALL_ROWS):
        return None
    # There is but this one row then: nothing that it could be mixed with.
    return none([*flow.shape[:place], *flow.shape[place + 1 :]])


def _all_rounds(flow: Flow, axis: int, rounds: Length) -> Flow:
    """The answers of all rounds, put one behind the other along an axis of their own."""
    over_rows = rounds == ALL_ROWS
    if flow.bad or flow.shape is None or flow.kind not in ("none", "rows") or flow.tells_rows:
        return flow if flow.bad else unknown("Scan gives something that is not followed")
    place = axis_of(axis, len(flow.shape) + 1)
    shape = [*flow.shape[:place], rounds, *flow.shape[place:]]
    if over_rows:
        return rows(shape, place)
    return rows(shape, flow.axis + (1 if place <= flow.axis else 0)) if flow.carries else none(shape)


def _source(graph: Graph, name: str) -> str:
    """Where a value comes from when nothing is done to it on the way."""
    made = {
        node.outputs[0]: node.inputs[0] for node in graph.nodes if node.operator == "Identity" and node.inputs and node.outputs
    }
    for _ in made:
        name = made.get(name, name)
    return name


def _joined(parts: Sequence[Flow]) -> Flow:
    if len(parts) == 1:
        return parts[0]
    if found := worst(parts):
        return found
    first, second = parts
    if first == second:
        return first
    alike = (
        first.kind == second.kind == "rows" and first.axis == second.axis and len(first.shape or ()) == len(second.shape or ())
    )
    if alike and (first.shape or ())[first.axis] == (second.shape or ())[second.axis]:
        shape = [
            one if one == other else unknown_length() for one, other in zip(first.shape or (), second.shape or (), strict=True)
        ]
        return rows(shape, first.axis)
    if first.kind == second.kind == "none" and not first.tells_rows and not second.tells_rows:
        return none()
    return unknown("If has the rows elsewhere in one branch than in the other")


def _of_constant(constant: Constant) -> Flow:
    items = constant.items
    known = None if items is None else [unknown_number() if item is None else Length(item) for item in items]
    return none([Length(length) for length in constant.shape], known)


def _constant_node(node: Node) -> Flow:
    if (constant := node.tensor("value")) is not None:
        return _of_constant(constant)
    if "value_int" in node.given:
        return none((), [Length(node.whole("value_int", 0))])
    if (items := node.wholes("value_ints")) is not None:
        return none([Length(len(items))], [Length(item) for item in items])
    return none(() if "value_float" in node.given or "value_string" in node.given else None)
