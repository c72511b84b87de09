"""Enrolment as a story: one at a time, ask as this installation, until there is a device.toml or no hope of one.

number of this installation on disk → ask ─ answer ──────────▶ device.toml, whole, 0600
                                       ▲      │ away: wait, longer each time
                                       └──────┘ (refused: that is the end, or a long wait where nobody looks)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.enrolment.asking import Wish, ask, check_wish
from edge_agent.enrolment.errors import AlreadyEnrolled, EnrollmentRefused, EnrollmentSetUpWrongly, EnrollmentUnreachable
from edge_agent.enrolment.place import Place
from hedgerow.backoff import Backoff
from hedgerow.contracts.device import DeviceConfig
from hedgerow.process.lock import hold_lock

AWAY = Backoff(first_s=1.0, immediate_s=1.0, cap_s=60.0)
# Somebody has to do something about a refusal first; a line of devices that all ask must not be a burden meanwhile.
REFUSED = Backoff(first_s=5.0, immediate_s=5.0, cap_s=600.0)

# Waits so many seconds, having been told why.
Pause = Callable[[float, str], None]


def enroll(place: Place, wish: Wish, pause: Pause | None, random: Callable[[], float]) -> DeviceConfig:
    """Ask once, or with ``pause`` until the workspace answers; the configuration that was written.

    Raises AlreadyEnrolled, EnrollmentRefused, EnrollmentInsecure, EnrollmentSetUpWrongly, LockHeld, and without ``pause``
    EnrollmentUnreachable.
    """
    check_wish(wish)
    _make_folder(place.config.parent)
    with _held(place):
        if place.config.exists():
            raise AlreadyEnrolled(path=place.config)
        config = _answer(wish, place.number(), pause, random)
        place.write(config)
    return config


@contextmanager
def _held(place: Place) -> Iterator[None]:
    """One at a time, and no file left of it. Raises LockHeld, EnrollmentSetUpWrongly."""
    try:
        lock = hold_lock(place.lock, f"The enrolment of {place.config}")
    except OSError as problem:
        raise EnrollmentSetUpWrongly(problem=f"{place.lock} cannot be written: {problem.strerror}") from None
    with lock:
        try:
            yield
        finally:
            # While it is held: whoever opened it meanwhile sees that it is gone, and makes another.
            place.lock.unlink(missing_ok=True)


def _answer(wish: Wish, number: str, pause: Pause | None, random: Callable[[], float]) -> DeviceConfig:
    failures = 0
    while True:
        try:
            return ask(wish, number)
        except EnrollmentUnreachable as problem:
            if pause is None:
                raise
            pause(AWAY.delay_s(failures, random), str(problem))
        failures += 1


def enroll_by_itself(place: Place, wish: Callable[[], Wish], pause: Pause, random: Callable[[], float]) -> None:
    """For a device that nobody watches: until there is a device.toml, whatever is wrong meanwhile.

    ``wish`` is made anew each time: somebody may put another key there. Raises LockHeld.
    """
    failures = 0
    while not place.config.exists():
        try:
            enroll(place, wish(), None, random)
        except AlreadyEnrolled:
            return
        except EnrollmentUnreachable as problem:
            pause(AWAY.delay_s(failures, random), str(problem))
        except (EnrollmentRefused, EnrollmentSetUpWrongly) as problem:
            pause(REFUSED.delay_s(failures, random), problem.sentence())
        failures += 1


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise EnrollmentSetUpWrongly(problem=f"the folder {folder} cannot be made: {problem.strerror}") from None
