"""The blob store on a real folder: whole or not there, verified on read, bounded in memory."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from registry.blobs import CHUNK_BYTES, BlobStore
from registry.errors import BlobDamaged, BlobUnknown, DigestMismatch
from tests.registry_stores import digest_of_text


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Endless:
    """Gives zeros and counts the largest piece that was ever asked for."""

    def __init__(self, size: int) -> None:
        self.left, self.largest = size, 0

    def read(self, size: int, /) -> bytes:
        self.largest = max(self.largest, size)
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


def test_what_goes_in_comes_out(store: BlobStore, tmp_path: Path) -> None:
    digest, size = store.put(io.BytesIO(b"hello"))
    assert (digest, size) == (digest_of_text("hello"), 5)
    assert store.has(digest)
    assert store.size(digest) == 5
    with store.open(digest) as stream:
        assert stream.read() == b"hello"
    assert files_in(tmp_path / "blobs") == [store.path(digest)]
    assert store.path(digest).stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_every_size_survives_every_way_of_reading(store: BlobStore, size: int) -> None:
    content = os.urandom(size)
    digest, _ = store.put(io.BytesIO(content))
    with store.open(digest) as whole:
        assert whole.read() == content
    with store.open(digest) as pieces:
        assert b"".join(iter(lambda: pieces.read(70_001), b"")) == content


def test_a_wrong_digest_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match=digest_of_text("other")):
        store.put(io.BytesIO(b"hello"), digest_of_text("other"))
    assert files_in(tmp_path) == []


def test_a_source_that_breaks_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    class Broken:
        def __init__(self) -> None:
            self.pieces = [b"half of it"]

        def read(self, _size: int, /) -> bytes:
            if not self.pieces:
                raise ConnectionResetError
            return self.pieces.pop()

    with pytest.raises(ConnectionResetError):
        store.put(Broken())
    assert files_in(tmp_path) == []


def test_memory_stays_at_one_chunk(store: BlobStore) -> None:
    source = Endless(20 * CHUNK_BYTES + 1)
    _, size = store.put(source)
    assert size == 20 * CHUNK_BYTES + 1
    assert source.largest <= CHUNK_BYTES


@pytest.mark.parametrize("size", [3, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("damage", ["flip", "cut", "append", "empty"])
def test_damage_never_passes_for_content(store: BlobStore, size: int, damage: str) -> None:
    content = os.urandom(size)
    digest, _ = store.put(io.BytesIO(content))
    path = store.path(digest)
    path.chmod(0o600)
    changed = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:-1],
        "append": content + b"x",
        "empty": b"",
    }[damage]
    path.write_bytes(changed)
    received: list[bytes] = []

    def read_all() -> None:
        with store.open(digest) as stream:
            received.extend(iter(lambda: stream.read(1024), b""))

    with pytest.raises(BlobDamaged, match=digest):
        read_all()
    assert len(b"".join(received)) < len(changed) or damage == "empty"


def test_uploading_again_mends_damage(store: BlobStore) -> None:
    digest, _ = store.put(io.BytesIO(b"hello"))
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"jello")
    store.put(io.BytesIO(b"hello"), digest)
    with store.open(digest) as stream:
        assert stream.read() == b"hello"


def test_the_same_content_at_once(store: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(2 * CHUNK_BYTES)
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(store.put(io.BytesIO(content))[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(digests) == 8
    assert files_in(tmp_path / "blobs") == [store.path(digests[0])]


@pytest.mark.parametrize(
    "wrong", ["", "sha256:", "sha256:../../etc/passwd", f"sha256:{'a' * 63}", f"sha256:{'A' * 64}", f"md5:{'a' * 64}"]
)
def test_what_is_no_digest_reaches_no_file(store: BlobStore, wrong: str) -> None:
    assert not store.has(wrong)
    for action in (store.open, store.size, store.path):
        with pytest.raises(BlobUnknown):
            action(wrong)


def test_an_unknown_digest(store: BlobStore) -> None:
    with pytest.raises(BlobUnknown, match=digest_of_text("x")):
        store.open(digest_of_text("x"))


def test_a_build_output_is_adopted_once_it_is_checked(store: BlobStore, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"layer")
    with pytest.raises(DigestMismatch):
        store.adopt(output, digest_of_text("something else"))
    assert files_in(tmp_path / "blobs") == []
    assert store.adopt(output, digest_of_text("layer")) == 5
    output.unlink()
    with store.open(digest_of_text("layer")) as stream:
        assert stream.read() == b"layer"


def test_a_link_is_not_adopted(store: BlobStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = tmp_path / "link"
    link.symlink_to(secret)
    with pytest.raises(DigestMismatch, match="not a plain file"):
        store.adopt(link, digest_of_text("secret"))
    assert files_in(tmp_path / "blobs") == []
