"""Gzip in both directions: nothing of the machine in the header, bounded pieces, several members, damage noticed."""

from __future__ import annotations

import gzip
import zlib

import pytest

from packager.gunzip import PIECE_BYTES, Gunzip
from packager.tar_layer import gzip_chunks


def unpack(data: bytes, step: int = 1000) -> bytes:
    gunzip = Gunzip()
    return b"".join(piece for start in range(0, len(data), step) for piece in gunzip.feed(data[start : start + step]))


def test_header_has_neither_time_nor_name() -> None:
    packed = b"".join(gzip_chunks([b"hello"], lambda _: None))
    assert packed[:4] == b"\x1f\x8b\x08\x00"
    assert packed[4:8] == bytes(4)


def test_chunking_does_not_change_the_bytes() -> None:
    data = bytes(range(256)) * 5000
    whole = b"".join(gzip_chunks([data], lambda _: None))
    pieces = b"".join(gzip_chunks([data[i : i + 777] for i in range(0, len(data), 777)], lambda _: None))
    assert whole == pieces
    assert gzip.decompress(whole) == data


def test_members_one_after_another_are_one_file() -> None:
    assert unpack(gzip.compress(b"one ") + gzip.compress(b"two"), step=3) == b"one two"


def test_a_bomb_comes_in_small_pieces() -> None:
    gunzip = Gunzip()
    sizes = [len(piece) for piece in gunzip.feed(gzip.compress(bytes(50 * PIECE_BYTES)))]
    assert sum(sizes) == 50 * PIECE_BYTES
    assert max(sizes) <= PIECE_BYTES


def test_what_is_no_gzip_is_an_error() -> None:
    with pytest.raises(zlib.error):
        unpack(b"\x1f\x8b\x08" + b"nonsense" * 10)


def test_a_cut_file_is_not_whole() -> None:
    gunzip = Gunzip()
    list(gunzip.feed(gzip.compress(b"hello" * 100)[:-10]))
    assert not gunzip.is_whole
