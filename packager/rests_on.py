"""What of this machine an answer rests on beside its request: the bases as they lie there, the locks that are kept.

The controller looks at these files before it starts a build, and starts none while they are the same. What only somebody
else can tell (what a tag of a registry or of an engine means today) makes that impossible.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from hedgerow.contracts.build import BuildRequest, FileFact
from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.contracts.remote_image import RemoteImage, names_a_host
from hedgerow.errors import HedgerowError
from hedgerow.file_facts import seen_at
from packager.cache.layers import LayerCache
from packager.environment.lock import lock_key


def look_at_bases(request: BuildRequest, default_base: str | None, now: datetime) -> list[FileFact] | None:
    """The files by which the bases are found; to be called before they are read. None: they are found in another way."""
    if request.kind != "docker":
        return []
    references = {request.bases.get(platform) or request.base or default_base or "" for platform in request.platforms}
    found: list[FileFact] = []
    for reference in sorted(references):
        facts = _base(reference, now)
        if facts is None:
            return None
        found += facts
    return found


def rests_on(
    request: BuildRequest, bases: list[FileFact] | None, locks: Iterable[EnvironmentLock], cache: LayerCache
) -> list[FileFact] | None:
    """All that the answer rests on; None where it cannot be known from files. ``bases`` are those of :func:`look_at_bases`.

    With ``dockerfile`` an engine has its say.
    """
    if bases is None or request.dockerfile:
        return None
    # Not as it stands there now: another build may have renewed it since this one read it.
    records = [cache.record("lock", lock_key(lock.requirements, lock.python_version, lock.platform), lock) for lock in locks]
    return bases + [FileFact(path=str(path.absolute()), seen=digest) for path, digest in records]


def _base(reference: str, now: datetime) -> list[FileFact] | None:
    scheme, _, rest = reference.partition(":")
    if scheme == "oci":
        return _file(Path(rest) / "index.json", now)
    if scheme == "docker-archive":
        return _file(Path(rest), now)
    if scheme == "registry" or names_a_host(reference):
        return [] if _is_pinned(rest if scheme == "registry" else reference) else None
    return None


def _file(path: Path, now: datetime) -> list[FileFact] | None:
    # A relative path means another file to whoever looks from another folder.
    seen = seen_at(path, now) if path.is_absolute() else None
    return None if seen is None else [FileFact(path=str(path), seen=seen)]


def _is_pinned(reference: str) -> bool:
    try:
        return RemoteImage.parse(reference).digest is not None
    except HedgerowError:  # fetching it will say so
        return False
