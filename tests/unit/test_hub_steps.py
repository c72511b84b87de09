"""The steps that a device would take, as its own planner takes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.api_fleet import PlannedStep
from hedgerow.contracts.edge import DesiredModule, Limits, ModuleSpec, Route, TelemetryPolicy
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.status import ModuleStatus
from registry.hub.changes import NOTHING, Content, steps_at_once
from registry.hub.steps import planned_steps

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def pin(end: str) -> ImagePin:
    return ImagePin(name="churn", version=int(end, 16), digest="sha256:" + end.rjust(64, "0"), kind="onnx")


def imaged(end: str, **spec: Any) -> DesiredModule:
    return DesiredModule(spec=ModuleSpec(image=f"churn:{int(end, 16)}", **spec), image=pin(end))


def command(text: str = "x", **spec: Any) -> DesiredModule:
    return DesiredModule(spec=ModuleSpec(command=[text], **spec))


def runs(module: DesiredModule, state: Any = "running", **fields: Any) -> ModuleStatus:
    digest = module.image.digest if module.image else None
    return ModuleStatus(state=state, reason="", image_digest=digest, started_at=NOW, **fields)


def acts(steps: list[PlannedStep]) -> list[str]:
    return [f"{step.action} {step.module}" for step in steps]


def test_the_first_deployment_pulls_and_starts_in_order() -> None:
    after = {"b": imaged("2", startup_order=2), "a": imaged("1", startup_order=1), "c": command(startup_order=0)}
    steps = planned_steps({}, {}, after)
    assert set(acts(steps)) == {"start c", "pull a", "pull b", "start a", "start b"}
    starts = [step.module for step in steps if step.action == "start"]
    assert starts == ["c", "a", "b"]
    assert next(step.image for step in steps if step.module == "a") == "churn:1"


def test_everything_is_pulled_before_anything_is_stopped() -> None:
    before = {"a": imaged("1"), "b": imaged("2"), "gone": command("old")}
    after = {"a": imaged("3"), "b": imaged("4")}
    steps = planned_steps(before, {name: runs(module) for name, module in before.items()}, after)
    order = acts(steps)
    assert {"pull a", "pull b", "stop gone", "remove gone"} <= set(order)
    for name in ("a", "b"):
        mine = [act for act in order if act.endswith(f" {name}")]
        assert mine == [f"pull {name}", f"stop {name}", f"remove {name}", f"start {name}"]
        assert max(order.index("pull a"), order.index("pull b")) < order.index(f"stop {name}")


def test_nothing_is_done_where_all_is_as_wanted() -> None:
    before = {"a": imaged("1"), "down": command("y", status="stopped")}
    statuses = {"a": runs(before["a"]), "down": ModuleStatus(state="stopped", reason="")}
    assert planned_steps(before, statuses, before) == []


def test_another_policy_restarts_nothing_and_other_limits_do() -> None:
    before = {"m": command()}
    gentle = {"m": command(restart_policy="never")}
    statuses = {"m": runs(before["m"])}
    assert planned_steps(before, statuses, gentle) == []
    told = [step for step in steps_at_once(content(before), content(gentle)) if step.action == "adjust"]
    assert [(step.module, step.text) for step in told] == [("m", "changes: restart_policy; it runs on")]
    bounded = {"m": command(limits=Limits(memory_bytes=10_000_000))}
    assert acts(planned_steps(before, statuses, bounded)) == ["stop m", "remove m", "start m"]


def test_what_ended_is_replaced_without_a_stop() -> None:
    before, after = {"m": imaged("1")}, {"m": imaged("2")}
    steps = planned_steps(before, {"m": runs(before["m"], "backoff", exit_code=1)}, after)
    assert "stop m" not in acts(steps)
    assert acts(steps)[-1] == "start m"
    assert sorted(acts(steps)) == ["pull m", "remove m", "start m"]


def test_a_device_that_reports_another_image_is_not_taken_for_the_one_it_should_have() -> None:
    module = {"m": imaged("2")}
    steps = planned_steps(module, {"m": runs(imaged("1"))}, module)
    assert "stop m" in acts(steps)


def test_a_version_that_was_taken_back_is_not_taken_for_running() -> None:
    module = {"m": imaged("2")}
    back = ModuleStatus(state="running", reason="", started_at=NOW, rolled_back_from=pin("2").digest, rollback_reason="crashed")
    assert acts(planned_steps(module, {"m": back}, {"m": imaged("3")})) == ["pull m", "stop m", "remove m", "start m"]
    assert acts(planned_steps(module, {"m": back}, module)) == ["wait m"]


def content(modules: dict[str, DesiredModule], **fields: Any) -> Content:
    return Content(modules, fields.get("routes", {}), fields.get("telemetry", TelemetryPolicy()), fields.get("twins", {}))


def test_what_takes_effect_at_once_is_told() -> None:
    before = content({}, routes={"a": Route(route="A"), "b": Route(route="B")}, twins={"m": {"x": 1}, "n": {}})
    after = content(
        {},
        routes={"a": Route(route="A2"), "c": Route(route="C")},
        twins={"m": {"x": 2}, "o": {}},
        telemetry=TelemetryPolicy(time_to_live_s=60),
    )
    told = [(step.action, step.module, step.text) for step in steps_at_once(before, after)]
    assert told == [
        ("telemetry", None, "messages are worth sending for 60 s"),
        ("route", None, "c (new): C"),
        ("route", None, "a (changed): A2"),
        ("route", None, "b (removed)"),
        ("twin", "o", "its desired properties are new"),
        ("twin", "m", "its desired properties are changed"),
        ("twin", "n", "its desired properties are removed"),
    ]
    assert list(steps_at_once(NOTHING, NOTHING)) == []


specs = st.one_of(
    st.builds(imaged, st.sampled_from("123"), startup_order=st.integers(0, 2), status=st.sampled_from(["running", "stopped"])),
    st.builds(command, st.sampled_from("xy"), startup_order=st.integers(0, 2)),
    st.builds(lambda: DesiredModule(spec=ModuleSpec(kind="docker", image="churn:9"), image=pin("9"))),
)
devices = st.dictionaries(st.sampled_from("abcd"), specs, max_size=4)
states = st.sampled_from(["pending", "starting", "running", "unhealthy", "backoff", "stopped", "failed", "exited"])


@given(before=devices, after=devices, said=st.dictionaries(st.sampled_from("abcde"), states, max_size=5))
def test_every_plan_ends_and_no_module_runs_that_is_not_wanted(
    before: dict[str, DesiredModule], after: dict[str, DesiredModule], said: dict[str, Any]
) -> None:
    statuses = {name: runs(before[name], state) if name in before else runs(command(), state) for name, state in said.items()}
    steps = planned_steps(before, statuses, after)
    running = {name for name, status in statuses.items() if status.state in ("starting", "running", "unhealthy")}
    pulled = {module.image.digest for module in before.values() if module.image}
    for step in steps:
        if step.action == "stop":
            running.discard(step.module or "")
        if step.action == "start":
            running.add(step.module or "")
        if step.action == "pull":
            digest = after[step.module or ""].image
            assert digest is not None
            pulled.add(digest.digest)
    assert running <= {name for name, module in after.items() if module.spec.status == "running"}
    assert {
        name for name, module in after.items() if module.spec.status == "running" and module.spec.restart_policy == "always"
    } <= running
    assert len(msgspec.json.encode(steps)) < 100_000
