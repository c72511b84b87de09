"""Where messages go: the routes of a deployment, applied."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import BufferFull, MessageRefused
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.entries import START, Entry, Mark, Receipt
from edge_agent.telemetry.reception import STREAMS_MAX, STREAMS_OF_ONE_MAX, Reception
from edge_agent.telemetry.routing.message import ModuleMessage, read_delivery, unwrapped, wrapped
from edge_agent.telemetry.routing.router import Destination, Router, router_of
from edge_agent.telemetry.routing.streams import input_stream, route_stream
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Route
from hedgerow.contracts.names import check_known_name
from hedgerow.errors import HedgerowError, InvalidName
from tests.agent_builders import desired

MODULES = {"tempsensor": "TempSensor", "filter": None, "logger": None}
UP = "FROM /messages/* INTO $upstream"
TO_FILTER = 'BrokeredEndpoint("/modules/filter/inputs/in1")'


def router(**routes: str | Route) -> Router:
    rules = {name: route if isinstance(route, Route) else Route(route=route) for name, route in routes.items()}
    return Router(rules, MODULES, "porch")


def message(module: str = "tempsensor", output: str | None = "out", **fields: Any) -> ModuleMessage:
    return ModuleMessage(module=module, body='{"t": 25}', time_ms=1, output=output, **fields)


def goes(rules: Router, what: ModuleMessage) -> list[str]:
    found = rules.destinations(what)
    return [one.stream for one in (found.upstream, *found.local) if one is not None]


def test_without_routes_everything_goes_to_the_hub() -> None:
    assert goes(router(), message()) == ["telemetry"]
    assert goes(router_of(None, "porch"), message(stream="alerts")) == ["alerts"]


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("/*", True),
        ("/messages", True),
        ("/messages/*", True),
        ("/Messages/Modules/TEMPSENSOR/*", True),
        ("/messages/modules/TempSensor", True),
        ("/messages/modules/tempsensor/outputs/*", True),
        ("/messages/modules/*/outputs/out", True),
        ("/messages/modules/TempSensor/outputs/Out", True),
        ("/messages/modules/TempSensor/outputs/out/deeper", False),
        ("/messages/modules/TempSensor/outputs/ou", False),
        ("/messages/modules/Temp*", False),
        ("/messages/modules/filter/*", False),
        ("/twinChangeNotifications", False),
    ],
)
def test_sources(source: str, fits: bool) -> None:
    assert goes(router(a=f"FROM {source} INTO $upstream"), message()) == (["telemetry"] if fits else [])


def test_a_message_without_an_output_has_no_outputs() -> None:
    assert goes(router(a="FROM /messages/modules/TempSensor/outputs/* INTO $upstream"), message(output=None)) == []
    assert goes(router(a="FROM /messages/modules/TempSensor/* INTO $upstream"), message(output=None)) == ["telemetry"]


def test_a_twin_change_is_another_source() -> None:
    rules = router(a="FROM /twinChangeNotifications INTO $upstream")
    assert goes(rules, message(origin="twinChangeNotifications")) == ["telemetry"]


def test_conditions_see_the_module_as_it_is_called_elsewhere() -> None:
    rules = router(a="FROM /* WHERE $connectionModuleId = 'TempSensor' AND $connectionDeviceId = 'porch' INTO $upstream")
    assert goes(rules, message()) == ["telemetry"]
    assert goes(rules, message("filter")) == []
    assert goes(rules, message("filter", system={"connectionModuleId": "TempSensor"})) == [], "nobody can claim to be another"


def test_conditions_see_properties_body_and_output() -> None:
    rules = router(a="FROM /* WHERE $body.t > 20 AND level = 'high' AND $outputName = 'out' INTO $upstream")
    assert goes(rules, message(properties={"Level": "high"})) == ["telemetry"]
    assert goes(rules, message(properties={"Level": "low"})) == []
    assert goes(rules, message(output="other", properties={"Level": "high"})) == []


def test_a_message_goes_to_several_places_once_each() -> None:
    rules = router(
        a=UP,
        b=f"FROM /* INTO {TO_FILTER}",
        c="FROM /* INTO BrokeredEndpoint('/modules/Filter/inputs/in1')",
        d="FROM /* INTO BrokeredEndpoint('/modules/logger/inputs/In 1')",
    )
    found = rules.destinations(message())
    assert found.upstream == Destination("telemetry")
    assert [(one.module, one.input, one.stream) for one in found.local] == [
        ("filter", "in1", "input.filter.in1"),
        ("logger", "In 1", input_stream("logger", "In 1")),
    ]


def test_the_higher_priority_into_the_same_endpoint_counts() -> None:
    rules = router(low=UP, high=Route(route=UP, priority=1), middle=Route(route=UP, priority=5, time_to_live_s=60))
    assert rules.destinations(message()).upstream == Destination("route.high", priority=1)


def test_a_route_with_its_own_priority_or_time_has_its_own_stream() -> None:
    rules = router(Alerts=Route(route=UP, time_to_live_s=60))
    assert rules.destinations(message()).upstream == Destination(route_stream("Alerts"), time_to_live_s=60)
    assert rules.destinations(message(stream="mine")).upstream == Destination("mine", time_to_live_s=60)


def test_a_route_that_cannot_be_used_is_told_and_loses_nothing() -> None:
    rules = router(
        good=f"FROM /messages/modules/filter INTO {TO_FILTER}",
        bad="FROM /messages INTO",
        gone="FROM /* INTO " + TO_FILTER.replace("filter", "nobody"),
    )
    assert set(rules.problems) == {"bad", "gone"}
    assert "the sink is missing" in rules.problems["bad"]
    assert "nobody" in rules.problems["gone"]
    assert goes(rules, message()) == ["telemetry"]
    assert goes(rules, message("filter")) == ["input.filter.in1"]


def test_a_desired_state_brings_its_routes_and_names() -> None:
    modules = {"tempsensor": DesiredModule(spec=ModuleSpec(command=["x"], display_name="TempSensor"))}
    routes = {"a": Route(route="FROM /messages/modules/TempSensor/* INTO $upstream")}
    state = msgspec.structs.replace(desired(modules), routes=routes)
    rules = router_of(state, "porch")
    assert goes(rules, message()) == ["telemetry"]
    assert goes(rules, message("other")) == []


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_streams_have_good_names_and_do_not_meet(one: str, other: str) -> None:
    streams = [input_stream("m", one), input_stream("m", other), input_stream(one, other), route_stream(one), route_stream(other)]
    for stream in streams:
        assert check_known_name(stream, "stream") == stream
    assert (streams[0] == streams[1]) == (one == other) == (streams[3] == streams[4])
    assert not set(streams[:3]) & set(streams[3:])


def test_dots_in_names_do_not_mix_streams_up() -> None:
    assert input_stream("a.b", "c") != input_stream("a", "b.c")


@given(st.binary(max_size=50))
def test_any_bytes_travel_between_modules(payload: bytes) -> None:
    body, encoding = wrapped(payload)
    assert unwrapped(body, encoding) == payload


class Buffer:
    """Keeps entries in memory, as a store that answers at once."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.entries: list[Entry] = []
        self.problem = problem

    def submit_all(self, entries: Any) -> Future[list[Receipt]]:
        done: Future[list[Receipt]] = Future()
        if self.problem is not None:
            done.set_exception(self.problem)
            return done
        self.entries += entries
        done.set_result([Receipt(entry.stream, 1, repeated=False) for entry in entries])
        return done

    def submit_each(self, parts: Sequence[Sequence[Entry]]) -> Future[list[list[Receipt] | HedgerowError]]:
        done: Future[list[list[Receipt] | HedgerowError]] = Future()
        if isinstance(self.problem, HedgerowError):
            done.set_result([self.problem for _ in parts])
        else:
            done.set_result([self.submit_all(part).result() for part in parts])
        return done

    def streams(self) -> tuple[str, dict[str, Mark]]:
        return "e", {entry.stream: START for entry in self.entries if not entry.local}


