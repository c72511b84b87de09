"""Builds that were made before, by all that was asked for: an equal one is answered without starting a process.

An answer holds while the files that it rests on (``BuildResult.rests_on``) are what they were; it only says which image that
is. Whether the image is still there, and tested, is for the database. What it forgets is merely built again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.build import BuildRequest, FileFact
from hedgerow.contracts.document import digest_of, encode
from hedgerow.contracts.model import FileEntry
from hedgerow.contracts.names import Digest
from hedgerow.file_facts import seen_at

log = logging.getLogger(__name__)
# Raise it whenever what stands in an answer, or how its key is made, means something else.
_GENERATION = 1
# Of one image name, the newest first: branches that are built in turn.
_MOST = 32
# What the packager reads of its environment: another base by default, another index, another engine.
_OF_PACKAGER = re.compile(r"HEDGEROW_.*|UV_.*|DOCKER_.*")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request led to."""

    key: Digest
    digest: Digest
    rests_on: list[FileFact]


def question(request: BuildRequest, source: list[FileEntry], installed: str, environment: Mapping[str, str]) -> Digest:
    """The key of an answer, of all that was asked for: not where things lie, how it is tested, or what the image is called.

    ``source`` stands for the folder of the script, ``installed`` for the code that builds (``installation.fingerprint``).
    """
    plain = msgspec.structs.replace(
        request,
        name="any",
        version=1,
        models=[msgspec.structs.replace(model, folder="", sample_input=None) for model in request.models],
        source=None,
        verify=False,
        rebuild=False,
        upgrade=False,
        out="",
        cache="",
    )
    outside = sorted((name, value) for name, value in environment.items() if _OF_PACKAGER.fullmatch(name))
    files = sorted((entry.path, entry.digest) for entry in source)
    return digest_of(msgspec.json.encode([_GENERATION, installed, outside, encode(plain).decode(), files]))


@dataclass(frozen=True)
class KnownAnswers:
    """Kept in ``folder``, one file for each image name."""

    folder: Path

    def find(self, name: str, key: Digest, now: datetime) -> Digest | None:
        """The digest of the image that the same request led to, if all that it rests on is unchanged."""
        answer = next((one for one in self._read(name) if one.key == key), None)
        if answer is None:
            return None
        for fact in answer.rests_on:
            if seen_at(Path(fact.path), now) != fact.seen:
                log.info("image %s is looked at again: %s is not what it was", name, fact.path)
                return None
        return answer.digest

    def keep(self, name: str, answer: Answer) -> None:
        """In place of an older answer to the same. What cannot be kept is only built again."""
        known = self._read(name)
        if known[:1] == [answer]:
            return
        kept = [answer, *(one for one in known if one.key != answer.key)][:_MOST]
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._path(name), msgspec.json.encode(kept), mode=0o600)
        except OSError as problem:
            log.warning("what image %s is made of cannot be remembered: %s", name, problem)

    def _read(self, name: str) -> list[Answer]:
        try:
            return msgspec.json.decode(self._path(name).read_bytes(), type=list[Answer])
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as problem:
            log.warning("what is known of image %s cannot be read: %s", name, problem)
            return []

    def _path(self, name: str) -> Path:
        # Names of the first release may be no file names.
        return self.folder / f"{digest_of(name.encode()).removeprefix('sha256:')}.json"
