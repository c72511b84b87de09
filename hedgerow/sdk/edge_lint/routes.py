"""Routes that cannot be read, name what is not there, say what is said already, or leave messages without a way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding, did_you_mean, error, note, warning
from hedgerow.contracts.routes.route import ModuleInput, RouteInvalid, RouteRule, Upstream, format_route, parse_route
from hedgerow.contracts.routes.tree import Constant

_FOLDER = ("messages", "modules")
# What a source may begin with, in lower case: everything, what modules send, and changes of what they report.
_ORIGINS = ("*", "messages", "twinchangenotifications")
# A module's messages come at /messages/modules/M/outputs/O, also those that name no output.
_OUTPUTS = "outputs"
_SHORT_TTL_S = 60


def route_findings(deployment: EdgeDeployment) -> Iterator[Finding]:
    """In the order of the routes; then what all of them together leave out."""
    known = _names(deployment)
    rules: dict[str, RouteRule] = {}
    for name, route in deployment.routes.items():
        place = f"$.routes.{name}"
        try:
            rule = parse_route(route.route)
        except RouteInvalid as problem:
            yield error(place, str(problem), problem.advice)
            continue
        yield from _rule_findings(place, rule, known, layered=deployment.layered)
        twin = next((other for other, there in rules.items() if format_route(there) == format_route(rule)), None)
        if twin is not None:
            yield warning(place, f"it says the same as route {twin}", "Take one of them away.")
        rules[name] = rule
    yield from _overshadowed(deployment, rules)
    yield from _ttl_findings(deployment)
    if rules and not deployment.layered:
        yield from _left_out(deployment, rules)


def _rule_findings(place: str, rule: RouteRule, known: Mapping[str, str], *, layered: bool) -> Iterator[Finding]:
    levels = tuple(level.lower() for level in rule.source)
    if levels[0] not in _ORIGINS:
        advice = "Begin with /messages, or with /twinChangeNotifications for changes of what modules report."
        yield warning(place, f"there are no messages at /{'/'.join(rule.source)}", advice)
    sender = levels[2] if len(levels) > 2 and levels[:2] == _FOLDER and levels[2] != "*" else None
    for module, where in ((sender, "comes from"), (_receiver(rule), "goes to")):
        if module is not None and module not in known:
            text = f"it {where} module {module!r}, which is not in this deployment"
            # A layer may speak of what lies below it.
            yield (note(place, text) if layered else error(place, text, did_you_mean(module, known)))
    if sender is not None and known.get(sender) == known.get(_receiver(rule) or "", ""):
        yield warning(place, "the module gets its own messages back", "Send them somewhere else.")
    if rule.condition is not None and isinstance(rule.condition, Constant) and rule.condition.value is not True:
        yield warning(place, "its condition never holds, so nothing takes this way", "Take the route away.")


def _overshadowed(deployment: EdgeDeployment, rules: Mapping[str, RouteRule]) -> Iterator[Finding]:
    """Of two routes to one place a message takes the one of higher priority: another one with less room is never taken."""
    for name, rule in rules.items():
        for other, wider in rules.items():
            above = _rank(deployment.routes[other].priority) < _rank(deployment.routes[name].priority)
            if (
                above
                and wider.sink == rule.sink
                and wider.condition in (None, rule.condition)
                and _covers(wider.source, rule.source)
            ):
                text = f"nothing takes this way: route {other} leads to the same place, with a higher priority, for all of it"
                yield warning(f"$.routes.{name}", text, "Take it away, or give it the higher priority.")
                break


def _rank(priority: int | None) -> int:
    return 10 if priority is None else priority


def _covers(wider: tuple[str, ...], source: tuple[str, ...]) -> bool:
    levels = zip(wider, source, strict=False)
    return len(wider) <= len(source) and all(one == "*" or one.lower() == other.lower() for one, other in levels)


def _ttl_findings(deployment: EdgeDeployment) -> Iterator[Finding]:
    seconds = deployment.telemetry.time_to_live_s
    if seconds is not None and seconds < _SHORT_TTL_S:
        text = f"messages that wait longer than {seconds} s are dropped: every short break of the network costs some"
        yield warning("$.telemetry.time_to_live_s", text, "Give it hours, or leave it out: for ever.")
    for name, route in deployment.routes.items():
        if 0 < route.time_to_live_s < _SHORT_TTL_S:
            text = f"its messages are dropped after {route.time_to_live_s} s without a way"
            yield warning(f"$.routes.{name}.time_to_live_s", text, "0 is the deployment's own time.")
    given = {route.priority for route in deployment.routes.values()}
    if None in given and len(given) > 1:
        bare = sorted(name for name, route in deployment.routes.items() if route.priority is None)
        text = f"what has no priority goes last, after priority 9: {', '.join(bare)}"
        yield note("$.routes", text)


def _left_out(deployment: EdgeDeployment, rules: Mapping[str, RouteRule]) -> Iterator[Finding]:
    if not any(isinstance(rule.sink, Upstream) for rule in rules.values()):
        yield warning("$.routes", "no route leads to $upstream, so nothing leaves the device", "Add one INTO $upstream.")
    for name, spec in deployment.modules.items():
        names = {name, spec.shown_as(name).lower()}
        if not any(_may_match(rule, names) for rule in rules.values()):
            text = "no route takes what it sends, so its messages are dropped"
            yield note(f"$.modules.{name}", text, f"Add a route FROM /messages/modules/{spec.shown_as(name)}/*.")


def _may_match(rule: RouteRule, module: set[str]) -> bool:
    at = ({"messages"}, {"modules"}, module, {_OUTPUTS})
    return all(level == "*" or level.lower() in names for level, names in zip(rule.source, at, strict=False))


def _receiver(rule: RouteRule) -> str | None:
    return rule.sink.module.lower() if isinstance(rule.sink, ModuleInput) else None


def _names(deployment: EdgeDeployment) -> dict[str, str]:
    """Our name by every name that a route may call a module, in lower case."""
    shown = {spec.shown_as(name).lower(): name for name, spec in deployment.modules.items()}
    return {**shown, **{name: name for name in deployment.modules}}
