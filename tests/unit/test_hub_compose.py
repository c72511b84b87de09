"""What one device should run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from hedgerow.contracts.edge import DesiredState, EdgeDeployment, ModuleSpec
from hedgerow.contracts.service import ImagePin
from registry.hub.compose import Composition, Incomposable, candidates, compose, next_state
from tests.hub_parts import manifest

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
PIN = ImagePin(name="shuttle", version=2, digest="sha256:" + "a" * 64, kind="onnx")


def aged(deployment: EdgeDeployment, hours: int) -> EdgeDeployment:
    return msgspec.structs.replace(deployment, created_at=NOW - timedelta(hours=hours))


def composed(*deployments: EdgeDeployment, tags: dict[str, str] | None = None) -> Composition | Incomposable:
    return compose("pump", tags or {}, candidates(deployments), {"shuttle:2": PIN})


def source(*deployments: EdgeDeployment) -> str | None:
    found = composed(*deployments)
    assert isinstance(found, Composition)
    return found.edge_deployment


def test_the_highest_priority_wins_then_the_newest() -> None:
    low, high = aged(manifest("low", m=["a"]), 1), aged(manifest("high", priority=5, m=["b"]), 9)
    assert source(low, high) == source(high, low) == "high"
    older, newer = aged(manifest("older", m=["a"]), 2), aged(manifest("newer", m=["a"]), 1)
    assert source(older, newer) == source(newer, older) == "newer"


def test_only_matching_deployments_count() -> None:
    elsewhere = manifest("elsewhere", "tags.site='south'", priority=9, m=["a"])
    assert source(elsewhere) is None
    assert source(elsewhere, manifest("here", "deviceId='pump'", m=["a"])) == "here"
    assert source(manifest("nowhere", "", m=["a"])) is None


def test_images_are_pinned() -> None:
    wanted = manifest("d")
    wanted = msgspec.structs.replace(wanted, modules={"m": ModuleSpec(image="shuttle:2"), "c": ModuleSpec(command=["x"])})
    found = composed(wanted)
    assert isinstance(found, Composition)
    assert (found.modules["m"].image, found.modules["c"].image) == (PIN, None)


def test_a_missing_image_gives_nothing_rather_than_the_next_best() -> None:
    broken = msgspec.structs.replace(manifest("broken", priority=1), modules={"m": ModuleSpec(image="gone:1")})
    assert composed(broken, manifest("fine", m=["a"])) == Incomposable("broken", "gone:1")


def issue(previous: DesiredState | None, found: Composition, incarnation: str = "i", above: int = 0) -> DesiredState | None:
    return next_state("u", previous, found, incarnation=incarnation, above=above, now=NOW)


NOTHING_TO_RUN = Composition(None, None, {})


def test_a_version_is_issued_only_when_the_content_changes() -> None:
    found = composed(manifest("d", m=["a"]))
    assert isinstance(found, Composition)
    first = issue(None, found)
    assert first is not None
    assert (first.version, first.edge_deployment, list(first.modules)) == (1, "d", ["m"])
    assert issue(first, found) is None
    assert issue(first, Composition("d", 7, found.modules)) is None
    changed = composed(manifest("d", m=["b"]))
    assert isinstance(changed, Composition)
    second = issue(first, changed)
    assert second is not None
    assert second.version == 2


def test_leaving_every_target_empties_the_device() -> None:
    found = composed(manifest("d", m=["a"]))
    assert isinstance(found, Composition)
    emptied = issue(issue(None, found), NOTHING_TO_RUN)
    assert emptied is not None
    assert (emptied.version, emptied.edge_deployment, emptied.modules) == (2, None, {})


def test_a_device_that_never_had_a_deployment_gets_none() -> None:
    assert issue(None, NOTHING_TO_RUN) is None


def test_a_restored_hub_outbids_what_the_device_accepted() -> None:
    found = composed(manifest("d", m=["a"]))
    assert isinstance(found, Composition)
    before = issue(None, found)
    for state in (issue(before, found, above=6), issue(None, found, above=6), issue(None, NOTHING_TO_RUN, above=6)):
        assert state is not None
        assert state.version == 7


def test_a_new_incarnation_signs_anew() -> None:
    found = composed(manifest("d", m=["a"]))
    assert isinstance(found, Composition)
    again = issue(issue(None, found), found, incarnation="j", above=1)
    assert again is not None
    assert (again.version, again.incarnation) == (2, "j")
