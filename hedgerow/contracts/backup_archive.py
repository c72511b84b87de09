"""The archive of a backup: a plain tar that any tar program lists, of members whose names and order are fixed.

    backup.json                       BackupHeader
    keys/…                            only when asked for
    records/TABLE.000001.jsonl.gz     rows as JSON lines, by primary key; a table has one member or more, or none
    series/TABLE.000001.jsonl.gz
    blobs/sha256/ab/ab12…             content, in order of digest
    end.json                          BackupEnd; its digest covers every byte before it and the rest of itself

Whoever writes one makes each member with :func:`member_header` and :mod:`hedgerow.tar_headers`. Whoever reads one goes through
:func:`read_members`, which trusts nothing: every header is plain, every name one of the above, sizes are bounded, every byte
counts, and the end must be there. Nothing is ever unpacked by the names in it.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from hedgerow.contracts.backup import BACKUP_FORMAT, BackupEnd, BackupHeader
from hedgerow.contracts.document import decode, encode
from hedgerow.errors import DocumentTooNew, InvalidDocument, UserError
from hedgerow.tar_headers import BLOCK_BYTES, END_OF_TAR, plain_header

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

HEADER_NAME, END_NAME = "backup.json", "end.json"
CHUNK_BYTES = 1 << 20
_MIB = 1 << 20
NO_DIGEST = f"sha256:{'0' * 64}"
# In the order in which they come; with the most bytes that one member may have (None: its own digest is the judge).
_KINDS: tuple[tuple[str, re.Pattern[str], int | None], ...] = (
    ("header", re.compile(r"backup\.json"), _MIB),
    ("key", re.compile(r"keys/[a-z0-9][a-z0-9._-]{0,60}"), _MIB),
    ("records", re.compile(r"records/[a-z][a-z0-9_]{0,50}\.[0-9]{6,9}\.jsonl\.gz"), 256 * _MIB),
    ("series", re.compile(r"series/[a-z][a-z0-9_]{0,50}\.[0-9]{6,9}\.jsonl\.gz"), 256 * _MIB),
    ("blob", re.compile(r"blobs/sha256/([0-9a-f]{2})/\1[0-9a-f]{62}"), None),
    ("end", re.compile(r"end\.json"), 256 * _MIB),
)


class BackupDamaged(UserError):
    """A file that is no backup, or one that was cut off or changed."""

    key = "backup_damaged"
    message = "{file} cannot be used as a backup: {problem}"
    remedy = "Use another copy of it, or an older backup; nothing was changed here."


class BackupTooNew(UserError):
    """A backup that a newer Hedgerow wrote."""

    key = "backup_too_new"
    message = "{file} was written by Hedgerow {version}, which is newer than this one: {problem}"
    remedy = "Restore it with that version or a later one (pip install --upgrade hedgerow)."


class Readable(Protocol):
    """What an archive is read from; returns fewer bytes than asked only at its end, or whenever it likes."""

    def read(self, size: int, /) -> bytes: ...


class Member:
    """One member while it is read; what is not read of it is passed over, but still counted in the digest."""

    def __init__(self, kind: str, name: str, size: int, source: _Source) -> None:
        self.kind, self.name, self.size = kind, name, size
        self._source, self._left = source, size

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of its content, none at its end. Raises BackupDamaged."""
        data = self._source.exactly(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def finish(self) -> None:
        """Pass over the rest, up to the next header."""
        while self._left:
            self.read(CHUNK_BYTES)
        if any(self._source.exactly(-self.size % BLOCK_BYTES)):
            raise self._source.damaged("there is something between its members")


def member_header(name: str, size: int) -> bytes:
    """The 512 bytes in front of a member's content; always the same for the same member."""
    return plain_header(name, size, 0o600)


def signed_off(end: BackupEnd, before: Hash) -> BackupEnd:
    """``end`` with the digest that it must have after everything that ``before`` has hashed."""
    whole = before.copy()
    whole.update(encode(msgspec.structs.replace(end, digest=NO_DIGEST)))
    return msgspec.structs.replace(end, digest=f"sha256:{whole.hexdigest()}")


def blob_name(digest: str) -> str:
    """The member that holds a blob."""
    hexadecimal = digest.removeprefix("sha256:")
    return f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}"


