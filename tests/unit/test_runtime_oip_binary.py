"""The binary tensor extension: bytes in their places, and nothing read beyond them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody, BadTensor
from runtime.exchange import Request
from runtime.oip.binary import BinaryPart, pack, raw_array, split_body

FLOATS = TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
TEXTS = TensorSpec(name="t", datatype="BYTES", shape=[-1])


def part(data: bytes) -> BinaryPart:
    return BinaryPart(memoryview(data))


def request(body: bytes, length: str | None) -> Request:
    return Request("POST", headers={} if length is None else {"inference-header-content-length": length}, body=body)


def test_a_body_is_split_where_the_header_says() -> None:
    head, rest = split_body(request(b"{}abcd", "2"))
    assert (head, bytes(rest.data)) == (b"{}", b"abcd")
    assert split_body(request(b"{}", None))[0] == b"{}"
    head, rest = split_body(request(b"abcd", "0"))
    assert (head, bytes(rest.data)) == (None, b"abcd")


@pytest.mark.parametrize("length", ["7", "-1", "x", "", "²", "1" * 30])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(BadBody, match="Inference-Header-Content-Length"):
        split_body(request(b"{}abcd", length))


def test_tensors_are_taken_in_order_and_all_bytes_must_be_used() -> None:
    values = np.array([[1, 2], [3, 4]], dtype="<f4")
    binary = part(values.tobytes() + struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + "é".encode())
    assert binary.take(FLOATS, [2, 2], 16).tolist() == values.tolist()
    with pytest.raises(BadBody, match="11 bytes belong to no input"):
        binary.check_used_up()
    assert binary.take(TEXTS, [2], 11).tolist() == ["a", "é"]
    binary.check_used_up()


@pytest.mark.parametrize("size", [17, -1, "16", None, True, 1.5])
def test_a_size_that_the_body_does_not_hold_is_refused(size: object) -> None:
    with pytest.raises(BadBody, match="binary_data_size"):
        part(b"\0" * 16).take(FLOATS, [2, 2], size)


@pytest.mark.parametrize("shape", [[3, 2], [1, 2], [-2, -2], [4], []])
def test_bytes_that_do_not_fill_the_shape_are_refused(shape: list[int]) -> None:
    with pytest.raises(BadTensor, match="it has shape" if shape == [4] else "do not fill"):
        part(b"\0" * 16).take(FLOATS, shape, 16)


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\x01\0", b"\xff\xff\xff\xff", b"\x01\0\0\0\xff"])
def test_texts_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(BadTensor, match="not lengths and UTF-8"):
        part(data).take(TEXTS, [1], len(data))


def test_a_raw_request_finds_its_free_length() -> None:
    assert raw_array(FLOATS, part(b"\0" * 24)).shape == (3, 2)
    fixed = TensorSpec(name="x", datatype="FP32", shape=[3, 2])
    assert raw_array(fixed, part(b"\0" * 24)).shape == (3, 2)
    for data in (b"\0" * 23, b"\0" * 12):
        with pytest.raises(BadTensor):
            raw_array(FLOATS, part(data))
    assert raw_array(TEXTS, part("é".encode())).tolist() == ["é"], "the whole body is one text, as in Triton"
    with pytest.raises(BadTensor, match="not UTF-8"):
        raw_array(TEXTS, part(b"\xff"))
    with pytest.raises(BadTensor, match="only one text"):
        raw_array(TensorSpec(name="t", datatype="BYTES", shape=[2]), part(b"ab"))
    with pytest.raises(BadTensor, match="do not say its shape"):
        raw_array(TensorSpec(name="x", datatype="FP32", shape=[-1, -1]), part(b"\0" * 16))


def test_outputs_are_packed_little_endian_in_rows() -> None:
    turned = np.array([[1, 2], [3, 4]], dtype=">i4").T
    assert pack(turned) == struct.pack("<4i", 1, 3, 2, 4)
    assert pack(np.array(["a", b"bc"], dtype=object)) == b"\x01\0\0\0a\x02\0\0\0bc"
    assert pack(np.array([True, False])) == b"\x01\x00"
