"""The launcher's rules on a folder of releases: what each start does, and every state that a crash between two steps leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import UpgradeRefused
from edge_agent.service import launch
from edge_agent.service.trial import ReleaseTrial
from edge_agent.service.upgrade import Wish, begin_trial
from edge_agent.service.watchdog import Loop
from hedgerow.clock import SystemClock
from tests.waiting import wait_for


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for name in ("1", "2", "0"):
        (tmp_path / name).mkdir()
    launch.switch(tmp_path, "1")
    return tmp_path


def trial(releases: Path) -> dict[str, object]:
    return launch.read(releases / launch.TRIAL)


def outcome(releases: Path) -> dict[str, object]:
    return launch.read(releases / launch.OUTCOME)


def test_starts_are_counted_and_after_three_the_one_before_comes_back(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    assert launch.current(releases) == "2"
    for number in range(launch.STARTS_MAX):
        assert trial(releases)["starts"] == number
        assert launch.settle(releases) == ""
    assert "2 was taken back, 1 runs again: it was started 3 times" in launch.settle(releases)
    assert launch.current(releases) == "1"
    assert trial(releases) == {}
    assert outcome(releases)["kept"] is False
    assert launch.settle(releases) == "", "what is over is told once"


def test_only_the_release_to_go_back_to_is_kept(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    assert {path.name for path in releases.iterdir() if path.is_dir() and not path.is_symlink()} == {"1", "2"}


def test_a_second_upgrade_waits_for_the_end_of_the_first(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    with pytest.raises(UpgradeRefused, match="still on trial"):
        begin_trial(releases, "1", had_session=False)
    (releases / launch.TRIAL).unlink()
    with pytest.raises(UpgradeRefused, match="the current one"):
        begin_trial(releases, "2", had_session=False)


def test_the_very_first_release_has_no_trial(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    begin_trial(tmp_path, "1", had_session=True)
    assert (launch.current(tmp_path), trial(tmp_path)) == ("1", {})


def test_killed_before_the_switch_nothing_has_happened(releases: Path) -> None:
    launch.write(releases / launch.TRIAL, {"previous": "1", "candidate": "2", "starts": 0})
    assert launch.settle(releases) == ""
    assert (launch.current(releases), trial(releases), outcome(releases)) == ("1", {}, {})


def test_killed_on_the_way_back_the_way_is_gone_to_its_end(releases: Path) -> None:
    # The link goes first: it is back, and the words are still to be written.
    launch.write(releases / launch.TRIAL, {"previous": "1", "candidate": "2", "starts": 3})
    assert "2 was taken back" in launch.settle(releases)
    assert (launch.current(releases), trial(releases), outcome(releases)["kept"]) == ("1", {}, False)


def test_killed_in_the_middle_of_the_commit_it_is_still_on_trial(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    launch.settle(releases)
    launch.write(releases / launch.OUTCOME, {"candidate": "2", "previous": "1", "kept": True, "reason": ""})
    assert launch.settle(releases) == ""
    assert (launch.current(releases), trial(releases)["starts"]) == ("2", 2)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\udcff"])
def test_a_torn_trial_is_none(releases: Path, text: str) -> None:
    (releases / launch.TRIAL).write_bytes(text.encode(errors="surrogateescape"))
    assert launch.settle(releases) == ""
    assert launch.current(releases) == "1"


def test_a_torn_switch_is_done_again(releases: Path) -> None:
    (releases / ".current.new").symlink_to("nowhere")
    launch.switch(releases, "2")
    assert launch.current(releases) == "2"


class Watched:
    """A trial in a running agent, with loops that go round when woken unless they hang."""

    def __init__(self, releases: Path, *, session: bool, hangs: bool = False, offline_s: float = 0.4) -> None:
        self.told: list[tuple[str, bool]] = []
        self.left = 0
        self._rounds = 0
        self._hangs = hangs
        self.trial = ReleaseTrial(
            releases,
            [Loop("supervisor", lambda: self._rounds, self._wake)],
            SystemClock(),
            has_session=lambda: session,
            on_end=lambda words, kept: self.told.append((words, kept)),
            leave=self._leave,
            look_s=0.02,
            offline_s=offline_s,
        )
        self.trial.start()

    def _wake(self) -> None:
        self._rounds += not self._hangs

    def _leave(self) -> None:
        self.left += 1


def test_with_a_session_and_loops_that_go_round_a_release_is_kept(releases: Path) -> None:
    begin_trial(releases, "2", had_session=True)
    launch.settle(releases)
    watched = Watched(releases, session=True, offline_s=1000)
    wait_for(lambda: watched.told, timeout_s=30, what="the commit")
    assert watched.told == [("release 2 is kept: it is healthy", True)]
    watched.trial.close()
    assert trial(releases) == {}
    assert outcome(releases)["told"] is True


def test_offline_before_and_after_is_good_enough_after_a_time(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    watched = Watched(releases, session=False)
    wait_for(lambda: watched.told, timeout_s=30, what="the commit")
    assert watched.told[0][1] is True
    watched.trial.close()


def test_a_release_that_lost_the_hub_gives_up_and_the_launcher_goes_back(releases: Path) -> None:
    begin_trial(releases, "2", had_session=True)
    launch.settle(releases)
    watched = Watched(releases, session=False)
    wait_for(lambda: watched.left, timeout_s=30, what="the giving up")
    watched.trial.close()
    assert "no session with the hub" in launch.settle(releases)
    assert launch.current(releases) == "1"
    successor = Watched(releases, session=True)
    assert successor.told == [(str(outcome(releases)["reason"]), False)]
    assert successor.left == 0
    again = Watched(releases, session=True)
    assert again.told == [], "it is told once"


def test_a_hanging_loop_commits_nothing(releases: Path) -> None:
    begin_trial(releases, "2", had_session=False)
    watched = Watched(releases, session=True, hangs=True, offline_s=0.1)
    with pytest.raises(AssertionError):
        wait_for(lambda: watched.told, timeout_s=1.0, what="a commit that must not come")
    watched.trial.close()
    assert trial(releases)["candidate"] == "2"


def test_what_is_no_release_is_refused() -> None:
    assert Wish(wheel=Path("/x/hedgerow-0.2.0-py3-none-any.whl")).name == "0.2.0"
    assert Wish(version="0.2.0rc1").name == "0.2.0rc1"
    for wish in (
        Wish(),
        Wish(wheel=Path("a-1-b.whl"), version="1"),
        Wish(version="../1"),
        Wish(version="current"),
        Wish(wheel=Path("hedgerow.whl")),
    ):
        with pytest.raises(UpgradeRefused):
            _ = wish.name
