"""Keys that callers must send: one or two, so that they can be changed one after the other while everything runs.

    Authorization: Bearer KEY      compared by digest in constant time; what passed once is remembered
    --auth-key-file F              looked at once a second; new keys count from then on, old ones no longer
    HEDGEROW_PRIMARY_KEY, …        fixed for the life of the server

Health pages are open and /metrics is open to this machine unless the settings say otherwise. Without keys none of this runs.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import AuthKeysUnusable, KeyNeeded
from runtime.settings import MetricsAuth, RuntimeSettings

_log = logging.getLogger("hedgerow.runtime.front")

SHORTEST_KEY = 16
_LONGEST_FILE = 65_536
_LOOK_EVERY_S = 1.0
_SCHEME = "bearer "
_MOST_REMEMBERED = 64
_HEALTH = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
_THIS_MACHINE, _THIS_MACHINES = frozenset({"", "::1"}), ("127.", "::ffff:127.")


@dataclass(frozen=True)
class OpenPages:
    """Which pages ask for no key."""

    health: bool
    metrics: MetricsAuth


class KeyRing:
    """The keys' digests. Raises AuthKeysUnusable when there is none or one is no good."""

    def __init__(self, keys: Sequence[str], source: str) -> None:
        self._digests = [_digest(key) for key in check_keys(keys, source)]
        # Whole header values that passed. A look-up goes by Python's keyed hash first: it tells nothing of how near a guess is.
        self._passed: dict[str, None] = {}

    def accepts(self, header: str | None) -> bool:
        """Whether this Authorization header brings one of the keys."""
        if header in self._passed:
            return True
        if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
            return False
        given = _digest(header[len(_SCHEME) :].strip())
        # Every digest is compared, whichever fits.
        fits = [hmac.compare_digest(given, digest) for digest in self._digests]
        if any(fits) and len(self._passed) < _MOST_REMEMBERED:
            self._passed[header] = None
        return any(fits)


class KeyFile:
    """A file of keys that is read again when it changes. What it says wrongly is logged, and the keys from before stay."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = self._stamp()
        self.ring = KeyRing(_read(file), str(file))

    def look(self) -> None:
        """Take the keys that are there now."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.ring = KeyRing(_read(self._file), str(self._file))
        except AuthKeysUnusable as problem:
            _log.error("the keys stay as they were: %s", problem.sentence())
        else:
            _log.info("the keys were read again from %s", self._file)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Guard:
    """Says who may come in. ``refused()`` counts those who may not. Belongs to the loop's thread."""

    def __init__(self, keys: KeyRing | KeyFile, pages: OpenPages, refused: Callable[[], None]) -> None:
        self._file = keys if isinstance(keys, KeyFile) else None
        self._ring = keys.ring if isinstance(keys, KeyFile) else keys
        self._pages, self._refused = pages, refused

    @classmethod
    def of(cls, settings: RuntimeSettings, refused: Callable[[], None]) -> Guard | None:
        """None where no keys are set. Raises AuthKeysUnusable."""
        pages = OpenPages(not settings.auth_health, settings.auth_metrics)
        given = [key for key in (settings.primary_key, settings.secondary_key) if key is not None]
        if settings.auth_key_file is not None:
            if given:
                raise AuthKeysUnusable(source="two places", problem="there are keys in the environment and a file of keys")
            return cls(KeyFile(settings.auth_key_file), pages, refused)
        return cls(KeyRing(given, "the environment"), pages, refused) if given else None

    def watch(self, loop: AbstractEventLoop) -> None:
        """Look at the file of keys from now on."""
        if self._file is not None:
            loop.call_later(_LOOK_EVERY_S, self.watch, loop)
            self._file.look()
            self._ring = self._file.ring

    def lets_in(self, path: str, headers: Mapping[str, str], caller: str) -> bool:
        """Whether this request may go on."""
        if self._ring.accepts(headers.get("authorization")):
            return True
        if path in _HEALTH:
            return self._pages.health
        if path == "/metrics":
            return self._pages.metrics == "never" or (self._pages.metrics == "remote" and _is_near(caller))
        return False

    def refusal(self, headers: Mapping[str, str]) -> KeyNeeded:
        """What to tell a caller that may not come in."""
        self._refused()
        return KeyNeeded(problem="The key is not valid" if "authorization" in headers else "A key is needed")


def _is_near(caller: str) -> bool:
    """Whether the caller is on this machine; over a Unix socket it has no address."""
    return caller in _THIS_MACHINE or caller.startswith(_THIS_MACHINES)


def check_keys(keys: Sequence[str], source: str) -> list[str]:
    """Raises AuthKeysUnusable; the message never holds a key."""
    if not keys:
        raise AuthKeysUnusable(source=source, problem="there is none")
    if len(keys) > 2:
        raise AuthKeysUnusable(source=source, problem=f"there are {len(keys)}")
    for number, key in enumerate(keys, start=1):
        if len(key) < SHORTEST_KEY:
            raise AuthKeysUnusable(source=source, problem=f"key {number} has {len(key)} characters")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise AuthKeysUnusable(source=source, problem=f"key {number} has characters that a header cannot carry")
    if len(set(keys)) != len(keys):
        raise AuthKeysUnusable(source=source, problem="both are the same")
    return list(keys)


def _read(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size > _LONGEST_FILE:
                raise AuthKeysUnusable(source=str(file), problem="it is too long to be a file of keys")
            text = opened.read().decode("utf-8")
    except OSError as problem:
        raise AuthKeysUnusable(source=str(file), problem=problem.strerror) from None
    except UnicodeDecodeError:
        raise AuthKeysUnusable(source=str(file), problem="it is no text") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
