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
    """Whoever changes these digests changes the digest of every image; the compressor's name must then change with them."""
    data = b"".join(b"the square of %d is %d\n" % (number, number**2) for number in range(20_000))
    assert hashlib.sha256(pack([data])).hexdigest() == "1a14a82f9f3e4b3f73cb8d418845090a69a88af50904ac31c6d00a85b363dfbe"
    assert (
        hashlib.sha256(pack([data], MEDIA_OCI_LAYER_ZSTD)).hexdigest()
        == "d1c2d021461c6367befcc6d028a5ecef442b61c5882ceff4846a51e043dd0715"
    )
    assert compressor_name(MEDIA_OCI_LAYER_GZIP) == "deflate 0.9.0 level 5 members 4194304"
    assert compressor_name(MEDIA_OCI_LAYER_ZSTD) == "zstandard 0.25.0 level 9"