def counted(metrics: Metrics, name: str) -> float:
    return sum(sample.value for sample in metrics.samples() if sample.name == name)


def test_what_is_received_is_stored_in_one_go() -> None:
    buffer, metrics = Buffer(), Metrics()
    reception = Reception(buffer, router(a=Route(route=UP, priority=2, time_to_live_s=9), b=f"FROM /* INTO {TO_FILTER}"), metrics)
    receipts = reception.take(message(key="k", properties={"p": "v"}, system={"contentType": "text/plain"}))
    assert [receipt.stream for receipt in receipts] == ["route.a", "input.filter.in1"]
    up, local = buffer.entries
    told = '{"p":"v","$.on":"out","$.ct":"text/plain"}'
    assert up == Entry("route.a", "tempsensor", 1, '{"t": 25}', key="k", time_to_live_s=9, priority=2, properties=told)
    assert (local.local, local.module, local.key) == (True, "tempsensor", "k")
    delivery = read_delivery(local.body)
    assert delivery.payload() == b'{"t": 25}'
    assert (delivery.source, delivery.output, delivery.properties, delivery.system) == (
        "tempsensor",
        "out",
        {"p": "v"},
        {"contentType": "text/plain"},
    )
    assert counted(metrics, "edgehub_messages_received_total") == 1


