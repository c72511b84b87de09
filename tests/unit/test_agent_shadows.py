"""What a module's shadow means to the planner: two more processes that nothing waits for, and a module that notices nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.reconcile.outcome import desired_outcome, module_statuses
from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.shadows import told_as, with_shadows
from edge_agent.reconcile.situation import (
    Exited,
    History,
    ImageState,
    Running,
    Seen,
    Situation,
    Wanted,
    fingerprint,
    wanted_modules,
)
from edge_agent.reconcile.steps import Pull, Start, Stop, Wait
from edge_agent.reconcile.trial import Look, advance, has_way_back
from edge_agent.reconcile.versions import Versions
from hedgerow.contracts.edge import DesiredModule, Limits, ModuleSpec, Probe, Shadow, TelemetrySources, UpdatePolicy
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.shadow import belongs_to_shadow, comparer_of, owner_of, shadow_of
from hedgerow.errors import InvalidName
from tests.agent_builders import BOOT, desired, exited, pin, running

OLD, NEW = pin("a"), pin("b")


SHADOW = Shadow(image="churn:2")


def module(shadow: Shadow | None = SHADOW, **spec: Any) -> DesiredModule:
    values = {"image": "churn:1", "shadow": shadow} | spec
    return DesiredModule(spec=ModuleSpec(**values), image=OLD, shadow_image=None if shadow is None else NEW)


def wanted_of(modules: dict[str, DesiredModule]) -> dict[str, Wanted]:
    return wanted_modules(desired(modules))


def situation(modules: dict[str, DesiredModule], *seen: Seen, **fields: Any) -> Situation:
    wanted = wanted_of(modules)
    values: dict[str, Any] = {"now_s": 1000.0, "boot_id": BOOT, "images": here(OLD.digest, NEW.digest)} | fields
    strays = tuple(one for one in seen if one.name not in wanted)
    return Situation(wanted=wanted, seen={one.name: one for one in seen if one.name in wanted}, strays=strays, **values)


def here(*digests: str) -> dict[str, ImageState]:
    return {digest: ImageState(ready=True) for digest in digests}


def all_run(modules: dict[str, DesiredModule]) -> list[Running]:
    return [running(one) for one in wanted_of(modules).values()]


def test_a_shadow_is_a_process_of_its_own_without_ways_out() -> None:
    spec: dict[str, Any] = {
        "variables": {"A": "1", "HEDGEROW_TELEMETRY_URL": "http://hub", "HEDGEROW_GRPC_PORT": "9", "HEALTH_PORT": "8"},
        "port": 8080,
        "probe": Probe(kind="heartbeat"),
        "restart_policy": "never",
        "startup_order": 1,
        "telemetry": TelemetrySources(stdout=True, scrape_path="/metrics"),
        "limits": Limits(memory_bytes=1000),
    }
    made = with_shadows({"scorer": module(**spec)})
    assert set(made) == {"scorer", "scorer~shadow", "scorer~compare"}
    shadow = made["scorer~shadow"]
    assert shadow.image == NEW
    assert shadow.spec.image == "churn:2"
    assert shadow.spec.variables == {"A": "1"}
    assert shadow.spec.port is None
    assert shadow.spec.probe is None
    assert shadow.spec.restart_policy == "always"
    assert shadow.spec.telemetry == TelemetrySources()
    assert shadow.spec.limits == Limits(memory_bytes=1000)
    assert not shadow.spec.update.rollback
    command = made["scorer~compare"].spec.command
    assert command[:5] == ["runtime.shadow", "--tap", "../../scorer/tap", "--shadow", "../../scorer~shadow/ready.json"]
    assert command[command.index("--rtol") + 1] == "0.001"


@pytest.mark.parametrize(
    "without",
    [
        module(None),
        DesiredModule(spec=ModuleSpec(image="churn:1", shadow=Shadow(image="churn:2")), image=OLD),
        DesiredModule(spec=ModuleSpec(command=["x"], shadow=Shadow(image="churn:2")), shadow_image=NEW),
        DesiredModule(spec=module(kind="docker").spec, image=OLD, shadow_image=NEW),
        DesiredModule(spec=module().spec, image=pin("a", "docker"), shadow_image=NEW),
        DesiredModule(spec=module().spec, image=OLD, shadow_image=pin("b", "fpga")),
    ],
)
def test_what_has_no_tap_or_no_pin_has_no_shadow(without: DesiredModule) -> None:
    assert list(with_shadows({"scorer": without})) == ["scorer"]


def test_the_module_is_the_same_with_and_without() -> None:
    assert fingerprint(module()) == fingerprint(module(None))
    before, after = {"scorer": module(None)}, {"scorer": module()}
    steps = plan(situation(after, *all_run(before)))
    assert all(step.module != "scorer" for step in steps)
    assert {step.module for step in steps if isinstance(step, Start)} == {"scorer~shadow", "scorer~compare"}
    back = plan(situation(before, *all_run(after)))
    assert {(type(step), step.module) for step in back} == {(Stop, "scorer~shadow"), (Stop, "scorer~compare")}


def test_other_rules_compare_anew_and_leave_the_shadow_alone() -> None:
    before, after = ({"scorer": module(Shadow(image="churn:2", rtol=rtol))} for rtol in (0.1, 0.2))
    steps = plan(situation(after, *all_run(before)))
    assert [(type(step), step.module) for step in steps] == [(Stop, "scorer~compare")]


def pair(of: DesiredModule) -> str:
    command = with_shadows({"m": of})["m~compare"].spec.command
    return command[command.index("--pair") + 1]


def test_counts_belong_to_a_pair_of_versions_and_its_tolerance() -> None:
    first = module()
    assert pair(first) == pair(module(Shadow(image="churn:2", fraction=0.5)))
    others = [
        module(Shadow(image="churn:2", atol=1.0)),
        msgspec.structs.replace(first, image=pin("c")),
        msgspec.structs.replace(first, shadow_image=pin("c")),
    ]
    assert len({pair(one) for one in (first, *others)}) == 4


def test_a_shadow_stops_with_its_module() -> None:
    steps = plan(situation({"scorer": module(status="stopped")}, *all_run({"scorer": module()})))
    assert {(type(step), step.module) for step in steps} == {
        (Stop, "scorer"),
        (Stop, "scorer~shadow"),
        (Stop, "scorer~compare"),
    }


def test_an_update_of_another_module_does_not_wait_for_the_image_of_a_shadow() -> None:
    other_before = DesiredModule(spec=ModuleSpec(image="other:1"), image=pin("c"))
    other_after = DesiredModule(spec=ModuleSpec(image="other:2"), image=pin("d"))
    before = {"other": other_before, "scorer": module(None)}
    after = {"other": other_after, "scorer": module()}
    slow = situation(after, *all_run(before), images=here(OLD.digest, pin("d").digest))
    steps = {step.module: step for step in plan(slow)}
    assert isinstance(steps["other"], Stop)
    assert isinstance(steps["scorer~shadow"], Pull)


def told(sit: Situation) -> Any:
    steps = plan(sit)
    return module_statuses(sit, steps), steps


def test_a_shadow_is_told_with_its_module_and_not_as_one() -> None:
    statuses, steps = told(situation({"scorer": module()}, *all_run({"scorer": module()})))
    assert list(statuses) == ["scorer"]
    assert steps == []
    shadow = statuses["scorer"].shadow
    assert (shadow.state, shadow.image_digest) == ("running", NEW.digest)


def crashed(name: str, modules: dict[str, DesiredModule]) -> Exited:
    return exited(wanted_of(modules)[name], reason="exit code 3")


def test_a_shadow_that_crashes_again_and_again_is_waited_for_and_is_no_failure_of_the_deployment() -> None:
    modules = {"scorer": module()}
    seen = [one for one in all_run(modules) if one.name != "scorer~shadow"]
    past = {"scorer~shadow": History(boot_id=BOOT, failures=3, retry_at_s=2000.0, counted_run="r1")}
    now = situation(modules, *seen, crashed("scorer~shadow", modules), history=past)
    statuses, steps = told(now)
    assert [type(step) for step in steps] == [Wait]
    assert statuses["scorer"].state == "running"
    assert statuses["scorer"].shadow.state == "backoff"
    assert "exit code 3" in statuses["scorer"].shadow.reason
    assert desired_outcome(desired(modules), now, statuses, steps).code == 200


def test_a_comparer_that_crashes_is_told_as_the_reason() -> None:
    modules = {"scorer": module()}
    seen = [one for one in all_run(modules) if one.name != "scorer~compare"]
    past = {"scorer~compare": History(boot_id=BOOT, failures=3, retry_at_s=2000.0, counted_run="r1")}
    statuses, _ = told(situation(modules, *seen, crashed("scorer~compare", modules), history=past))
    assert "it runs, but is not compared" in statuses["scorer"].shadow.reason


def test_another_shadow_has_no_trial() -> None:
    first, second = (wanted_of({"scorer": msgspec.structs.replace(module(), shadow_image=pin(end))}) for end in "bc")
    kept = Versions(good=DesiredModule(spec=first["scorer~shadow"].spec, image=first["scorer~shadow"].image))
    known, event = advance(kept, look(second["scorer~shadow"]))
    assert event is None
    assert not has_way_back(second["scorer~shadow"], known)


def look(asked: Wanted) -> Look:
    return Look(asked, running(asked), History(), Moment(1000.0, BOOT, 1, lambda: 0.5))


def test_a_shadow_changes_nothing_about_the_trial_of_its_module() -> None:
    plain, shadowed = (wanted_of({"scorer": module(shadow)})["scorer"] for shadow in (None, Shadow(image="churn:2")))
    kept = Versions(good=DesiredModule(spec=plain.spec, image=plain.image))
    known, event = advance(kept, look(shadowed))
    assert event is None
    assert known.trial is None


def test_names_that_no_module_can_have() -> None:
    for name in (shadow_of("scorer"), comparer_of("scorer")):
        with pytest.raises(InvalidName):
            check_known_name(name, "module")
        assert belongs_to_shadow(name)
        assert owner_of(name) == "scorer"
    assert not belongs_to_shadow("scorer")
    assert told_as("scorer", "start") == ("scorer", "start")
    assert told_as("scorer~shadow", "start") == ("scorer", "shadow-start")
    assert told_as("scorer~compare", "stop") == ("scorer", "comparer-stop")


def test_an_update_policy_of_the_module_is_not_its_shadows() -> None:
    made = with_shadows({"scorer": module(update=UpdatePolicy(max_error_rate=0.1))})
    assert made["scorer~shadow"].spec.update.max_error_rate is None
