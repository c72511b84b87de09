"""What every place for content promises, tried on a real folder and on a real S3 server."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.blobs import CHUNK_BYTES, READ_BYTES, BlobStore
from registry.blobs.choose import open_store
from registry.blobs.errors import BlobDamaged, BlobUnknown, DigestMismatch, ObjectStoreUnavailable
from registry.blobs.ranges import hash_chunks, read_verified
from tests.fixtures.s3_server import S3Server
from tests.registry_stores import digest_of_text

SOON = timedelta(hours=1)


class Place:
    """A store, and hands that reach around it."""

    def __init__(self, store: BlobStore, scratch: Path, s3: S3Server | None) -> None:
        self.store, self.scratch, self.s3 = store, scratch, s3

    def overwrite(self, digest: str, content: bytes) -> None:
        """Change what lies under ``digest`` as rot or a vandal would."""
        hexadecimal = digest.removeprefix("sha256:")
        if self.s3 is not None:
            self.s3.put(f"ws/sha256/{hexadecimal[:2]}/{hexadecimal}", content)
            return
        path = self.scratch / "sha256" / hexadecimal[:2] / hexadecimal
        path.chmod(0o600)
        path.write_bytes(content)

    def everything(self) -> list[str]:
        """Names of all files and objects, temporaries included."""
        objects = self.s3.keys() if self.s3 is not None else []
        return sorted([*objects, *(path.name for path in self.scratch.rglob("*") if path.is_file())])


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    scratch = tmp_path / "blobs"
    if request.param == "folder":
        yield Place(open_store(scratch), scratch, None)
        return
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    with server.bucket() as bucket:
        yield Place(open_store(scratch, f"s3://{bucket.name}/ws", server.url), scratch, bucket)


class Endless:
    """Gives zeros and counts the largest piece that was ever asked for."""

    def __init__(self, size: int) -> None:
        self.left, self.largest = size, 0

    def read(self, size: int, /) -> bytes:
        self.largest = max(self.largest, size)
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


class Broken:
    """Ends in an error after ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int, /) -> bytes:
        if not self.left:
            raise ConnectionResetError
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


def test_what_goes_in_comes_out(place: Place) -> None:
    digest, size = place.store.put(io.BytesIO(b"hello"))
    assert (digest, size) == (digest_of_text("hello"), 5)
    assert place.store.has(digest)
    assert place.store.size(digest) == 5
    with place.store.open(digest) as stream:
        assert stream.read() == b"hello"
    assert len(place.everything()) == 1, "a temporary was left"


@pytest.mark.parametrize(
    "size", [0, 1, READ_BYTES + 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 33_000_000]
)
def test_every_size_survives_every_way_of_reading(place: Place, size: int) -> None:
    content = os.urandom(size)
    with place.store.stage(io.BytesIO(content)) as staged:
        digest = staged.digest
        assert (staged.size_bytes, digest) == (size, f"sha256:{hashlib.sha256(content).hexdigest()}")
        assert (staged.chunks is None) == (size <= CHUNK_BYTES)
    with place.store.open(digest) as whole:
        assert whole.read() == content
    with place.store.open(digest) as pieces:
        assert b"".join(iter(lambda: pieces.read(700_001), b"")) == content
    assert hash_chunks(place.store, digest) == staged.chunks
    for start, end in ((0, size), (size // 3, size // 2), (max(0, size - 1), size), (0, min(1, size))):
        assert b"".join(read_verified(place.store, digest, size, staged.chunks, start, end)) == content[start:end]


def test_chunks_are_hashed_as_they_are_cut(place: Place) -> None:
    content = os.urandom(2 * CHUNK_BYTES + 5)
    with place.store.stage(io.BytesIO(content)) as staged:
        assert staged.chunks is not None
        parts = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
        assert [staged.chunks.of(n) for n in range(3)] == [hashlib.sha256(part).digest() for part in parts]
        assert staged.chunks.of(3) == b""


def test_a_wrong_digest_leaves_nothing(place: Place) -> None:
    with pytest.raises(DigestMismatch, match=digest_of_text("other")):
        place.store.stage(io.BytesIO(b"hello"), digest_of_text("other"))
    assert place.everything() == []


@pytest.mark.parametrize("size", [9, 3 * CHUNK_BYTES, 40_000_000])
def test_a_source_that_breaks_leaves_nothing(place: Place, size: int) -> None:
    with pytest.raises(ConnectionResetError):
        place.store.stage(Broken(size))
    assert place.everything() == []


def test_little_is_held_in_memory(place: Place) -> None:
    source = Endless(20 * READ_BYTES + 1)
    assert place.store.put(source)[1] == 20 * READ_BYTES + 1
    assert source.largest <= READ_BYTES


@pytest.mark.parametrize("size", [3, 3 * READ_BYTES, CHUNK_BYTES + 9])
@pytest.mark.parametrize("damage", ["flip", "cut", "append", "empty"])
def test_damage_never_passes_for_content(place: Place, size: int, damage: str) -> None:
    content = os.urandom(size)
    with place.store.stage(io.BytesIO(content)) as staged:
        digest, chunks = staged.digest, staged.chunks
    changed = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:-1],
        "append": content + b"x",
        "empty": b"",
    }[damage]
    place.overwrite(digest, changed)
    received: list[bytes] = []

    def read_all() -> None:
        with place.store.open(digest) as stream:
            received.extend(iter(lambda: stream.read(1024), b""))

    with pytest.raises(BlobDamaged, match=digest):
        read_all()
    assert len(b"".join(received)) < len(changed) or damage == "empty"
    if damage != "append":
        with pytest.raises(BlobDamaged, match=digest):
            list(read_verified(place.store, digest, size, chunks, size - 1, size))