def test_what_no_route_wants_is_answered_and_counted() -> None:
    buffer, metrics = Buffer(), Metrics()
    reception = Reception(buffer, router(a=UP), metrics)
    reception.use(router(a=f"FROM /messages/modules/filter INTO {TO_FILTER}"))
    assert reception.take(message()) == []
    assert buffer.entries == []
    dropped = [sample for sample in metrics.samples() if sample.name == "edgehub_messages_dropped_total"]
    assert [(sample.value, sample.labels["reason"]) for sample in dropped] == [(1, "no_route")]


def test_a_module_cannot_write_into_another_ones_input() -> None:
    with pytest.raises(MessageRefused, match=r"input\.filter\.in1"):
        Reception(Buffer(), router(), Metrics()).take(message(stream="input.filter.in1"))


def test_what_cannot_be_stored_is_told_and_counted() -> None:
    metrics = Metrics()
    with pytest.raises(BufferFull):
        Reception(Buffer(BufferFull(quota=1)), router(), metrics).take(message())
    assert counted(metrics, "edgehub_messages_unack_total") == 1
    assert counted(metrics, "edgehub_messages_received_total") == 0


def test_several_messages_go_into_one_commit_and_a_key_counts_once() -> None:
    buffer, metrics = Buffer(), Metrics()
    reception = Reception(buffer, router(a=UP, b=f"FROM /* INTO {TO_FILTER}"), metrics)
    messages = [message(key="k1"), message(key="k1"), message("filter", key="k1"), message(), message()]
    receipts = reception.submit_many(messages).result()
    assert len(receipts) == len(buffer.entries) == 8
    assert [entry.key for entry in buffer.entries if not entry.local] == ["k1", "k1", None, None]
    assert counted(metrics, "edgehub_messages_received_total") == 4


def test_streams_of_a_modules_choice_are_named_well_and_limited() -> None:
    reception = Reception(Buffer(), router(), Metrics())
    with pytest.raises(InvalidName):
        reception.take(message(stream="No such name"))
    for number in range(STREAMS_MAX):
        reception.take(message(f"m{number // STREAMS_OF_ONE_MAX}", stream=f"s{number}"))
    with pytest.raises(MessageRefused, match="module m0 has sent to 8 streams"):
        reception.take(message("m0", stream="one-more"))
    with pytest.raises(MessageRefused, match="64 streams"):
        reception.take(message("another", stream="one-more"))
    assert reception.take(message("another", stream="s1"))


def test_each_of_many_messages_is_stored_or_refused_for_itself_and_counted() -> None:
    buffer, metrics = Buffer(), Metrics()
    reception = Reception(buffer, router(a=UP, b=f"FROM /* INTO {TO_FILTER}"), metrics)
    stream = f"s{STREAMS_OF_ONE_MAX}"
    for number in range(STREAMS_OF_ONE_MAX):
        reception.take(message(stream=f"s{number}"))
    before = len(buffer.entries)
    outcomes = reception.submit_each([message(), message(stream=stream), message("filter")]).result()
    assert [len(outcome) for outcome in outcomes if isinstance(outcome, list)] == [2, 2]
    assert isinstance(outcomes[1], MessageRefused)
    assert len(buffer.entries) == before + 4
    assert counted(metrics, "edgehub_messages_received_total") == STREAMS_OF_ONE_MAX + 2
    nowhere = Reception(buffer, router(b="FROM /messages/modules/other/* INTO $upstream"), metrics)
    assert nowhere.submit_each([message()]).result() == [[]]
    full = Reception(Buffer(BufferFull(quota=1)), router(), metrics)
    assert [type(outcome) for outcome in full.submit_each([message(), message()]).result()] == [BufferFull, BufferFull]
    assert counted(metrics, "edgehub_messages_unack_total") == 2


def test_the_streams_of_routes_are_not_the_modules_choice() -> None:
    reception = Reception(Buffer(), router(), Metrics())
    for number in range(STREAMS_OF_ONE_MAX):
        reception.take(message(stream=f"s{number}"))
    assert reception.take(message())
