"""Which images of the Docker engine this agent has fetched, in ``docker-images.json``. No other is ever taken away.

Written before a pull begins: an agent that is killed in between may remember an image that never came, never the other way
round. Knows no Docker; needs none to say that there is nothing to clear up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

import msgspec

from edge_agent.images.garbage import StoredImage
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import Instant, decode, encode
from hedgerow.errors import HedgerowError

FILE = "docker-images.json"
log = logging.getLogger(__name__)


class _Pulled(msgspec.Struct, frozen=True):
    reference: str
    used_at: Instant
    size_bytes: int = 0


class _Ledger(msgspec.Struct, frozen=True):
    images: dict[str, _Pulled] = {}


class DockerLedger:
    """Thread-safe. Keys are digests, or the reference of an image that is named by a tag. ``remove_image`` takes a reference."""

    def __init__(self, folder: Path, remove_image: Callable[[str], bool]) -> None:
        self._path = folder / FILE
        self._remove_image = remove_image
        self._lock = threading.Lock()

    def pulled(self, key: str, reference: str, now: datetime, size_bytes: int = 0) -> None:
        """An image that was not here before is being fetched, or has come. Raises OSError."""
        with self._lock:
            self._save({**self._load(), key: _Pulled(reference, now, size_bytes)})

    def stored(self) -> list[StoredImage]:
        """What was fetched and not taken away again."""
        with self._lock:
            return [StoredImage("docker", key, image.size_bytes, image.used_at) for key, image in self._load().items()]

    def touch(self, digests: Collection[str], now: datetime) -> None:
        """These images are in use."""
        with self._lock:
            images = self._load()
            if images.keys() & set(digests):
                used = {key: msgspec.structs.replace(image, used_at=now) for key, image in images.items() if key in digests}
                self._save({**images, **used})

    def remove(self, digest: str) -> bool:
        """Take an image away. False when it stays, because something else in the engine needs it; raises HedgerowError."""
        with self._lock:
            image = self._load().get(digest)
            if image is None or not self._remove_image(image.reference):
                return False
            images = self._load()
            del images[digest]
            self._save(images)
            return True

    def _load(self) -> dict[str, _Pulled]:
        try:
            return dict(decode(self._path.read_bytes(), _Ledger).images)
        except FileNotFoundError:
            return {}
        except HedgerowError as problem:
            # Then nothing is ours to take away.
            log.warning("%s cannot be read: %s", self._path.name, problem)
            return {}

    def _save(self, images: dict[str, _Pulled]) -> None:
        atomic_write(self._path, encode(_Ledger(images)), mode=0o600)
