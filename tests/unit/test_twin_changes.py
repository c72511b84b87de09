"""Notifications of twin changes: made only when a route wants them, in the form that routes look into."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.entries import Entry, Mark, Receipt, read_properties
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import Router
from edge_agent.telemetry.twin_changes import TwinChanges, notification
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import Route
from hedgerow.errors import HedgerowError


class Shelf:
    """Keeps what is to be stored."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def submit_all(self, entries: Sequence[Entry]) -> Future[list[Receipt]]:
        self.entries += entries
        done: Future[list[Receipt]] = Future()
        done.set_result([Receipt(entry.stream, 1, repeated=False) for entry in entries])
        return done

    def submit_each(self, parts: Sequence[Sequence[Entry]]) -> Future[list[list[Receipt] | HedgerowError]]:
        done: Future[list[list[Receipt] | HedgerowError]] = Future()
        done.set_result([self.submit_all(part).result() for part in parts])
        return done

    def streams(self) -> tuple[str, dict[str, Mark]]:
        return "e", {}


def told(*routes: str, patch: str = '{"rate":5}', limit: int = 1000) -> list[Entry]:
    """What is stored when module ``m`` reports ``patch``."""
    shelf = Shelf()
    rules = {f"r{number}": Route(route=text) for number, text in enumerate(routes)}
    reception = Reception(shelf, Router(rules, {"m": None, "other": None}, "porch"), Metrics())
    TwinChanges(reception, SystemClock(), Metrics(), limit).told("m", patch, 7)
    return shelf.entries


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("FROM /twinChangeNotifications INTO $upstream", True),
        ("FROM /twinchangenotifications/* INTO $upstream", True),
        ("FROM /* INTO $upstream", True),
        ("FROM /messages/* INTO $upstream", False),
        ("FROM /messages/modules/m INTO $upstream", False),
        ("FROM /* WHERE twin_change_includes(properties.reported.rate) INTO $upstream", True),
        ("FROM /twinChangeNotifications WHERE twin_change_includes(properties.reported.other) INTO $upstream", False),
        ("FROM /twinChangeNotifications WHERE $body.properties.reported.rate > 4 INTO $upstream", True),
        ("FROM /twinChangeNotifications WHERE $connectionModuleId = 'other' INTO $upstream", False),
        ("FROM /twinChangeNotifications WHERE opType = 'updateTwin' INTO $upstream", True),
    ],
)
def test_only_a_route_that_wants_them_gets_them(route: str, wanted: bool) -> None:
    assert [entry.stream for entry in told(route)] == (["telemetry"] if wanted else [])


def test_without_routes_nobody_asked() -> None:
    assert told() == []


def test_the_message_is_as_iot_hub_gives_it() -> None:
    (entry,) = told("FROM /twinChangeNotifications INTO $upstream", patch='{"rate":5,"off":null}')
    reported = {"rate": 5, "off": None, "$version": 7}
    assert (entry.module, json.loads(entry.body)) == ("m", {"version": 7, "properties": {"reported": reported}})
    assert read_properties(entry.properties or "") == {
        "opType": "updateTwin",
        "iothub-message-schema": "twinChangeNotification",
    }
    assert json.loads(notification("m", "{}", 1, 0).body) == {"version": 1, "properties": {"reported": {"$version": 1}}}


def test_a_module_can_get_them() -> None:
    (entry,) = told('FROM /twinChangeNotifications INTO BrokeredEndpoint("/modules/other/inputs/twins")')
    assert (entry.stream, entry.local) == ("input.other.twins", True)


def test_one_that_is_too_large_is_not_told_on() -> None:
    assert told("FROM /* INTO $upstream", patch=json.dumps({"x": "y" * 1000})) == []
