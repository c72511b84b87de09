"""One question over HTTP: ``POST /api/v1/enroll`` with an enrolment key, and what its answer means.

Everything that comes back is bounded and checked before it becomes a device.toml; a redirect is not followed, since it would
carry the key to another place.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from edge_agent.device_config import config_problems
from edge_agent.enrolment.errors import (
    EnrollmentInsecure,
    EnrollmentRefused,
    EnrollmentSetUpWrongly,
    EnrollmentUnreachable,
)
from edge_agent.registry_http import connection_to, words_of
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.enrollment import EnrolledByKey, EnrollWithKey
from hedgerow.contracts.work import ProblemAnswer
from hedgerow.errors import HedgerowError

ANSWER_BYTES_MAX = 256 * 1024
_KEY = re.compile(r"hre_[A-Za-z0-9]{1,64}_[A-Za-z0-9_-]{1,128}")
_GOOD = (200, 201)
# The workspace, or what stands before it, is busy or away: the same question may be answered later.
_LATER = (408, 425, 429, 500, 502, 503, 504)
_WORDS_MAX = 300


@dataclass(frozen=True)
class Wish:
    """What a device asks with. ``name`` None: whatever the key gives. ``ca``: PEM of the authority to trust, or the system's."""

    url: str
    key: str
    name: str | None = None
    ca: Path | None = None
    insecure_http: bool = False


def read_key(path: Path) -> str:
    """The key in a file. Raises EnrollmentSetUpWrongly."""
    try:
        return path.read_text(encoding="utf-8")[:1024].strip()
    except (OSError, UnicodeDecodeError) as problem:
        words = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise EnrollmentSetUpWrongly(problem=f"the key file {path} cannot be read: {words}") from None


def check_wish(wish: Wish) -> None:
    """Before anything leaves this device. Raises EnrollmentSetUpWrongly, EnrollmentInsecure."""
    parts = _parts(wish.url)
    if not _KEY.fullmatch(wish.key):
        raise EnrollmentSetUpWrongly(problem="the enrolment key is not of the form hre_ID_SECRET")
    if wish.ca is not None and not wish.ca.is_file():
        raise EnrollmentSetUpWrongly(problem=f"there is no file {wish.ca} with the certificate authority")
    if parts.scheme == "http" and not wish.insecure_http and not _is_this_machine(parts.hostname or ""):
        raise EnrollmentInsecure(url=wish.url)


def ask(wish: Wish, installation: str) -> DeviceConfig:
    """The device.toml of this installation.

    Raises EnrollmentUnreachable when asking again may help, EnrollmentRefused when it does not, and like :func:`check_wish`.
    """
    check_wish(wish)
    status, body = _exchange(wish, encode(EnrollWithKey(installation=installation, name=wish.name)))
    if status in _GOOD:
        return _config(wish, body)
    said, hint = _told(body)
    if status in _LATER:
        raise EnrollmentUnreachable(url=wish.url, problem=f"it answered {status} {said}".rstrip())
    if status // 100 == 3:
        said, hint = f"it answered {status}, with another address", "Give the address that it leads to with --url."
    hint = hint or "See that --url is the address of a Hedgerow workspace (hedgerow up)."
    raise EnrollmentRefused(url=wish.url, problem=said or f"it answered {status}", hint=hint)


def _exchange(wish: Wish, body: bytes) -> tuple[int, bytes]:
    parts = _parts(wish.url)
    headers = {"Authorization": f"Bearer {wish.key}", "Content-Type": "application/json", "Accept": "application/json"}
    try:
        connection = connection_to(parts, wish.ca)
        try:
            connection.request("POST", f"{parts.path.rstrip('/')}/api/v1/enroll", body, headers)
            with connection.getresponse() as answer:
                read = answer.read(ANSWER_BYTES_MAX + 1)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise EnrollmentUnreachable(url=wish.url, problem=words_of(problem)) from None
    if len(read) > ANSWER_BYTES_MAX:
        hint = "See that --url is the address of a Hedgerow workspace (hedgerow up)."
        raise EnrollmentRefused(url=wish.url, problem=f"its answer is longer than {ANSWER_BYTES_MAX} bytes", hint=hint)
    return answer.status, read


def _config(wish: Wish, body: bytes) -> DeviceConfig:
    try:
        config = decode(body, EnrolledByKey).config
        problem = next(config_problems(config), None)
    except HedgerowError as refused:
        problem = str(refused)
    if problem is not None:
        hint = "Perhaps the workspace is of a newer Hedgerow: upgrade this one."
        raise EnrollmentRefused(url=wish.url, problem=f"its answer is no device configuration: {_plain(problem)}", hint=hint)
    return config


def _told(body: bytes) -> tuple[str, str]:
    """What the workspace says of its refusal, and what it advises."""
    try:
        error = decode(body, ProblemAnswer).error
    except HedgerowError:
        return "", ""
    return _plain(error.message), _plain(error.remedy)


def _plain(text: str) -> str:
    """It comes from elsewhere, and goes to a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)[:_WORDS_MAX]


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        good = False
    if not good or not url.isascii() or any(character.isspace() for character in url) or parts.query or parts.fragment:
        raise EnrollmentSetUpWrongly(problem=f"{_plain(url)!r} is not an address like https://plant.example")
    return parts


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
