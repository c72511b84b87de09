"""Shadows on the hub's side: composed with a pin, planned as the device will, and lint that knows who can have one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hedgerow.contracts.api_fleet import PlannedStep
from hedgerow.contracts.edge import DesiredModule, EdgeDeployment, ModuleSpec, Shadow, TelemetryPolicy
from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.status import ModuleStatus, ShadowStatus
from hedgerow.sdk.edge_lint.lint import lint
from hedgerow.sdk.edge_shadows import DeviceShadow, why_not
from registry.hub.changes import Content, steps_at_once
from registry.hub.compose import Composition, Incomposable, candidates, compose
from registry.hub.foreign_images import with_own_names
from registry.hub.steps import images_there, planned_steps

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def pin(version: int) -> ImagePin:
    return ImagePin(name="churn", version=version, digest="sha256:" + f"{version:x}".rjust(64, "0"), kind="onnx")


PINS = {f"churn:{version}": pin(version) for version in (1, 2)}


def deployment(shadow: str | None = "churn:2", image: str = "churn:1", **fields: Any) -> EdgeDeployment:
    spec = ModuleSpec(image=image, shadow=None if shadow is None else Shadow(image=shadow))
    return EdgeDeployment(name="line", target="*", modules={"scorer": spec}, created_at=NOW, **fields)


def module(shadow: bool = True, version: int = 1) -> DesiredModule:
    spec = ModuleSpec(image=f"churn:{version}", shadow=Shadow(image="churn:2") if shadow else None)
    return DesiredModule(spec=spec, image=pin(version), shadow_image=pin(2) if shadow else None)


def status(shadow: ShadowStatus | None, version: int = 1) -> ModuleStatus:
    return ModuleStatus(state="running", reason="", image_digest=pin(version).digest, started_at=NOW, shadow=shadow)


RUNS = ShadowStatus(image_digest=pin(2).digest, state="running")


def acts(steps: list[PlannedStep]) -> list[str]:
    return [f"{step.action} {step.module}" for step in steps]


def test_a_shadow_is_composed_with_its_pin() -> None:
    found = compose("press", {}, candidates([deployment()]), PINS)
    assert isinstance(found, Composition)
    assert found.modules["scorer"].shadow_image == pin(2)
    assert found.modules["scorer"].image == pin(1)
    missing = compose("press", {}, candidates([deployment("churn:3")]), PINS)
    assert missing == Incomposable("line", "churn:3")


def test_a_new_shadow_is_pulled_and_started_and_the_module_runs_on() -> None:
    before, after = {"scorer": module(shadow=False)}, {"scorer": module()}
    steps = planned_steps(before, {"scorer": status(None)}, after)
    assert acts(steps) == ["start scorer", "pull scorer", "start scorer"]
    assert [step.text.partition(":")[0] for step in steps] == ["its shadow's comparer", "its shadow", "its shadow"]
    assert steps[1].image == "churn:2"
    told = list(steps_at_once(content(before), content(after)))
    assert [(step.action, step.text) for step in told] == [("adjust", "changes: shadow; it runs on")]


def content(modules: dict[str, DesiredModule]) -> Content:
    return Content(modules, {}, TelemetryPolicy(), {})


def test_promotion_pulls_nothing_stops_the_shadow_and_updates_the_module() -> None:
    before, after = {"scorer": module()}, {"scorer": module(shadow=False, version=2)}
    statuses = {"scorer": status(RUNS)}
    steps = planned_steps(before, statuses, after)
    assert not [step for step in steps if step.action == "pull"]
    assert [one.version for one in images_there(before, statuses)] == [1, 2]
    own = [step.action for step in steps if not step.text.startswith("its shadow")]
    assert own == ["stop", "remove", "start"]
    of_shadow = [step.action for step in steps if step.text.startswith("its shadow: ")]
    assert of_shadow == ["stop", "remove"]


@pytest.mark.parametrize("state", ["running", "starting", "backoff", "pending", "failed"])
def test_nothing_is_done_to_a_shadow_that_is_as_wanted(state: Any) -> None:
    told = ShadowStatus(image_digest=pin(2).digest, state=state)
    steps = planned_steps({"scorer": module()}, {"scorer": status(told)}, {"scorer": module()})
    assert {step.text.partition(":")[0] for step in steps} <= {"its shadow"}
    if state in ("running", "starting"):
        assert steps == []


def test_a_manifest_in_toml_form_and_its_strange_keys() -> None:
    made, findings = read_manifest(
        {"name": "line", "target": "*", "modules": {"scorer": {"image": "churn:1", "shadow": {"image": "churn:2"}}}}
    )
    assert made.modules["scorer"].shadow == Shadow(image="churn:2")
    assert findings == []
    said = lint({"target": "*", "modules": {"scorer": {"image": "churn:1", "shadow": {"image": "churn:2", "rtoll": 1}}}})
    assert [(one.level, one.place) for one in said] == [("error", "$.modules.scorer.shadow.rtoll")]


@pytest.mark.parametrize(
    ("spec", "level", "place", "words"),
    [
        ({"kind": "docker", "image": "churn:1"}, "error", "shadow", "only a process module"),
        ({"command": ["x"]}, "error", "shadow", "only a process module"),
        ({"image": "churn:2"}, "warning", "shadow.image", "own image"),
    ],
)
def test_lint_says_who_cannot_have_one(spec: dict[str, Any], level: str, place: str, words: str) -> None:
    said = lint({"target": "*", "modules": {"m": {**spec, "shadow": {"image": "churn:2"}}}})
    found = [one for one in said if one.place == f"$.modules.m.{place}"]
    assert [(one.level, words in one.message) for one in found if one.level != "note"] == [(level, True)]


def test_lint_says_that_a_foreign_image_cannot_be_one() -> None:
    said = lint({"target": "*", "modules": {"m": {"image": "churn:1", "shadow": {"image": "plant.example/x:1"}}}})
    assert [one.level for one in said if one.place == "$.modules.m.shadow.image"] == ["error"]


def test_this_registrys_own_host_is_taken_from_a_shadow_too() -> None:
    named = with_own_names(deployment("plant.example:8080/churn:2", "plant.example:8080/churn:1"), "plant.example:8080")
    assert named.modules["scorer"].images() == {"": "churn:1", " (shadow)": "churn:2"}


def on(device: str, **counts: int) -> DeviceShadow:
    told = ShadowStatus(image_digest=pin(2).digest, state="running", **counts) if counts else None  # type: ignore[arg-type]  # counts only
    return DeviceShadow(device=device, module="scorer", image="churn:2", online=True, status=told)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], "0 requests were compared, 100 are wanted"),
        ([on("a"), on("b", compared=99)], "99 requests were compared, 100 are wanted"),
        ([on("a", compared=60), on("b", compared=40, different=1)], ""),
        (
            [on("a", compared=60), on("b", compared=40, different=1, failed=1)],
            "2 of 100 requests had other answers or failed (2.00%, 1.00% are allowed)",
        ),
    ],
)
def test_when_a_shadow_may_be_promoted(found: list[DeviceShadow], problem: str) -> None:
    assert why_not(found, 0.01, 100) == problem
    assert why_not(found, 1.0, 0) == ""
