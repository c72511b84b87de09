"""Large documents are read as the parser of whole documents reads them, or not at all; large arrays are written the same."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hedgerow.contracts.model import Datatype, TensorSpec
from runtime.errors import BadTensor
from runtime.large_json.grid import MOST_AXES
from runtime.large_json.reading import Sizes, read_document
from runtime.tensors import array_from_json

# So small that a document of a line has long lists of several pieces.
TINY = Sizes(long=8, rest=4096, piece=24)

plain = st.one_of(st.integers(-3, 300).map(str), st.floats(-2, 2).map(lambda value: f"{value:.4f}"))
numbers = st.one_of(
    plain,
    st.integers(-(2**66), 2**66).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        ["-0", "0", "-0.0", "1E3", "1e-7", "2e+2", "9007199254740992", "9007199254740993", "1e16", "1e400", "5e-324"]
    ),
)
odd = st.sampled_from(
    ["01", "-", "1.", ".5", "+1", "null", "true", "NaN", "Infinity", '"1"', "{}", "[]", "", "1 2", "٣", "1e", "0x1"]
)
spaces = st.sampled_from(["", "", "", " ", "\n", "  \t", "\r\n   "])


@st.composite
def grids(draw: st.DrawFn, *, entries: st.SearchStrategy[str] = numbers) -> str:
    """A regular nested list, written with any white space."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    before, after = draw(spaces), draw(spaces)

    def written(axes: list[int]) -> str:
        if not axes:
            return draw(entries)
        return f"[{before}" + f",{after}".join([written(axes[1:]) for _ in range(axes[0])]) + f"{draw(spaces)}]"

    return written(shape)


