"""How layers are packed: nothing of the machine in the header, the same bytes however the content comes, pinned compressors."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable

import pytest
import zstandard

from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_ZSTD
from packager.oci.compress import MEMBER_BYTES, compressor_name, packed


def pack(chunks: Iterable[bytes], media_type: str = MEDIA_OCI_LAYER_GZIP) -> bytes:
    return b"".join(packed(media_type, chunks, lambda _: None))


def test_header_has_neither_time_nor_name() -> None:
    head = pack([b"hello"])
    assert head[:4] == b"\x1f\x8b\x08\x00"
    assert head[4:8] == bytes(4)


@pytest.mark.parametrize("media_type", [MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_ZSTD])
def test_chunking_does_not_change_the_bytes(media_type: str) -> None:
    data = bytes(range(256)) * (2 * MEMBER_BYTES // 256) + b"rest"
    whole = pack([data], media_type)
    assert whole == pack([data[i : i + 70_001] for i in range(0, len(data), 70_001)], media_type)
    assert whole == pack([b"", data, b""], media_type)
    if media_type == MEDIA_OCI_LAYER_GZIP:
        assert gzip.decompress(whole) == data
        assert whole.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 3
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(whole) == data


def test_nothing_is_one_empty_member() -> None:
    assert gzip.decompress(pack([])) == b""


def test_the_bytes_are_those_of_the_pinned_compressor() -> None:
    """Whoever changes these digests changes the digest of every image: raise `_GENERATION` of plan_key.py with it."""
    data = b"".join(hashlib.sha256(str(number).encode()).hexdigest().encode() for number in range(2000))
    assert hashlib.sha256(pack([data])).hexdigest() == "09cf022b76aa016a2c918188bf6d070a7a43a980c911172ce081432494287e04"
    assert (
        hashlib.sha256(pack([data], MEDIA_OCI_LAYER_ZSTD)).hexdigest()
        == "0f8f59cb7d1938ab489555b575e0611d71b914c46a5cba80c879cafa516515b1"
    )
    assert compressor_name(MEDIA_OCI_LAYER_GZIP) == "deflate 0.9.0 level 6 members 4194304"
    assert compressor_name(MEDIA_OCI_LAYER_ZSTD) == "zstandard 0.25.0 level 9"
