"""What goes when disk space is wanted back, and what never does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.images.garbage import Leftover, Rules, StoredImage, images_to_remove, leftovers_to_remove
from tests.agent_builders import NOW

WEEK = timedelta(days=7)


def image(digest: str, *, size: int = 10, days: float = 0.0) -> StoredImage:
    return StoredImage("process", digest, size, NOW - timedelta(days=days))


def chosen(images: list[StoredImage], in_use: set[str], rules: Rules) -> list[str]:
    return [found.digest for found in images_to_remove(images, in_use, rules, NOW)]


def test_below_the_quota_only_what_nobody_needed_for_a_week_goes() -> None:
    rules = Rules(quota_bytes=1000, unused_for=WEEK)
    assert chosen([image("new"), image("old", days=8), image("used", days=9)], {"used"}, rules) == ["old"]


def test_above_the_quota_the_longest_unused_goes_until_it_fits() -> None:
    images = [image("a", days=1), image("b", days=3), image("c", days=2), image("used", size=100, days=5)]
    assert chosen(images, {"used"}, Rules(quota_bytes=115, unused_for=WEEK)) == ["b", "c"]


def test_on_a_full_disk_everything_unused_goes() -> None:
    assert chosen([image("a"), image("b"), image("used")], {"used"}, Rules(1000, WEEK, pressed=True)) == ["a", "b"]


def test_a_clock_that_was_set_back_ages_nothing() -> None:
    assert chosen([image("future", days=-400)], set(), Rules(1000, WEEK)) == []


images_strategy = st.lists(
    st.builds(image, st.sampled_from("abcdefgh"), size=st.integers(0, 50), days=st.floats(-10, 20)),
    unique_by=lambda found: found.digest,
)


@given(images_strategy, st.sets(st.sampled_from("abcdefgh")), st.integers(0, 200), st.booleans())
def test_nothing_in_use_ever_goes_and_the_quota_holds_where_it_can(
    images: list[StoredImage], in_use: set[str], quota: int, pressed: bool
) -> None:
    gone = chosen(images, in_use, Rules(quota, WEEK, pressed))
    assert not set(gone) & in_use
    left = [found for found in images if found.digest not in gone]
    unused = [found for found in left if found.digest not in in_use]
    assert sum(found.size_bytes for found in left) <= quota or not unused
    assert not (pressed and unused)
    assert chosen(left, in_use, Rules(quota, WEEK, pressed)) == [], "a second look finds more"


def leftover(kind: str, *, minutes: float, claimed: bool = False) -> Leftover:
    return Leftover(Path(kind), 1, NOW - timedelta(minutes=minutes), kind, claimed)  # type: ignore[arg-type]  # one of two words


DAY = 24 * 60


def test_leftovers_go_after_a_time_and_sooner_on_a_full_disk() -> None:
    found = [
        leftover("partial", minutes=1),
        leftover("partial", minutes=30),
        leftover("partial", minutes=30, claimed=True),
        leftover("partial", minutes=DAY + 1),
        leftover("damaged", minutes=DAY),
        leftover("damaged", minutes=8 * DAY),
    ]
    assert leftovers_to_remove(found, pressed=False, now=NOW) == [found[3], found[5]]
    # What may be written this moment stays even then, and what a pull will go on with.
    assert leftovers_to_remove(found, pressed=True, now=NOW) == [found[1], found[3], found[4], found[5]]
