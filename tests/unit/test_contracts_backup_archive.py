"""The archive of a backup: what is written is read again, and nothing else is."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
import pytest

from hedgerow.contracts.backup import BackupEnd, BackupHeader
from hedgerow.contracts.backup_archive import (
    NO_DIGEST,
    BackupDamaged,
    BackupTooNew,
    Member,
    blob_name,
    member_header,
    read_header,
    read_members,
    signed_off,
)
from hedgerow.contracts.document import digest_of, encode
from hedgerow.tar_headers import END_OF_TAR, padding

HEADER = BackupHeader(
    format=1,
    workspace_id="w",
    incarnation="i",
    hedgerow_version="0.1.0",
    revisions={},
    has_keys=True,
    has_blobs=True,
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
)
BLOBS = sorted((digest_of(content), content) for content in (b"", b"x" * 512, b"y" * 700))
MEMBERS = [
    ("backup.json", encode(HEADER)),
    ("keys/signing.key", b"secret\n"),
    ("records/facts.000001.jsonl.gz", b"rows"),
    ("records/facts.000002.jsonl.gz", b"more rows"),
    ("series/messages.000001.jsonl.gz", b"messages"),
    *((blob_name(digest), content) for digest, content in BLOBS),
]


def archive(members: list[tuple[str, bytes]]) -> bytes:
    data = b"".join(member_header(name, len(content)) + content + padding(len(content)) for name, content in members)
    end = encode(signed_off(BackupEnd(rows={}, blobs=3, blob_bytes=1212, digest=NO_DIGEST), sha256(data)))
    return data + member_header("end.json", len(end)) + end + padding(len(end)) + END_OF_TAR


def read(data: bytes) -> list[tuple[str, bytes]]:
    members = read_members(io.BytesIO(data), "b.tar")
    return [(member.name, member.read()) for member in members if isinstance(member, Member)]


def test_what_was_written_is_read() -> None:
    assert read(archive(MEMBERS)) == MEMBERS


def test_any_tar_program_lists_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(MEMBERS))) as tar:
        assert tar.getnames() == [*(name for name, _ in MEMBERS), "end.json"]
        assert all(info.isreg() and info.mode == 0o600 for info in tar)


def test_what_is_not_read_is_passed_over_and_still_counts() -> None:
    data = bytearray(archive(MEMBERS))
    list(read_members(io.BytesIO(data), "b.tar"))
    data[data.index(b"yyy")] ^= 1
    with pytest.raises(BackupDamaged, match="digest at its end"):
        list(read_members(io.BytesIO(data), "b.tar"))


def test_large_sizes_have_one_spelling_too() -> None:
    info = tarfile.TarInfo.frombuf(member_header(MEMBERS[-1][0], 9 << 40), "ascii", "strict")
    assert info.size == 9 << 40


def test_every_flipped_byte_is_found() -> None:
    whole = archive(MEMBERS)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        with pytest.raises(BackupDamaged):
            read(bytes(changed))


def test_no_length_but_the_whole_is_taken() -> None:
    whole = archive(MEMBERS)
    for length in {*range(0, len(whole), 256), *range(0, len(whole), 101), len(whole) - 1}:
        with pytest.raises(BackupDamaged):
            read(whole[:length])
    with pytest.raises(BackupDamaged, match="follows its end"):
        read(whole + b"\0")


def reordered(*order: int) -> list[tuple[str, bytes]]:
    return [MEMBERS[at] for at in order]


@pytest.mark.parametrize(
    "members",
    [
        [],
        reordered(1, 0),
        reordered(0, 2, 1),
        reordered(0, 4, 2),
        reordered(0, 5, 4),
        reordered(0, 6, 5),
        reordered(0, 5, 5),
        reordered(0, 2, 2),
        reordered(0, 0),
    ],
    ids=str,
)
def test_members_out_of_order_are_refused(members: list[tuple[str, bytes]]) -> None:
    with pytest.raises(BackupDamaged, match="not where it belongs"):
        read(archive(members))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "notes.txt",
            "keys/../evil",
            "keys/Evil",
            "/backup.json",
            "../backup.json",
            "./backup.json",
            "keys/.hidden",
            "keys/a/b",
        ),
        *("blobs/sha256/ab/" + "c" * 64, "records/facts.jsonl.gz", "records/facts;drop.000001.jsonl.gz", "", "records/"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BackupDamaged):
        read(archive([MEMBERS[0], (name, b"x")]))


def changed_info(**changes: object) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in changes.items():
            setattr(info, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_info(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        changed_info(type=tarfile.LNKTYPE, linkname="backup.json"),
        changed_info(type=tarfile.DIRTYPE),
        changed_info(type=tarfile.CHRTYPE),
        changed_info(type=tarfile.FIFOTYPE),
        changed_info(type=tarfile.GNUTYPE_LONGNAME),
        changed_info(type=tarfile.XHDTYPE),
        changed_info(type=tarfile.GNUTYPE_SPARSE),
        changed_info(mode=0o4755),
        changed_info(uname="x"),
        changed_info(mtime=1),
        changed_info(size=2**40),
        changed_info(size=-1),
    ],
)
def test_only_plain_files_of_a_bounded_size(change: Callable[[tarfile.TarInfo], None]) -> None:
    info = tarfile.TarInfo("keys/signing.key")
    info.mode = 0o600
    change(info)
    begin = archive(MEMBERS[:1])
    at = begin.index(b"end.json")
    with pytest.raises(BackupDamaged):
        read(begin[:at] + info.tobuf(tarfile.GNU_FORMAT) + begin[at:])


@pytest.mark.parametrize("foreign", [b"", b"x", b"PK\x03\x04" + b"\0" * 2000, b"\0" * 10240, b"SQLite format 3\0" * 100])
def test_foreign_files_are_refused(foreign: bytes) -> None:
    with pytest.raises(BackupDamaged):
        read(foreign)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{}", BackupDamaged),
        (b"no json", BackupDamaged),
        (encode(HEADER).replace(b'"format":1', b'"format":2'), BackupTooNew),
        (b'{"schema_version":9}', BackupTooNew),
        (encode(msgspec.structs.replace(HEADER, format=2, hedgerow_version="\x1b[2J")), BackupDamaged),
    ],
)
def test_what_the_beginning_says_is_checked(content: bytes, error: type[Exception]) -> None:
    first = next(read_members(io.BytesIO(archive([("backup.json", content)])), "b.tar"))
    assert isinstance(first, Member)
    with pytest.raises(error):
        read_header(first, "b.tar")
