"""Fetches the wheel of a wanted release of the agent from the workspace, checked by its digest.

The device's own token opens one address for it, which gives the wheel that this device's desired state names and no other. Only
what hashes to the digest in the signed state ever gets its name.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from edge_agent.errors import WheelNotFetched
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.names import agent_wheel_path

WHEEL_BYTES_MAX = 256 << 20
READ_BYTES = 1 << 16
# Time without a single byte; there is no limit on the whole while bytes flow.
STALL_TIMEOUT_S = 30.0
_ERROR_TEXT_BYTES = 300


def fetch_wheel(
    config: DeviceConfig, digest: str, into: Path, goes_on: Callable[[], bool], *, bytes_max: int = WHEEL_BYTES_MAX
) -> None:
    """Make ``into`` the wheel of this digest; one that is there, whole, stays.

    Raises WheelNotFetched, also for more than ``bytes_max`` and when ``goes_on`` says no.
    """
    try:
        if into.exists() and hmac.compare_digest(_digest_of(into), digest):
            return
        into.parent.mkdir(parents=True, exist_ok=True)
        part = into.with_name(f".{into.name}.part")
        _receive(config, digest, part, goes_on, bytes_max)
        if not hmac.compare_digest(_digest_of(part), digest):
            part.unlink()
            raise WheelNotFetched(wheel=digest, registry=config.registry_url, problem="what came has another sha256")
        part.replace(into)
    except (OSError, http.client.HTTPException) as problem:
        said = str(problem) or type(problem).__name__
        raise WheelNotFetched(wheel=digest, registry=config.registry_url, problem=said) from problem


def _receive(config: DeviceConfig, digest: str, part: Path, goes_on: Callable[[], bool], bytes_max: int) -> None:
    url = urlsplit(config.registry_url)
    path = f"{url.path.rstrip('/')}{agent_wheel_path(config.name)}?digest={quote(digest, safe=':')}"
    connection = _connect(config.registry_url)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {config.pull_token}"})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            text = answer.read(_ERROR_TEXT_BYTES).decode(errors="replace").strip()
            problem = f"it answered {answer.status} {text}".rstrip()
            raise WheelNotFetched(wheel=digest, registry=config.registry_url, problem=problem)
        with part.open("wb") as file:
            while chunk := answer.read(READ_BYTES):
                file.write(chunk)
                if file.tell() > bytes_max or not goes_on():
                    ended = "the agent ends" if file.tell() <= bytes_max else f"it is larger than {bytes_max} bytes"
                    raise WheelNotFetched(wheel=digest, registry=config.registry_url, problem=ended)
    finally:
        connection.close()


def _connect(registry_url: str) -> http.client.HTTPConnection:
    url = urlsplit(registry_url)
    host = url.hostname or "localhost"
    if url.scheme == "https":
        return http.client.HTTPSConnection(host, url.port, timeout=STALL_TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, url.port, timeout=STALL_TIMEOUT_S)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