def read_members(stream: Readable, file: str) -> Iterator[Member | BackupEnd]:
    """The members of an archive in order, ``backup.json`` first, then its end; ``file`` stands for it in errors.

    The end comes only if the archive was whole: use nothing of it for good before. Raises BackupDamaged.
    """
    source, order = _Source(stream, file), _Order()
    while True:
        before = source.hash_so_far()
        member = _next(source)
        if not order.takes(member):
            raise source.damaged(f"its member {member.name} is not where it belongs")
        if member.kind == "end":
            yield _whole_end(member, before, source)
            return
        yield member
        member.finish()


def read_header(member: Member, file: str) -> BackupHeader:
    """What ``backup.json`` says. Raises BackupDamaged, BackupTooNew."""
    data = member.read()
    try:
        header = decode(data, BackupHeader)
    except DocumentTooNew as problem:
        raise BackupTooNew(file=file, version="?", problem=str(problem)) from None
    except InvalidDocument as problem:
        raise BackupDamaged(file=file, problem=str(problem)) from None
    # They are shown on terminals before anything else is known of the file.
    if not "".join((header.workspace_id, header.hedgerow_version, *header.revisions.values())).isprintable():
        raise BackupDamaged(file=file, problem="its beginning holds characters that cannot be seen")
    if header.format > BACKUP_FORMAT:
        problem_text = f"format {header.format}, this one reads up to {BACKUP_FORMAT}"
        raise BackupTooNew(file=file, version=header.hedgerow_version, problem=problem_text)
    return header


class _Order:
    """Kinds follow each other, no member comes twice, blobs are sorted (there may be too many of them to remember)."""

    def __init__(self) -> None:
        self._kind, self._seen, self._last_blob = -1, set[str](), ""

    def takes(self, member: Member) -> bool:
        kind = next(i for i, (name, _, _) in enumerate(_KINDS) if name == member.kind)
        if kind < self._kind or (self._kind < 0 < kind) or member.name in self._seen:
            return False
        self._kind = kind
        if member.kind != "blob":
            self._seen.add(member.name)
            return True
        follows, self._last_blob = member.name > self._last_blob, member.name
        return follows


def _whole_end(member: Member, before: Hash, source: _Source) -> BackupEnd:
    data = member.read()
    member.finish()
    source.expect_nothing_more()
    try:
        end = decode(data, BackupEnd)
    except (InvalidDocument, DocumentTooNew) as problem:
        raise source.damaged(f"its end is not readable ({problem})") from None
    # The digest does not cover itself, so this one member has a single spelling.
    if end != signed_off(end, before) or encode(end) != data:
        raise source.damaged("its content is not what was written (the digest at its end differs)")
    return end


def _next(source: _Source) -> Member:
    raw = source.exactly(BLOCK_BYTES)
    try:
        info = tarfile.TarInfo.frombuf(raw, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeError):
        raise source.damaged("it is no archive of Hedgerow, or was changed or cut off") from None
    known = next((kind for kind in _KINDS if kind[1].fullmatch(info.name)), None)
    if known is None:
        raise source.damaged(f"it has a member {info.name[:100]!r}, which no backup has")
    kind, _, limit = known
    if info.size < 0 or (limit is not None and info.size > limit):
        raise source.damaged(f"its member {info.name} says that it has {info.size} bytes")
    # Links, folders, devices, long names: whatever is not spelled exactly as we spell it was not written by us.
    if member_header(info.name, info.size) != raw:
        raise source.damaged(f"its member {info.name} is not the plain file that it should be")
    return Member(kind, info.name, info.size, source)


class _Source:
    """Counts and hashes what is read."""

    def __init__(self, stream: Readable, file: str) -> None:
        self._stream, self._file, self._sha = stream, file, hashlib.sha256()

    def hash_so_far(self) -> Hash:
        return self._sha.copy()

    def exactly(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            part = self._stream.read(left)
            if not part:
                raise self.damaged("it was cut off")
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        self._sha.update(data)
        return data

    def expect_nothing_more(self) -> None:
        if self.exactly(len(END_OF_TAR)) != END_OF_TAR or self._stream.read(1):
            raise self.damaged("something follows its end")

    def damaged(self, problem: str) -> BackupDamaged:
        return BackupDamaged(file=self._file, problem=problem)