def test_an_intact_chunk_of_a_damaged_blob_is_still_served(place: Place) -> None:
    content = os.urandom(2 * CHUNK_BYTES)
    with place.store.stage(io.BytesIO(content)) as staged:
        digest, chunks = staged.digest, staged.chunks
    place.overwrite(digest, content[:-1] + bytes([content[-1] ^ 1]))
    assert b"".join(read_verified(place.store, digest, len(content), chunks, 7, 1000)) == content[7:1000]
    stream = read_verified(place.store, digest, len(content), chunks, CHUNK_BYTES - 1, CHUNK_BYTES + 1)
    assert next(stream) == content[CHUNK_BYTES - 1 : CHUNK_BYTES]
    with pytest.raises(BlobDamaged):
        next(stream)


def test_storing_again_mends_damage(place: Place) -> None:
    digest, _ = place.store.put(io.BytesIO(b"hello"))
    place.overwrite(digest, b"jello")
    place.store.put(io.BytesIO(b"hello"), digest)
    with place.store.open(digest) as stream:
        assert stream.read() == b"hello"


def test_the_same_content_at_once(place: Place) -> None:
    content = os.urandom(2 * READ_BYTES)
    digests: list[str] = []

    def put() -> None:
        # The S3 server of these tests answers 500 when two overwrite one key at once; callers try again, as the API tells them.
        for attempts_left in (4, 3, 2, 1, 0):
            try:
                digests.append(place.store.put(io.BytesIO(content))[0])
                return
            except ObjectStoreUnavailable:
                assert attempts_left

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(digests) == 6
    assert len(place.everything()) == 1


@pytest.mark.parametrize(
    "wrong", ["", "sha256:", "sha256:../../etc/passwd", f"sha256:{'a' * 63}", f"sha256:{'A' * 64}", f"md5:{'a' * 64}"]
)
def test_what_is_no_digest_reaches_nothing(place: Place, wrong: str) -> None:
    assert not place.store.has(wrong)
    for action in (
        place.store.open,
        place.store.size,
        lambda digest: place.store.read_at(digest, 0, 1),
        lambda digest: place.store.delete([digest]),
        lambda digest: place.store.stage(io.BytesIO(b""), digest),
        lambda digest: place.store.adopt(place.scratch, digest),
    ):
        with pytest.raises(BlobUnknown):
            action(wrong)


def test_an_unknown_digest(place: Place) -> None:
    assert not place.store.has(digest_of_text("x"))
    for action in (place.store.open, place.store.size, lambda digest: place.store.read_at(digest, 0, 1)):
        with pytest.raises(BlobUnknown, match=digest_of_text("x")):
            action(digest_of_text("x"))


def test_a_build_output_is_adopted_once_it_is_checked(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"layer")
    os.utime(output, (0, 0))
    with pytest.raises(DigestMismatch):
        place.store.adopt(output, digest_of_text("something else"))
    assert place.everything() == []
    with place.store.adopt(output, digest_of_text("layer")) as staged:
        assert staged.size_bytes == 5
    output.unlink()
    with place.store.open(digest_of_text("layer")) as stream:
        assert stream.read() == b"layer"
    (stored,) = place.store.stored()
    assert stored.stored_at > datetime.now(UTC) - SOON, "it was published now, however old the file was"


def test_a_link_is_not_adopted(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = tmp_path / "link"
    link.symlink_to(secret)
    with pytest.raises(DigestMismatch, match="not a plain file"):
        place.store.adopt(link, digest_of_text("secret"))
    assert place.everything() == []


def test_what_is_stored_is_listed_in_order_and_can_be_deleted(place: Place) -> None:
    assert list(place.store.stored()) == []
    digests = sorted(place.store.put(io.BytesIO(b"%d" % n))[0] for n in range(20))
    listed = list(place.store.stored())
    assert [blob.digest for blob in listed] == digests
    assert {blob.size_bytes for blob in listed} == {1, 2}
    assert all(abs(blob.stored_at - datetime.now(UTC)) < SOON for blob in listed)
    place.store.delete([*digests[:5], digest_of_text("never stored")])
    place.store.delete(digests[:5])
    place.store.delete([])
    assert [blob.digest for blob in place.store.stored()] == digests[5:]


def test_content_that_went_away_before_it_was_recorded_is_published_again(place: Place) -> None:
    content = os.urandom(CHUNK_BYTES + 1)
    with place.store.stage(io.BytesIO(content)) as staged:
        staged.confirm()
        place.store.delete([staged.digest])
        assert not place.store.has(staged.digest)
        staged.confirm()
        staged.confirm()
    with place.store.open(staged.digest) as stream:
        assert stream.read() == content
    assert len(place.everything()) == 1


def test_only_remains_of_dead_writers_are_swept(place: Place) -> None:
    uploads = place.scratch / "uploads"
    with place.store.stage(io.BytesIO(b"under way")) as staged:
        dead = uploads / "dead"
        dead.write_bytes(b"12345")
        young = uploads / "young"
        young.write_bytes(b"1")
        alive = next(path for path in uploads.iterdir() if path not in (dead, young))
        for path in (dead, alive):
            os.utime(path, (0, 0))
        before = datetime.now(UTC) - SOON
        for dry_run in (True, False):
            swept = place.store.sweep(before, dry_run=dry_run)
            assert (swept.count, swept.size_bytes) == (1, 5)
            assert dead.exists() == dry_run
        assert alive.exists()
        assert young.exists()
        staged.confirm()
    assert place.store.sweep(datetime.now(UTC) + SOON).count == 1
    assert list(uploads.iterdir()) == []