@st.composite
def documents(draw: st.DrawFn, *, entries: st.SearchStrategy[str] = numbers) -> bytes:
    grid = grids(entries=entries)
    space = draw(spaces)
    form = draw(
        st.sampled_from(
            [
                "{0}",
                '{{"data":{s}{0}}}',
                '{{"data": {0}, "more": 1}}',
                '{{"inputs": {{"a": {0},{s}"b": {1}}}}}',
                '{{"data": {0}, "data": {1}}}',
                '{{"inputs": [{{"name": "x", "shape": [1,2], "data": {0}}}]}}',
                "[{0}, {1}]",
                '["{0}", {1}]',
                '{{"list 0": {0}, "a": "list 0"}}',
                '{{"a\\n": {0}}}',
                '{{"é": {0}}}',
                "{0}{s}{1}",
                '{{"data": {0}',
                '{{"data": {0}]',
            ]
        )
    )
    return (space + form.format(draw(grid), draw(grid), s=space)).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document in which a few bytes are others, are gone or too many."""
    text = bytearray(draw(documents(entries=plain)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        put = draw(
            st.sampled_from(
                [b"", b"[", b"]", b",", b"],[", b"{", b"}", b'"', b" ", b"1", b"-", b".", b"e", b"\\", b"\0", b"\xff", b"n"]
            )
        )
        text[at : at + draw(st.integers(0, 2))] = put
    return bytes(text)


def check_alike(found: object, read: object) -> None:
    """Arrays are what numpy makes of the lists; everything else is the same."""
    if isinstance(found, np.ndarray):
        expected = np.array(read)
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    elif isinstance(found, dict):
        assert isinstance(read, dict)
        assert list(found) == list(read)
        for name, value in found.items():
            check_alike(value, read[name])
    else:
        assert found == read


def check(body: bytes) -> object:
    found = read_document(body, sizes=TINY)
    if found is not None:
        check_alike(found, msgspec.json.decode(body))
    return found


@settings(max_examples=150)
@given(documents() | documents(entries=plain))
def test_what_is_read_is_what_a_parser_reads(body: bytes) -> None:
    check(body)


@settings(max_examples=150)
@given(documents(entries=st.one_of(numbers, odd)))
def test_what_is_no_number_is_left_to_the_parser(body: bytes) -> None:
    check(body)


@settings(max_examples=300)
@given(damaged())
@example(b"[[1,2],[3,4],5,6]")
@example(b"[[1,2],3,[4,5,6]]")
@example(b"[[1,2],3,[4]]")
@example(b"[1,2,[3,4],5]")
@example(b"[[1,2][3,4,5]]")
@example(b"[[1,2]3,[4,5]]")
@example(b"[[1,2,],[3,4]]")
@example(b"[[1[,2],[3,4]]")
@example(b"[[[1,2]],[3,4]]")
@example(b"[1,2,3,4,5],[6,7,8]")
@example(b"[1,2,3,4,5]]")
@example(b"\xef\xbb\xbf[1,2,3,4,5,6]")
@example("[1,2,3,4,5,6]".encode("utf-16"))
def test_damaged_documents_never_pass_for_others(body: bytes) -> None:
    check(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[1,2,3,4,5,6,7,8,9]",
        b"[[1, 2.5], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]",
        b'{"data": [[1,2],[3,4],[5,6],[7,8],[9,10],[11,12],[13,14]]}',
        b'{"data": [\n  [\n    1,\n    2\n  ],\n  [\n    3,\n    4e2\n  ]\n], "more": [1, 2]}\n',
        b'{"inputs": {"a": [1,2,3,4,5,6,7], "b": [[0.5],[1.5],[2.5]]}}',
        # A whole number beside fractions keeps no sign of its zero.
        b"[-0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11.5, -0, -0.0]",
        b"[123456789012345678, 9223372036854775807, -9223372036854775808]",
        b"[" * MOST_AXES + b"1,2,3,4,5" + b"]" * MOST_AXES,
    ],
)
def test_what_callers_send_is_read_quickly(body: bytes) -> None:
    assert check(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2, null, 4, 5, 6]",
        b"[1.5, 9007199254740993, 2, 3]",
        b"[1, 18446744073709551615, 3]",
        b"[[1,2,3],[4,5]]",
        b"[[], [], [], []]",
        b"[" * (MOST_AXES + 1) + b"1,2,3" + b"]" * (MOST_AXES + 1),
        b'{"deep": {"deeper": {"data": [1,2,3,4,5,6]}}}',
        b'{"a": "\\u006cist 0", "b": [1,2,3,4,5,6]}',
        b'{"a": 1}',
    ],
)
def test_what_others_must_read_is_declined(body: bytes) -> None:
    assert check(body) is None


def test_a_list_takes_no_more_than_itself_while_it_is_read() -> None:
    # White space, and brackets, a megabyte of each: nothing is gone through twice.
    for body in (
        b"[" + b" " * 1_000_000 + b"1,2]",
        b"[" * 1_000_000,
        b"[1," * 300_000 + b"]" * 300_000,
        b"[" + b"1" * 1_000_000 + b"]",
    ):
        assert read_document(body) is None


@given(grids(), st.sampled_from(get_args(Datatype)), st.booleans())
def test_a_list_becomes_the_same_tensor_or_the_same_refusal(text: str, datatype: Datatype, flat: bool) -> None:
    body = text.encode()
    found = read_document(body, sizes=TINY)
    if found is None:
        return
    read = msgspec.json.decode(body)
    shape = np.shape(read) if flat else None
    spec = TensorSpec(name="x", datatype=datatype, shape=[-1] * np.ndim(read))

    def outcome(data: object) -> tuple[Any, ...]:
        try:
            array = array_from_json(spec, data, shape)
        except BadTensor as problem:
            return (str(problem),)
        return array.dtype, array.shape, array.tobytes()

    assert outcome(found) == outcome(read)


@settings(max_examples=200)
@given(
    documents(entries=st.sampled_from(["1", "0.5", "-2", "3e2", "null", "NaN"])), st.sampled_from([(b"null",), (b"null", b"NaN")])
)
@example(b"[1, 2, 3, null, 5.5, NaN, 7]", (b"null", b"NaN"))
@example(b"[1, 2, 3, null, 5, 6, 7, 8, 9]", (b"null",))
@example(b"[1, 2, 3, 1null, 5, 6, 7, 8, 9]", (b"null",))
@example(b"[1, 2, 3, nullnull, 5, 6, 7, 8, 9]", (b"null",))
@example(b"[1, 2, 3, NaNNaN, 5, 6, 7, 8, 9]", (b"null", b"NaN"))
@example(b"[1, 2, 3, -NaN, 5, 6, 7, 8, 9]", (b"null", b"NaN"))
@example(b"[1, 2, 3, [null], 5, 6, 7, 8, 9]", (b"null",))
@example(b"[1, 2, 3, nu, ll, 6, 7, 8, 9]", (b"null",))
def test_missing_numbers_are_the_same_in_floats(body: bytes, holes: tuple[bytes, ...]) -> None:
    found = read_document(body, holes, TINY)
    if found is None:
        return
    try:
        read = msgspec.json.decode(body)
    except msgspec.DecodeError:
        assert b"NaN" in holes
        read = json.loads(body)
    check_floats(found, read)


def check_floats(found: object, read: object) -> None:
    if isinstance(found, np.ndarray):
        spec = TensorSpec(name="x", datatype="FP64", shape=[-1] * found.ndim)
        one, other = array_from_json(spec, found), array_from_json(spec, read)
        assert one.shape == other.shape
        assert np.array_equal(one, other, equal_nan=True)
    elif isinstance(found, dict):
        assert isinstance(read, dict)
        assert list(found) == list(read)
        for name, value in found.items():
            check_floats(value, read[name])
    else:
        assert found == read


def test_real_sizes() -> None:
    random = np.random.default_rng(0)
    for array in (
        np.round(random.random((2, 3, 224, 224)), 4),
        random.random((40_000, 4)),
        random.integers(0, 255, (3, 100, 1000)),
        random.random(200_000).astype(np.float32).astype(np.float64),
    ):
        for options in ({}, {"separators": (",", ":")}, {"indent": 1}):
            body = json.dumps({"data": array.tolist()}, **options).encode()
            found = read_document(body)
            assert isinstance(found, dict)
            assert found["data"].dtype == array.dtype
            assert np.array_equal(found["data"], array)
