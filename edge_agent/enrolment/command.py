"""``hedgerow agent enroll``, and the enrolment in the way of ``hedgerow agent run``: arguments in, lines for people out."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.enrolment.asking import Wish, read_key
from edge_agent.enrolment.enrolling import Pause, enroll, enroll_by_itself
from edge_agent.enrolment.errors import EnrollmentSetUpWrongly
from edge_agent.enrolment.place import Place
from edge_agent.settings import AgentSettings

KEY_VARIABLE = "HEDGEROW_ENROLLMENT_KEY"
log = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own class for it is private
    """``enroll`` below ``hedgerow agent``."""
    text = "make this device known with an enrolment key, and write its device.toml"
    command = commands.add_parser("enroll", help=text, description=text)
    command.add_argument("--url", required=True, help="address of the workspace, https://plant.example")
    given = command.add_mutually_exclusive_group()
    given.add_argument("--key", help="the enrolment key (other users may see it in the list of processes: better a file)")
    given.add_argument("--key-file", type=Path, help=f"file with the key (default: the variable {KEY_VARIABLE})")
    command.add_argument("--name", help="name to ask for (default: what the key gives)")
    command.add_argument("--ca", type=Path, help="certificate authority (PEM) to trust instead of the system's")
    command.add_argument("-o", "--output", dest="config", help="where to write it (default: device.toml)")
    command.add_argument("--wait", action="store_true", help="ask again until the workspace answers")
    command.add_argument("--insecure-http", action="store_true", help="although everybody on the way reads this device's key")


def run(
    options: argparse.Namespace,
    settings: AgentSettings,
    environment: Mapping[str, str],
    pause: Callable[[float], None],
    random: Callable[[], float],
) -> Sequence[str]:
    """Lines about what was done, and what to do next. Raises what :func:`enroll` raises."""
    key = options.key or (read_key(options.key_file) if options.key_file else environment.get(KEY_VARIABLE, "").strip())
    if not key:
        raise EnrollmentSetUpWrongly(problem=f"there is no key: give --key-file, --key or the variable {KEY_VARIABLE}")
    wish = Wish(options.url, key, options.name, options.ca, options.insecure_http)
    place = Place(settings.config.absolute())
    config = enroll(place, wish, _telling(pause) if options.wait else None, random)
    shown = shlex.quote(str(settings.config))
    return [
        f"enrolled as {config.name} ({config.device_uuid}): {settings.config}",
        f"run it with: hedgerow agent run --config {shown}",
        f"or as a service: hedgerow agent install --config {shown}",
    ]


def before_running(
    settings: AgentSettings, pause: Callable[[float], None], waiting: Callable[[str, float], None], random: Callable[[], float]
) -> None:
    """Nothing if there is a device.toml, or nobody said where to get one; else it is got, however long that takes.

    ``waiting`` is told why, and for how many seconds. Raises EnrollmentInsecure, LockHeld, EnrollmentSetUpWrongly.
    """
    url, key_file = settings.enroll_url, settings.enroll_key_file
    if settings.config.exists() or url is None:
        return
    if key_file is None:
        raise EnrollmentSetUpWrongly(problem="--enroll-url needs --enroll-key-file")

    def wish() -> Wish:
        ca, insecure = settings.enroll_ca, settings.enroll_insecure_http
        return Wish(url, read_key(key_file), settings.enroll_name, ca, insecure)

    def wait(delay_s: float, why: str) -> None:
        log.warning("not enrolled yet, asking again in %.0f s: %s", delay_s, why)
        waiting(f"not enrolled yet: {why}", delay_s)
        pause(delay_s)

    log.info("there is no %s yet: enrolling at %s", settings.config, url)
    enroll_by_itself(Place(settings.config.absolute()), wish, wait, random)
    log.info("enrolled: %s", settings.config)


def _telling(pause: Callable[[float], None]) -> Pause:
    def wait(delay_s: float, why: str) -> None:
        log.warning("asking again in %.0f s: %s", delay_s, why)
        pause(delay_s)

    return wait
