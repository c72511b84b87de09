"""The route language of Azure IoT Edge: ``FROM /messages/* WHERE $body.temperature > 20 INTO $upstream``.

    route     : [SELECT *] FROM source [WHERE condition] INTO sink
    source    : /level/level/…        levels are names or *, matched from the left whatever follows; case does not count
    sink      : $upstream | BrokeredEndpoint("/modules/M/inputs/I")
    condition : as in condition.py, its operators in tree.LEVELS, its functions in types.FUNCTIONS

``parse_route`` and ``format_route`` are each other's inverse. Grammar and semantics follow the source of IoT Edge 1.5 (edge-hub,
Routing.Core); where it has a trap that a working route cannot depend on, we do the better thing: docs/decisions names each.
"""

from __future__ import annotations

from hedgerow.contracts.routes.condition import parse_condition
from hedgerow.contracts.routes.reader import MAX_TEXT_LENGTH, Reader, RouteInvalid
from hedgerow.contracts.routes.text import format_condition
from hedgerow.contracts.routes.tree import Expression, ModuleInput, RouteRule, Upstream

__all__ = ["Expression", "ModuleInput", "RouteInvalid", "RouteRule", "Upstream", "format_route", "parse_route"]
_SINKS = 'Write INTO $upstream or INTO BrokeredEndpoint("/modules/MODULE/inputs/INPUT").'
_INPUT_LEVELS = 4


def parse_route(text: str) -> RouteRule:
    """The rule that ``text`` states. Raises RouteInvalid, which names the place."""
    reader = Reader(text)
    if len(text) > MAX_TEXT_LENGTH:
        reader.fail(f"it has more than {MAX_TEXT_LENGTH} characters", "Split the route into several.", MAX_TEXT_LENGTH)
    if reader.take_keyword("select") and not reader.take_star():
        reader.fail("SELECT takes only *", "Write SELECT * or leave it out.")
    if not reader.take_from():
        reader.fail("FROM is missing", "Begin the route with FROM /messages/*, for example.")
    source = reader.take_path()
    if not source:
        reader.fail("the source is missing", "Write it like /messages/* or /messages/modules/M/outputs/O.")
    condition = parse_condition(reader) if reader.take_keyword("where") else None
    if not reader.take_keyword("into"):
        missing = "INTO or an operator is missing" if condition is not None else "WHERE or INTO is missing"
        reader.fail(missing, _SINKS)
    sink = _sink(reader)
    if not reader.ended:
        reader.fail("the route ends here, but more text follows", "Remove what follows, or make it a route of its own.")
    return RouteRule(source=source, condition=condition, sink=sink)


def format_route(rule: RouteRule) -> str:
    """The text of a rule, as ``parse_route`` reads it."""
    where = "" if rule.condition is None else f" WHERE {format_condition(rule.condition)}"
    return f"FROM /{'/'.join(rule.source)}{where} INTO {_sink_text(rule.sink)}"


def _sink(reader: Reader) -> Upstream | ModuleInput:
    at = reader.at
    if name := reader.take_dollar_name():
        if name.lower() != "$upstream":
            reader.fail(f"there is no sink {name}", _SINKS, at)
        return Upstream()
    if not reader.take_keyword("brokeredendpoint") or not reader.take("("):
        reader.fail("the sink is missing", _SINKS, at)
    at = reader.at
    # As IoT Edge reads it: no escapes, and only the number of levels is looked at.
    path = reader.take_raw_string()
    levels = (path or "").strip().removeprefix("/").removesuffix("/").split("/")
    if path is None or len(levels) != _INPUT_LEVELS or not all(levels):
        reader.fail("the endpoint is no input of a module", _SINKS, at)
    if not reader.take(")"):
        reader.fail("a closing ) is missing", _SINKS)
    return ModuleInput(levels[1], levels[3])


def _sink_text(sink: Upstream | ModuleInput) -> str:
    if isinstance(sink, Upstream):
        return "$upstream"
    # Names come from between quotes of one kind, so the other kind is free.
    quote = "'" if '"' in sink.module + sink.input else '"'
    return f"BrokeredEndpoint({quote}/modules/{sink.module}/inputs/{sink.input}{quote})"
