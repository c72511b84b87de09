"""gzip and deflate: only what is asked for, only what is whole, and never more memory than the limit."""

from __future__ import annotations

import contextlib
import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadBody, BodyTooLarge, UnknownEncoding
from runtime.exchange import Response
from runtime.front.compression import Encoding, encoding_of, is_packed_type, pack_response, packed, unpacked, wanted_encoding


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=0.9, gzip;q=0.1", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.000", None),
        ("gzip; q=0, *", None),
        ("*", "gzip"),
        ("identity", None),
        ("br", None),
        ("", None),
    ],
)
def test_what_a_caller_takes(header: str, wanted: Encoding | None) -> None:
    assert wanted_encoding(header) == wanted


def test_what_a_caller_sends() -> None:
    assert [encoding_of(name) for name in ("gzip", " GZip ", "x-gzip", "deflate", "identity", "")] == [
        "gzip",
        "gzip",
        "gzip",
        "deflate",
        None,
        None,
    ]
    for name in ("br", "gzip, gzip", "zstd"):
        with pytest.raises(UnknownEncoding):
            encoding_of(name)


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_was_packed_comes_back(body: bytes, encoding: Encoding) -> None:
    assert unpacked(packed(body, encoding), encoding, 5000) == body


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_anything_else_is_refused_in_words(body: bytes, encoding: Encoding) -> None:
    with contextlib.suppress(BadBody, BodyTooLarge):
        assert len(unpacked(body, encoding, 1000)) <= 1000


def test_the_forms_that_clients_send() -> None:
    assert unpacked(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 2) == b"ab", "several members"
    bare = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    assert unpacked(bare.compress(b"abc") + bare.flush(), "deflate", 3) == b"abc", "deflate without zlib's head"
    whole = packed(b"x" * 5000, "gzip")
    with pytest.raises(BadBody, match="ends too early"):
        unpacked(whole[:-9], "gzip", 10_000)
    with pytest.raises(BadBody, match="3 bytes follow"):
        unpacked(zlib.compress(b"a") + b"abc", "deflate", 10)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_costs_no_more_memory_than_the_limit(encoding: Encoding) -> None:
    bomb = packed(b"\0" * 50_000_000, encoding)
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="larger than 100000 bytes"):
        unpacked(bomb, encoding, 100_000)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert len(unpacked(packed(b"\0" * 100_000, encoding), encoding, 100_000)) == 100_000, "exactly the limit is fine"


def test_an_answer_is_packed_only_where_that_saves() -> None:
    smaller = pack_response(Response(200, b"a" * 5000, headers={"x": "1"}), "gzip")
    assert gzip.decompress(smaller.body) == b"a" * 5000
    assert smaller.headers == {"x": "1", "content-encoding": "gzip", "vary": "accept-encoding"}
    noise = random.Random(1).randbytes(5000)
    assert pack_response(Response(200, noise), "deflate").headers == {}


@pytest.mark.parametrize(
    ("content_type", "is_packed"),
    [
        ("image/png", True),
        ("Image/JPEG; q=1", True),
        ("application/zip", True),
        ("application/gzip", True),
        ("video/mp4", True),
        ("image/svg+xml; charset=utf-8", False),
        ("image/bmp", False),
        ("application/octet-stream", False),
        ("application/json", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_what_is_packed_by_its_type(content_type: str, is_packed: bool) -> None:
    assert is_packed_type(content_type) == is_packed
