"""HAProxy's files from a routing table: what they look like, what counts as structure, and how to change the rest at run time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.controller.balancer.direct import MISSING, NoBalancer
from registry.controller.balancer.haproxy_config import HaproxyOptions, commands, map_lines, render, slots_of
from registry.controller.balancer.port import Pool, RoutingTable, Slot, served
from registry.controller.services.routing import routes, slot_count
from tests.service_builders import deployment, replica, situation

GOLDEN = Path(__file__).with_name("golden") / "haproxy.cfg"
OPTIONS = HaproxyOptions(port=8090, threads=2, max_connections=4000, uid=65534)
SLOTS = (Slot("ready", 40001), Slot("drain", 40002), Slot("off", None), Slot("off", 40003))
BLUE = Pool("churn", "blue", max_concurrent=8, queue_wait_ms=500, timeout_ms=60_000, slots=SLOTS)
GREEN = Pool("churn", "green", max_concurrent=1, queue_wait_ms=0, timeout_ms=1_500, slots=(Slot("ready", 40004), Slot()))
TABLE = RoutingTable((BLUE, GREEN), {"churn": {"blue": 90, "green": 10}})


def with_slots(*slots: Slot) -> RoutingTable:
    return RoutingTable((replace(BLUE, slots=slots), GREEN), TABLE.traffic)


def test_the_configuration_is_the_golden_one() -> None:
    assert render(TABLE, OPTIONS).config == GOLDEN.read_text(), f"if this change is meant, write it to {GOLDEN}"


def test_structure_is_what_needs_a_reload() -> None:
    structure = render(TABLE, OPTIONS).structure
    assert structure in render(TABLE, OPTIONS).config
    moved = with_slots(Slot(), Slot(), Slot("ready", 50001), Slot("drain", 50002))
    assert render(moved, OPTIONS).structure == structure
    assert render(RoutingTable(TABLE.pools, {"churn": {"green": 100}}), OPTIONS).structure == structure
    others = [
        with_slots(*SLOTS, Slot()),
        RoutingTable((BLUE,), TABLE.traffic),
        RoutingTable((replace(BLUE, timeout_ms=1), GREEN), TABLE.traffic),
    ]
    for other in others:
        assert render(other, OPTIONS).structure != structure
    assert render(TABLE, replace(OPTIONS, port=8091)).structure != structure


def test_the_map_gives_each_deployment_its_share_of_a_hundred_buckets() -> None:
    lines = map_lines(TABLE)
    assert len(lines) == 100
    assert sum(line.endswith(" d:churn:green") for line in lines) == 10
    assert {line.split()[0] for line in lines} == {f"churn:{number}" for number in range(100)}
    without_green = map_lines(RoutingTable((BLUE,), TABLE.traffic))
    assert len(without_green) == 90, "the share of an absent deployment leads nowhere, not to somebody else"


def test_commands_touch_only_what_changed() -> None:
    now, server = slots_of(TABLE), "set server d:churn:blue"
    assert commands(now, TABLE) == []
    assert commands(now, with_slots(Slot("off", 40001), *SLOTS[1:])) == [f"{server}/slot1 state maint"]
    assert commands(now, with_slots(Slot("drain", 40001), *SLOTS[1:])) == [f"{server}/slot1 state drain"]
    assert commands(now, with_slots(*SLOTS[:2], Slot("ready", 50001), Slot())) == [
        f"{server}/slot3 addr 127.0.0.1 port 50001",
        f"{server}/slot3 state ready",
    ]
    assert commands(now, with_slots(Slot("ready", 50001), *SLOTS[1:])) == [
        f"{server}/slot1 state maint",
        f"{server}/slot1 addr 127.0.0.1 port 50001",
        f"{server}/slot1 state ready",
    ]


def test_replicas_come_in_before_others_go_out() -> None:
    swapped = with_slots(Slot("drain", 40001), Slot("drain", 40002), Slot("ready", 50001), Slot("off"))
    states = [command.split()[-1] for command in commands(slots_of(TABLE), swapped) if " state " in command]
    assert states == ["ready", "drain"]


SLOT = st.builds(Slot, st.sampled_from(["ready", "drain", "off"]), st.integers(1, 65535))


@given(st.lists(SLOT, min_size=4, max_size=4), st.lists(SLOT, min_size=4, max_size=4))
def test_commands_lead_from_anywhere_to_what_is_wanted(before: list[Slot], wanted: list[Slot]) -> None:
    now = slots_of(with_slots(*before))
    for command in commands(now, with_slots(*wanted)):
        found = re.fullmatch(r"set server (\S+) (?:state (\w+)|addr 127\.0\.0\.1 port (\d+))", command)
        assert found is not None, command
        old = now[found[1]]
        if found[2]:
            state: Any = "off" if found[2] == "maint" else found[2]
            now[found[1]] = replace(old, state=state)
        else:
            assert old.state == "off", "an address changes only out of use"
            now[found[1]] = replace(old, port=int(found[3]))
    for one, slot in slots_of(with_slots(*wanted)).items():
        assert now[one].state == slot.state
        assert slot.state == "off" or now[one] == slot


# --- from a situation to a table -----------------------------------------------------------------------------------------


def test_slots_hold_what_replicas_are() -> None:
    blue = deployment(replicas=2, max_concurrent_requests=3)
    seen = [
        replica(blue, id="r1", slot=0),
        replica(blue, id="r2", slot=1, phase="drain"),
        replica(blue, id="r3", slot=2, phase="stop"),
        replica(blue, "starting", id="r4", slot=3),
        replica(blue, "ended", id="r5", slot=4),
    ]
    (pool,) = routes([], situation([blue], seen)).pools
    assert pool.slots == (Slot("ready", 40000), Slot("drain", 40001), *[Slot()] * 6)
    assert (pool.max_concurrent, pool.queue_wait_ms, pool.timeout_ms) == (3, 500, 60_000)


@pytest.mark.parametrize(("needed", "count"), [(0, 4), (4, 4), (5, 8), (16, 16), (1999, 2048)])
def test_slots_are_declared_ahead(needed: int, count: int) -> None:
    assert slot_count(needed) == count


def test_an_endpoint_is_served_by_a_ready_replica_with_traffic() -> None:
    assert served(TABLE) == ["churn"]
    assert served(RoutingTable((GREEN, replace(BLUE, slots=(Slot(),))), {"churn": {"blue": 100}})) == []


def test_without_a_balancer_the_address_of_the_replica_is_the_url() -> None:
    routed = NoBalancer().apply(RoutingTable((BLUE,), {"churn": {"blue": 100}}))
    assert (routed.urls, routed.note) == ({"churn": "http://127.0.0.1:40001/score"}, MISSING)
    gone = NoBalancer().apply(RoutingTable((replace(BLUE, slots=(Slot(),)),), {"churn": {"blue": 100}}))
    assert gone.urls == {"churn": None}
