"""How a wanted release of the agent stands, for every state that the folder of releases can be in."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.service import launch
from edge_agent.service.release_standing import begin, name_of, refuse, standing_of
from edge_agent.service.upgrade import begin_trial
from hedgerow.contracts.edge import AgentRelease

WHEEL = AgentRelease(version="2.0", wheel="sha256:" + "ab" * 32)
OTHER = AgentRelease(version="3.0", wheel="sha256:" + "cd" * 32)
INDEX = AgentRelease(version="2.0")
NAME = "2.0-abababababab"


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for name in ("1.0", NAME, name_of(OTHER)):
        (tmp_path / name).mkdir()
    launch.switch(tmp_path, "1.0")
    return tmp_path


def standing(release: AgentRelease, releases: Path | None, own_version: str = "1.0") -> str:
    return standing_of(release, releases, own_version).standing


def take_back(releases: Path, release: AgentRelease) -> None:
    """Tried, and taken back by the launcher."""
    begin_trial(releases, name_of(release), had_session=False)
    trial = launch.read(releases / launch.TRIAL)
    launch.go_back(releases, trial, "it did not become healthy")


def test_without_the_launcher_a_version_is_there_or_is_not() -> None:
    assert name_of(WHEEL) == NAME
    assert standing(WHEEL, None) == "unmanaged"
    assert standing(WHEEL, None, "2.0") == "current"


def test_it_is_due_then_on_trial_then_current(releases: Path) -> None:
    assert standing(WHEEL, releases) == "due"
    begin(WHEEL, releases)
    assert standing(WHEEL, releases) == "due", "an attempt that was cut short is made again"
    begin_trial(releases, NAME, had_session=False)
    assert standing(WHEEL, releases) == "trial"
    assert standing(OTHER, releases) == "busy"
    (releases / launch.TRIAL).unlink()
    assert standing(WHEEL, releases) == "current"


def test_a_version_of_an_index_is_current_whatever_it_was_built_from(releases: Path) -> None:
    assert standing(INDEX, releases) == "due"
    launch.switch(releases, NAME)
    assert standing(INDEX, releases, "2.0") == "current"
    assert standing(AgentRelease(version="2.0", wheel=OTHER.wheel), releases, "2.0") == "due", "another wheel of that version"


def test_what_was_taken_back_is_refused_until_another_was_wanted(releases: Path) -> None:
    begin(WHEEL, releases)
    take_back(releases, WHEEL)
    found = standing_of(WHEEL, releases, "1.0")
    assert (found.standing, "did not become healthy" in found.reason) == ("refused", True)
    begin(WHEEL, releases)
    assert standing(WHEEL, releases) == "refused", "once more for the same changes nothing"
    assert standing(OTHER, releases) == "due"
    begin(OTHER, releases)
    assert standing(WHEEL, releases) == "due"
    begin(WHEEL, releases)
    assert standing(WHEEL, releases) == "due", "what became of it before is over"


def test_what_could_not_start_is_refused_until_another_was_wanted(releases: Path) -> None:
    begin(WHEEL, releases)
    refuse(WHEEL, releases, "no such sensor")
    assert standing_of(WHEEL, releases, "1.0").reason == "no such sensor"
    begin(OTHER, releases)
    assert standing(WHEEL, releases) == "due"


def test_what_a_person_tried_by_hand_does_not_count(releases: Path) -> None:
    take_back(releases, WHEEL)
    assert standing(WHEEL, releases) == "due"


def test_a_version_that_no_wheel_can_have_is_refused(releases: Path) -> None:
    assert standing(AgentRelease(version="2-0", wheel=WHEEL.wheel), releases) == "refused"


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_torn_note_is_none(releases: Path, text: str) -> None:
    (releases / "desired.json").write_bytes(text.encode(errors="surrogateescape"))
    assert standing(WHEEL, releases) == "due"
