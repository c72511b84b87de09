"""From settings to a place for contents: what is taken, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.errors import InvalidSetting
from registry.blobs import ChunkHashes, FolderStore
from registry.blobs.choose import open_store
from registry.blobs.hashing import CHUNK_BYTES, copy_hashed
from registry.blobs.object_store import ObjectStore


def test_without_a_url_contents_are_in_the_workspace(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    assert not list(tmp_path.iterdir()), "nothing is made before the first write"


def test_a_file_url_is_another_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path / "unused", f"file://{tmp_path}/with%20space")
    assert isinstance(store, FolderStore)
    digest = "sha256:" + "a" * 64
    assert store.path(digest) == tmp_path / "with space" / "sha256" / "aa" / ("a" * 64)


def test_an_object_store_is_not_asked_before_it_is_used(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path, "s3://bucket/prefix", "http://127.0.0.1:9"), ObjectStore)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory://blobs", "keeps nothing"),
        ("https://example.org/blobs", "keeps nothing"),
        ("simplecache::s3://bucket", "not a URL"),
        ("s3://", "no bucket"),
        ("s3:///", "no bucket"),
        ("nonsense://bucket", "no file system named nonsense"),
        ("file://relative/path", "absolute path"),
        ("/plain/path", "not a URL"),
        ("", "not a URL"),
        ("s3://key:secret@bucket/x", "environment"),
        ("s3://bucket/x?secret=1", "environment"),
    ],
)
def test_what_cannot_keep_contents_is_refused(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=says) as refused:
        open_store(tmp_path, url)
    assert "secret" not in str(refused.value)


def test_only_s3_has_an_endpoint(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="only s3"):
        open_store(tmp_path, "ftp://host/x", "http://127.0.0.1:9")


class Zeros:
    def __init__(self, size: int, failing_after: int | None = None) -> None:
        self.left, self.failing_after = size, failing_after

    def read(self, size: int, /) -> bytes:
        if self.failing_after is not None and self.left <= self.failing_after:
            raise ConnectionResetError
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


def test_hashes_do_not_depend_on_how_content_arrives() -> None:
    class Dribbling(Zeros):
        def read(self, size: int, /) -> bytes:
            return super().read(min(size, 65_521))

    size = 2 * CHUNK_BYTES + 3
    assert copy_hashed(Dribbling(size)) == copy_hashed(Zeros(size))
    found = copy_hashed(Zeros(size)).chunks
    assert found is not None
    assert found.of(0) == found.of(1) != found.of(2)
    assert ChunkHashes(4, b"").of(0) == b""


def test_a_source_or_a_target_that_fails_ends_the_hashing() -> None:
    with pytest.raises(ConnectionResetError):
        copy_hashed(Zeros(5 * CHUNK_BYTES, failing_after=CHUNK_BYTES))

    def full(_piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        copy_hashed(Zeros(5 * CHUNK_BYTES), full)
