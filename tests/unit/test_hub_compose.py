"""Composition of deployments and layers for one device."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec, Route, StreamPolicy, TelemetryPolicy
from hedgerow.contracts.foreign_image import is_foreign, pin_of, pull_reference, written_out
from hedgerow.contracts.merge_patch import merge_patch
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, StatusReport
from registry.hub.compose import Composition, Incomposable, candidates, compose, next_state
from registry.hub.reported import facts_of

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def deployment(name: str, priority: int = 0, age_h: int = 0, target: str = "*", **fields: Any) -> EdgeDeployment:
    modules = {module: ModuleSpec(command=[name]) for module in fields.pop("modules", ())}
    created = NOW - timedelta(hours=age_h)
    return EdgeDeployment(name=name, target=target, priority=priority, modules=modules, created_at=created, **fields)


def layer(name: str, priority: int = 0, age_h: int = 0, **fields: Any) -> EdgeDeployment:
    return deployment(name, priority, age_h, layered=True, **fields)


def composed(*deployments: EdgeDeployment, reported: dict[str, str] | None = None) -> Composition:
    found = compose("press", {"site": "north"}, candidates(deployments), {}, reported or {})
    assert isinstance(found, Composition)
    return found


def commands(found: Composition) -> dict[str, str]:
    return {name: module.spec.command[0] for name, module in found.modules.items()}


def test_layers_lie_on_the_winner_in_order_of_priority() -> None:
    found = composed(
        layer("upper", 9, modules=["b", "c"]),
        deployment("loser", 1, modules=["z"]),
        layer("lower", 6, modules=["a", "b"]),
        deployment("winner", 5, modules=["a", "m"]),
    )
    assert commands(found) == {"m": "winner", "a": "lower", "b": "upper", "c": "upper"}
    assert (found.edge_deployment, found.layers) == ("winner", ("lower", "upper"))


def test_of_equal_priority_a_layer_counts_more_than_the_base_and_a_newer_one_more_than_an_older() -> None:
    found = composed(
        deployment("base", modules=["m", "n"]), layer("new", modules=["m"]), layer("old", age_h=1, modules=["m", "n"])
    )
    assert commands(found) == {"m": "new", "n": "old"}


def test_only_images_that_would_run_have_to_be_there() -> None:
    base = msgspec.structs.replace(deployment("base"), modules={"m": ModuleSpec(image="gone:1"), "n": ModuleSpec(command=["n"])})
    found = compose("press", {}, candidates([base]), {})
    assert found == Incomposable("base", "gone:1")
    assert commands(composed(base, layer("over", 1, modules=["m"]))) == {"m": "over", "n": "n"}


def test_below_the_winner_a_layer_only_adds() -> None:
    found = composed(deployment("base", 5, modules=["m"]), layer("under", 1, modules=["m", "n"]))
    assert commands(found) == {"m": "base", "n": "under"}


def test_a_layer_alone_is_nothing() -> None:
    found = composed(layer("alone", modules=["m"]), deployment("elsewhere", target="tags.site='south'", modules=["x"]))
    assert (found.edge_deployment, found.modules, found.layers) == (None, {}, ())


def test_a_layer_that_does_not_match_is_left_out() -> None:
    assert composed(deployment("base"), layer("far", modules=["m"], target="tags.site = 'south'")).layers == ()


def test_twins_are_merged_removed_or_replaced() -> None:
    base = deployment("base", modules=["m"], twins={"m": {"rate": 1, "limits": {"low": 1, "high": 9}, "old": True}})
    patch = layer("patch", 1, twins={"m": {"limits": {"high": 5}, "old": None}, "absent": {"x": 1}})
    assert composed(base, patch).twins == {"m": {"rate": 1, "limits": {"low": 1, "high": 5}}}
    whole = layer("whole", 2, twins={"m": {"only": 1}}, replaced_twins=["m"])
    assert composed(base, patch, whole).twins == {"m": {"only": 1}}
    above = msgspec.structs.replace(whole, replaced_twins=[])
    assert composed(base, patch, above).twins == {"m": {"rate": 1, "limits": {"low": 1, "high": 5}, "only": 1}}


def test_routes_are_added_and_overwritten() -> None:
    base = deployment("base", routes={"a": Route(route="A"), "b": Route(route="B")})
    found = composed(base, layer("l", 1, routes={"b": Route(route="B2"), "c": Route(route="C")}))
    assert {name: route.route for name, route in found.routes.items()} == {"a": "A", "b": "B2", "c": "C"}


def test_telemetry_of_a_layer_counts_where_it_says_something() -> None:
    base = deployment("base", telemetry=TelemetryPolicy(time_to_live_s=60, streams={"x": StreamPolicy(priority=1)}))
    silent = layer("silent", 1, telemetry=TelemetryPolicy(streams={"y": StreamPolicy(priority=2)}))
    found = composed(base, silent).telemetry
    assert (found.time_to_live_s, sorted(found.streams)) == (60, ["x", "y"])
    assert composed(base, layer("loud", 2, telemetry=TelemetryPolicy(time_to_live_s=5))).telemetry.time_to_live_s == 5


def test_a_change_of_routes_or_twins_alone_is_a_new_state() -> None:
    base = deployment("base", modules=["m"])
    first = next_state("u", None, composed(base), incarnation="i", now=NOW)
    assert first is not None
    assert next_state("u", first, composed(base), incarnation="i", now=NOW) is None
    for more in (
        {"routes": {"r": Route(route="R")}},
        {"twins": {"m": {"x": 1}}},
        {"telemetry": TelemetryPolicy(time_to_live_s=9)},
    ):
        second = next_state("u", first, composed(base, layer("l", 1, **more)), incarnation="i", now=NOW)
        assert second is not None
        assert second.version == 2


def test_targets_may_ask_what_a_device_reports() -> None:
    report = StatusReport(
        device_uuid="u",
        session="s",
        sequence=3,
        reported_at=NOW,
        agent_version="0.2.0",
        boot_id="b",
        desired=DesiredOutcome(version=4, code=200, message="applied"),
        modules={"pump.a": ModuleStatus(state="backoff", reason="x", restart_count=11)},
    )
    facts = facts_of(report)
    assert (facts["agent_version"], facts["desired.code"], facts["modules.pump.a.state"]) == ("0.2.0", "200", "backoff")
    assert not {"session", "sequence", "reported_at"} & facts.keys()
    target = "properties.reported.desired.code = 200 AND properties.reported.modules.pump.a.restart_count > 10"
    base = deployment("base", target=target, modules=["m"])
    assert commands(composed(base, reported=facts)) == {"m": "base"}
    assert commands(composed(base)) == {}
    assert facts_of(None) == {}


json_objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(json_objects, json_objects)
def test_a_patch_applied_twice_is_applied_once_and_changes_nothing_given(below: Any, patch: Any) -> None:
    kept = copy.deepcopy((below, patch))
    once = merge_patch(below, patch)
    assert merge_patch(once, patch) == once
    assert (below, patch) == kept


@pytest.mark.parametrize(
    ("text", "where", "name"),
    [
        (f"mcr.microsoft.com/azure/app:1.4@{DIGEST}", "mcr.microsoft.com/azure/app:1.4", "app"),
        (f"team/App_Two@{DIGEST}".lower(), "docker.io/team/app_two:latest", "app_two"),
        (f"docker.io/library/nginx:1.27@{DIGEST}", "docker.io/library/nginx:1.27", "nginx"),
        (f"127.0.0.1:5000/x/y.z__q@{DIGEST}", "127.0.0.1:5000/x/y.z__q:latest", "y.z__q"),
    ],
)
def test_pins_of_images_of_other_registries(text: str, where: str, name: str) -> None:
    pin = pin_of(text)
    assert pin is not None
    assert (pin.reference, pin.name, pin.digest, pin.kind) == (where, name, DIGEST, "docker")
    assert pull_reference(pin) == (where.rpartition(":")[0], DIGEST)
    assert written_out(RemoteImage.parse(text)) == f"{where}@{DIGEST}"
    assert is_foreign(text)


def test_a_tag_alone_is_no_pin() -> None:
    assert pin_of("mcr.microsoft.com/app:1.4") is None
    assert not is_foreign(f"churn@{DIGEST}")
