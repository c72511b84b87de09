"""Rollouts through the hub's own parts on a database: who gets which revision when, and what each answer leads to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.edge import ModuleSpec
from hedgerow.contracts.names import Reference
from hedgerow.contracts.rollout import RolloutGroup
from registry.errors import InUse
from registry.hub.errors import RolloutOver
from registry.hub.manifest import check_manifest
from registry.hub.preview import Steps, preview
from registry.store import edge_deployments, edge_revisions, facts, fleet, images, leases, rollouts
from registry.store.events import system
from tests.hub_parts import manifest
from tests.registry_stores import BACKENDS, add_image, add_model, ready_database
from tests.rollout_place import NAME, RolloutPlace, in_groups, of_devices

EVERYWHERE = pytest.mark.parametrize("place", BACKENDS, indirect=True)
SIX = [f"d{number}" for number in range(6)]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RolloutPlace]:
    """On SQLite, unless the test is marked with EVERYWHERE."""
    url = request.getfixturevalue("postgres_tables_url") if getattr(request, "param", "") == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield RolloutPlace(database)


@pytest.fixture
def six(place: RolloutPlace) -> RolloutPlace:
    """Six devices that run the old revision."""
    place.enroll(*SIX)
    place.deploy("old")
    place.report(*SIX)
    return place


@EVERYWHERE
def test_each_group_waits_for_the_one_before(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(1), of_devices(2)))
    assert [(state, devices) for state, devices, *_ in six.groups()] == [("running", 1), ("waiting", 2), ("waiting", 3)]
    first, second, rest = (six.in_group(number) for number in range(3))
    assert (six.with_command("new"), six.with_command("old")) == (set(first), {*second, *rest})
    six.report(*first, code=202)
    assert six.with_command("new") == set(first)
    six.report(*first, trial=True)
    assert six.with_command("new") == set(first)
    six.report(*first)
    assert six.with_command("new") == {*first, *second}
    six.report(second[0])
    assert six.groups()[1] == ("running", 2, 1, 1, 0)
    six.report(second[1])
    assert six.with_command("new") == set(SIX)
    six.report(*rest)
    assert (six.rollout().state, six.deployment().revision) == ("succeeded", 2)
    assert six.told() == [
        "started",
        *(f"group-{what}" for _ in range(3) for what in ("released", "succeeded")),
        "succeeded",
    ]


def test_a_first_revision_is_rolled_out_too(place: RolloutPlace) -> None:
    place.enroll(*SIX)
    with place.database.write() as connection:
        edge_deployments.put(connection, manifest("below", priority=-1, m=["below"]), place.now)
    place.go()
    place.deploy("new", in_groups(of_devices(2)))
    assert Counter(place.runs().values()) == {"new": 2, "below": 4}
    place.report(*place.in_group(0))
    assert set(place.runs().values()) == {"new"}


def test_what_fails_pauses_and_goes_on_when_somebody_says_so(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2), of_devices(2)))
    first, second = six.in_group(0), six.in_group(1)
    six.roll_back(first[0])
    paused = six.rollout()
    assert (paused.state, paused.groups[0].state, six.with_command("new")) == ("paused", "failed", set(first))
    assert paused.reason == "group 1 failed: 1 of 2 devices failed, 10 % end it"
    assert six.members()[first[0]].reason == "m was taken back: exit code 3"
    six.go(hours=5)
    assert six.with_command("new") == set(first)
    six.steer("resume")
    assert (six.rollout().state, six.with_command("new")) == ("running", {*first, *second})
    six.steer("pause", "lunch")
    six.report(*second)
    assert (six.rollout().state, six.rollout().reason, six.with_command("new")) == ("paused", "lunch", {*first, *second})
    six.steer("resume")
    assert six.with_command("new") == set(SIX)
    six.report(*six.in_group(2))
    assert (six.rollout().state, six.groups()[0][4]) == ("succeeded", 1)


@EVERYWHERE
def test_what_fails_is_reversed_by_itself(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2), on_error="reverse"))
    first = six.in_group(0)
    six.roll_back(*first)
    reversing = six.rollout()
    assert (reversing.state, set(six.runs().values())) == ("reversing", {"old"})
    stored = six.deployment()
    assert (stored.revision, stored.modules["m"].command, stored.rollout) == (3, ["old"], None)
    six.report(*first)
    assert (six.rollout().state, six.rollout().revision, six.rollout().previous_revision) == ("reversed", 2, 1)
    assert six.told()[-3:] == ["group-failed", "reversing", "reversed"]
    assert six.members()[first[0]].reason == "m was taken back: exit code 3"
    with six.database.read() as connection:
        assert sorted(edge_revisions.kept(connection, NAME)) == [1]
    # The same manifest again is a new try.
    assert six.deploy("new", in_groups(of_devices(1))).revision == 4
    assert Counter(six.runs().values()) == {"new": 1, "old": 5}


def test_a_first_revision_that_is_reversed_leaves_nothing(place: RolloutPlace) -> None:
    place.enroll(*SIX)
    place.deploy("new", in_groups(of_devices(3), on_error="reverse"))
    place.report(*place.in_group(0), code=412)
    assert (set(place.runs().values()), place.deployment().target) == ({""}, "")
    place.report(*SIX)
    assert place.rollout().state == "reversed"


@EVERYWHERE
def test_a_device_that_never_answers_counts_when_the_time_is_over(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(3, success_percent=60, timeout_s=1800)))
    first = six.in_group(0)
    six.report(first[0])
    six.go(minutes=29)
    assert six.rollout().state == "running"
    six.go(minutes=2)
    assert (six.rollout().state, six.groups()[0]) == ("paused", ("failed", 3, 0, 1, 2))
    assert Counter(one.state for one in six.members().values()) == {"succeeded": 1, "timed-out": 2, "waiting": 3}
    assert "after 1800 s only 1 of 3" in six.rollout().reason


def test_enough_is_enough(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(4, success_percent=50, error_percent=50)))
    first = six.in_group(0)
    six.roll_back(first[0])
    assert six.rollout().state == "running"
    six.report(first[1], first[2])
    assert six.groups()[0] == ("succeeded", 4, 1, 2, 1)
    assert six.with_command("new") == set(SIX)


def test_failures_after_which_the_rest_cannot_make_it_decide_at_once(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(4, success_percent=80, error_percent=100)))
    six.roll_back(six.in_group(0)[0])
    assert (six.rollout().state, six.rollout().reason) == (
        "paused",
        "group 1 failed: 1 of 4 devices failed, so 80 % cannot be reached",
    )


def test_a_group_must_stay_well(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(1, soak_s=600, timeout_s=1000)))
    (only,) = six.in_group(0)
    six.report(only)
    assert six.groups()[0][0] == "soaking"
    six.go(seconds=500)
    six.report(only, code=500)
    assert six.groups()[0] == ("running", 1, 1, 0, 0)
    six.report(only)
    six.go(seconds=550)
    # More than its time-out, but it is well: only the soak time counts.
    assert six.groups()[0][0] == "soaking"
    six.go(seconds=60)
    assert six.with_command("new") == set(SIX)


@EVERYWHERE
def test_trouble_is_a_failure_when_it_lasts(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2)))
    first = six.in_group(0)
    six.report(*first, code=500)
    six.go(seconds=30)
    assert six.rollout().state == "running"
    six.report(first[0])
    six.go(seconds=40)
    assert (six.rollout().state, six.members()[first[1]].state) == ("paused", "failed")
    assert six.members()[first[0]].state == "succeeded"


def test_who_comes_later_belongs_to_the_last_group(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(6), of_devices(1)))
    six.enroll("late")
    six.go()
    assert six.runs()["late"] == "old"
    six.report(*SIX)
    assert (six.rollout().state, six.runs()["late"]) == ("succeeded", "new")


@EVERYWHERE
def test_who_is_revoked_or_deleted_leaves_the_count(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(3)))
    one, two, three = six.in_group(0)
    with six.database.write() as connection:
        fleet.revoke(connection, one, six.now)
        fleet.forget(connection, two, six.now)
    del six.uuids[one], six.uuids[two]
    six.report(three)
    assert six.groups()[0] == ("succeeded", 1, 0, 1, 0)


@EVERYWHERE
def test_a_second_revision_takes_the_place_of_a_rollout(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2), on_error="reverse"))
    tried = set(six.in_group(0))
    six.deploy("newer", in_groups(of_devices(1), of_devices(1), on_error="reverse"))
    assert Counter(six.runs().values()) == {"newer": 1, "new": 1, "old": 4}
    # Who tried the one before tries this one first.
    assert {*six.in_group(0), *six.in_group(1)} == tried
    six.report(*six.in_group(0))
    assert Counter(six.runs().values()) == {"newer": 2, "old": 4}
    six.roll_back(*six.in_group(1))
    assert (set(six.runs().values()), six.deployment().revision) == ({"old"}, 4)
    with six.database.read() as connection:
        assert [one.state for one in rollouts.page(connection, NAME, 10, None)[0]] == ["reversing", "superseded"]


def test_a_revision_without_a_policy_ends_a_rollout(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2)))
    six.deploy("newer")
    assert (six.rollout().state, set(six.runs().values())) == ("superseded", {"newer"})
    with six.database.read() as connection:
        assert sorted(edge_revisions.kept(connection, NAME)) == [2]


def test_what_no_device_would_notice_is_not_rolled_out(six: RolloutPlace) -> None:
    stored = six.deploy("old", in_groups(of_devices(2)), labels={"a": "b"})
    with six.database.read() as connection:
        assert (stored.revision, rollouts.page(connection, NAME, 10, None)[0]) == (2, [])


def test_a_deployment_that_is_deleted_takes_its_rollout_along(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2)))
    with six.database.write() as connection:
        edge_deployments.remove(connection, NAME)
    six.go()
    assert set(six.runs().values()) == {""}
    six.deploy("again", in_groups(of_devices(2)))
    assert Counter(six.runs().values()) == {"again": 2, "": 4}


def test_somebody_skips_reverses_and_cannot_do_so_twice(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(1), of_devices(1)))
    six.steer("skip", "in a hurry")
    assert [group[0] for group in six.groups()] == ["succeeded", "running", "waiting"]
    six.steer("reverse", "no")
    assert set(six.runs().values()) == {"old"}
    with pytest.raises(RolloutOver, match="cannot be asked to pause"):
        six.steer("pause")
    six.report(*SIX)
    assert (six.rollout().state, six.rollout().reason) == ("reversed", "no")


def test_a_rollout_that_succeeded_can_be_reversed(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(6)))
    six.report(*SIX)
    assert six.rollout().state == "succeeded"
    six.steer("reverse", "it drifts")
    assert set(six.runs().values()) == {"old"}
    six.report(*SIX[:5])
    assert six.rollout().state == "reversing"
    six.go(hours=2)
    assert (six.rollout().state, six.rollout().reason) == ("reversed", "it drifts; 1 devices have not answered")


def test_layers_are_rolled_out(six: RolloutPlace) -> None:
    layer = msgspec.structs.replace(manifest("layer", extra=["x"]), layered=True, rollout=in_groups(of_devices(1)))
    with six.database.write() as connection:
        edge_deployments.put(connection, layer, six.now)
    six.go()

    def with_it() -> list[str]:
        return [name for name in SIX if (state := six.state_of(name)) and "extra" in state.modules]

    assert len(with_it()) == 1
    with six.database.read() as connection:
        assert (rollouts.in_states(connection, rollouts.OPEN)[0].id, six.runs()["d0"]) == ("layer:1", "old")
    six.report(*with_it())
    assert with_it() == SIX


def test_a_device_for_which_nothing_changes_is_done(place: RolloutPlace) -> None:
    """A layer without a deployment to lie on is nothing; there is nothing to wait for."""
    place.enroll("d0")
    place.deploy("x", in_groups(of_devices(1)), layered=True)
    assert (place.rollout().state, place.members()["d0"].reason) == ("succeeded", "nothing to change")


def test_an_image_that_is_gone_is_a_failure(six: RolloutPlace) -> None:
    with six.database.write() as connection:
        add_image(connection, "shuttle", add_model(connection))
        wanted = msgspec.structs.replace(manifest(NAME), modules={"m": ModuleSpec(image="shuttle:1")})
        wanted = msgspec.structs.replace(wanted, rollout=in_groups(of_devices(1)))
        edge_deployments.put(connection, check_manifest(connection, wanted), six.now)
        images.force_delete(connection, Reference("shuttle", 1), system("test"), six.now)
    six.go()
    (only,) = six.in_group(0)
    assert (six.rollout().state, six.members()[only].state) == ("paused", "failed")
    assert "which is not there" in six.members()[only].reason


def test_the_image_of_the_revision_before_is_held(place: RolloutPlace) -> None:
    place.enroll("d0", "d1")
    with place.database.write() as connection:
        add_image(connection, "shuttle", add_model(connection))
        before = msgspec.structs.replace(manifest(NAME), modules={"m": ModuleSpec(image="shuttle:1")})
        edge_deployments.put(connection, check_manifest(connection, before), place.now)
    place.go()
    place.deploy("new", in_groups(of_devices(1)))
    with place.database.write() as connection, pytest.raises(InUse, match=r"module m \(revision 1\) of edge deployment line"):
        images.delete_version(connection, Reference("shuttle", 1))
    place.steer("skip")
    place.steer("skip")
    with place.database.write() as connection:
        images.delete_version(connection, Reference("shuttle", 1))


@EVERYWHERE
def test_another_hub_goes_on(six: RolloutPlace) -> None:
    six.deploy("new", in_groups(of_devices(2), of_devices(2)))
    first = six.in_group(0)
    # Reports arrive, the hub dies before it made anything of them; the next one finds them.
    six.report(*first, go=False)
    six.start_hub()
    six.go()
    assert len(six.with_command("new")) == 4


def test_while_another_hub_is_in_charge_nothing_moves(six: RolloutPlace) -> None:
    with six.database.write() as connection:
        leases.acquire(connection, "hub", "another", 60, six.now.replace(year=2030))
    six.start_hub("me, again")
    six.deploy("new", in_groups(of_devices(2)))
    assert (six.rollout().groups, set(six.runs().values())) == ([], {"old"})


def test_a_report_of_a_life_that_was_lost_says_nothing(six: RolloutPlace) -> None:
    """After a restore devices may have higher versions than this database knows, of other content."""
    six.deploy("new", in_groups(of_devices(1)))
    (only,) = six.in_group(0)
    six.report(only, version=9)
    assert six.groups()[0] == ("running", 1, 1, 0, 0)
    with six.database.write() as connection:
        facts.renew_incarnation(connection)
    six.desired.for_greeted({six.uuids[only]: 9}, six.now, 0.0)
    six.report(only, version=9)
    assert six.groups()[0] == ("running", 1, 1, 0, 0)
    six.report(only)
    assert six.groups()[0][0] == "succeeded"


def test_a_plan_foretells_the_groups(six: RolloutPlace) -> None:
    policy = in_groups(of_devices(2), RolloutGroup(percent=50))
    wanted = msgspec.structs.replace(manifest(NAME, m=["new"]), rollout=policy)
    with six.database.read() as connection:
        plan = preview(connection, [wanted], NAME, Steps())
    assert [(one.name, one.count) for one in plan.rollout] == [("group 1", 2), ("group 2", 2), ("rest", 2)]
    six.deploy("new", policy)
    assert [one.devices for one in plan.rollout] == [six.in_group(number) for number in range(3)]
    assert {change.device: change.rollout_group for change in plan.changes} == {
        name: plan.rollout[one.group].name for name, one in six.members().items()
    }
    with six.database.read() as connection:
        unrelated = preview(connection, [six.deployment(), manifest("other", "deviceId = 'nobody'", m=["y"])], "other")
    assert unrelated.changes == []
