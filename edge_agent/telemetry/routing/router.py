"""Where a message goes: the routes of the desired state in force, applied to one message. Pure; a new state brings a new Router.

No routes at all: everything goes to the hub. Otherwise every route whose source and condition fit adds its sink; of two routes
into the same sink the one with the higher priority counts. Names of modules in routes may be those they have elsewhere (IoT
Edge's ``TempSensor``); letters' case does not count in sources and endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.telemetry.routing.evaluator import matches
from edge_agent.telemetry.routing.message import TWIN_CHANGES, ModuleMessage
from edge_agent.telemetry.routing.streams import DEFAULT_STREAM, input_stream, route_stream
from edge_agent.telemetry.routing.values import MessageView
from hedgerow.contracts.edge import DesiredState, Route
from hedgerow.contracts.routes.route import Expression, ModuleInput, RouteInvalid, parse_route

# Below every priority that a route can have.
_LAST = 10
_MODULE_LEVEL = 2
_ANY_LEVEL = "*"
_JSON = {"contentType": "application/json", "contentEncoding": "utf-8"}


@dataclass(frozen=True)
class Destination:
    """A stream of the buffer to store in. ``module`` and ``input`` are those of a local one, None for the hub's.

    ``priority`` and ``time_to_live_s`` are the route's; None leaves it to the deployment's policy.
    """

    stream: str
    priority: int | None = None
    time_to_live_s: int | None = None
    module: str | None = None
    input: str | None = None


@dataclass(frozen=True)
class Destinations:
    """Where one message goes: to the hub, to inputs of modules, to both, or nowhere."""

    upstream: Destination | None = None
    local: tuple[Destination, ...] = ()

    @property
    def nowhere(self) -> bool:
        """True when no route fits."""
        return self.upstream is None and not self.local


@dataclass(frozen=True)
class _Compiled:
    source: tuple[str, ...]
    condition: Expression | None
    destination: Destination

    @property
    def urgency(self) -> int:
        priority = self.destination.priority
        return _LAST if priority is None else priority


class Router:
    """``modules`` are all modules of the device with the name that each has elsewhere, None for none.

    ``problems`` has a sentence for each route that cannot be used. A message that no other route takes goes to the hub then:
    a mistake in a route must not lose data.
    """

    def __init__(self, routes: Mapping[str, Route], modules: Mapping[str, str | None], device: str) -> None:
        self._display = {name: shown or name for name, shown in modules.items()}
        # Our names last: they win over another module's display name.
        self._names = {shown.lower(): name for name, shown in self._display.items()} | {name: name for name in modules}
        self._device = device
        self._everything = not routes
        problems: dict[str, str] = {}
        compiled = [rule for name, route in routes.items() if (rule := self._compile(name, route, problems)) is not None]
        # Stable: among equals the first stays first.
        self._rules = sorted(compiled, key=lambda rule: rule.urgency)
        self.problems: Mapping[str, str] = problems
        self._conditions = any(rule.condition is not None for rule in self._rules)
        # Told of in the grammar's own words: without a route nobody asked for them.
        self.takes_twin_changes = any(_fits(rule.source, (TWIN_CHANGES.lower(),)) for rule in self._rules)

    @property
    def inputs(self) -> Mapping[str, tuple[str, str]]:
        """Streams between modules, each with module and input that it is for."""
        sinks = [rule.destination for rule in self._rules]
        return {sink.stream: (sink.module, sink.input) for sink in sinks if sink.module is not None and sink.input is not None}

    @property
    def priorities(self) -> Mapping[str, int | None]:
        """Streams that routes make, each with the highest priority that a route gives it."""
        return {rule.destination.stream: rule.destination.priority for rule in reversed(self._rules)}

    def destinations(self, message: ModuleMessage) -> Destinations:
        """Where ``message`` goes. Never raises."""
        if self._everything:
            return Destinations(Destination(message.stream or DEFAULT_STREAM))
        path = self._path(message)
        view = self._view(message) if self._conditions else None
        upstream: Destination | None = None
        local: dict[str, Destination] = {}
        for rule in self._rules:
            sink = rule.destination
            taken = upstream is not None if sink.module is None else sink.stream in local
            if taken or not _fits(rule.source, path) or not (view is None or matches(rule.condition, view)):
                continue
            if sink.module is None:
                upstream = sink
            else:
                local[sink.stream] = sink
        if upstream is None and not local and self.problems:
            upstream = Destination(DEFAULT_STREAM)
        return Destinations(_in_own_stream(upstream, message), tuple(local.values()))

    def _compile(self, name: str, route: Route, problems: dict[str, str]) -> _Compiled | None:
        try:
            rule = parse_route(route.route)
        except RouteInvalid as problem:
            problems[name] = problem.sentence()
            return None
        time_to_live_s = route.time_to_live_s or None
        if isinstance(rule.sink, ModuleInput):
            module = self._names.get(rule.sink.module.lower())
            if module is None:
                problems[name] = f"It sends to {rule.sink.module}, which is no module of this device."
                return None
            stream = input_stream(module, rule.sink.input)
            sink = Destination(stream, route.priority, time_to_live_s, module, rule.sink.input)
        else:
            own = route.priority is not None or time_to_live_s is not None
            sink = Destination(route_stream(name) if own else DEFAULT_STREAM, route.priority, time_to_live_s)
        return _Compiled(self._levels(rule.source), rule.condition, sink)

    def _levels(self, source: tuple[str, ...]) -> tuple[str, ...]:
        """The levels to compare; a star at the end is what every source has anyway, as it is matched from the left."""
        levels = [level.lower() for level in source]
        levels[-1:] = [last] if (last := levels[-1].rstrip("*")) else []
        if levels[:_MODULE_LEVEL] == ["messages", "modules"] and len(levels) > _MODULE_LEVEL:
            levels[_MODULE_LEVEL] = self._names.get(levels[_MODULE_LEVEL], levels[_MODULE_LEVEL])
        return tuple(levels)

    def _path(self, message: ModuleMessage) -> tuple[str, ...]:
        if message.origin != "messages":
            return (message.origin.lower(),)
        path = ("messages", "modules", message.module)
        return path if message.output is None else (*path, "outputs", message.output.lower())

    def _view(self, message: ModuleMessage) -> MessageView:
        module = self._display.get(message.module, message.module)
        known = {"connectionDeviceId": self._device, "connectionModuleId": module}
        if message.output is not None:
            known["outputName"] = message.output
        # What the connection is cannot be claimed by a message.
        return MessageView(message.body, message.properties, {**_JSON, **message.system, **known})


def router_of(state: DesiredState | None, device: str) -> Router:
    """The router of a desired state; None is the time before there is one."""
    if state is None:
        return Router({}, {}, device)
    return Router(state.routes, {name: module.spec.display_name for name, module in state.modules.items()}, device)


def _fits(source: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return len(source) <= len(path) and all(level in (_ANY_LEVEL, there) for level, there in zip(source, path, strict=False))


def _in_own_stream(upstream: Destination | None, message: ModuleMessage) -> Destination | None:
    """A module that chose a stream itself keeps it."""
    if upstream is None or message.stream is None:
        return upstream
    return Destination(message.stream, upstream.priority, upstream.time_to_live_s)
