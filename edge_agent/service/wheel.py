"""Fetches the wheel of a wanted release of the agent from the workspace, checked by its digest.

The device's own token opens one address for it, which gives the wheel that this device's desired state names and no other. Only
what hashes to the digest in the signed state ever gets its name.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from edge_agent.errors import WheelNotFetched
from edge_agent.registry_http import DeviceRegistry, words_of

WHEEL_BYTES_MAX = 256 << 20
READ_BYTES = 1 << 16
Failed = Callable[[str], WheelNotFetched]


def fetch_wheel(
    registry: DeviceRegistry, digest: str, into: Path, goes_on: Callable[[], bool], *, bytes_max: int = WHEEL_BYTES_MAX
) -> None:
    """Make ``into`` the wheel of this digest; one that is there, whole, stays.

    Raises WheelNotFetched, also for more than ``bytes_max`` and when ``goes_on`` says no.
    """

    def failed(problem: str) -> WheelNotFetched:
        return WheelNotFetched(wheel=digest, registry=registry.url, problem=problem)

    try:
        if into.exists() and hmac.compare_digest(_digest_of(into), digest):
            return
        into.parent.mkdir(parents=True, exist_ok=True)
        part = into.with_name(f".{into.name}.part")
        _receive(registry, digest, part, goes_on, bytes_max, failed)
        if not hmac.compare_digest(_digest_of(part), digest):
            part.unlink()
            raise failed("what came has another sha256")
        part.replace(into)
    except OSError as problem:
        raise failed(words_of(problem)) from problem


def _receive(
    registry: DeviceRegistry, digest: str, part: Path, goes_on: Callable[[], bool], bytes_max: int, failed: Failed
) -> None:
    what = f"agent-wheel?digest={quote(digest, safe=':')}"
    with registry.answer(what, failed) as answer, part.open("wb") as file:
        while chunk := answer.read(READ_BYTES):
            file.write(chunk)
            if file.tell() > bytes_max or not goes_on():
                raise failed("the agent ends" if file.tell() <= bytes_max else f"it is larger than {bytes_max} bytes")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
