"""Documents: canonical bytes, and refusals that name field and value."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import Document, convert, decode, digest_of, encode
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.model import FileEntry, digest_of_files
from hedgerow.contracts.telemetry import Hello
from hedgerow.errors import DocumentTooNew, InvalidDocument

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
DIGEST = "sha256:" + "3f" * 32


class _Note(Document, frozen=True, kw_only=True):
    b: int
    a: dict[str, str] = {}


def test_equal_documents_give_equal_bytes() -> None:
    assert encode(_Note(b=1, a={"z": "1", "y": "2"})) == encode(_Note(b=1, a={"y": "2", "z": "1"}))
    assert encode(_Note(b=1)) == b'{"a":{},"b":1,"schema_version":1}'


def test_digests_have_one_form() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"name": "d", "target": "true", "modules": {}, "priority": "high"},
            "Expected `int`, got `str` - at `$.priority`, found 'high'",
        ),
        ({"name": "D", "target": "true", "modules": {}}, "at `$.name`, found 'D'"),
        ({"name": "D", "target": "true", "modules": {}}, "Expected a name (1 to 128 of a-z and 0-9; words may be joined with"),
        ({"target": "true", "modules": {}}, "missing required field `name`"),
        ({"name": "d", "target": "t", "modules": {"m": {"port": 70000}}}, "<= 65535 - at `$.modules[...].port`"),
        ({"name": "d", "target": "t", "modules": {"m": {"imagee": "x"}}}, "unknown field `imagee`"),
        ({"name": "d", "target": "t", "modules": {}, "created_at": "2026-11-21T09:00:00"}, "found '2026-11-21T09:00:00'"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_refusal_names_field_and_value(document: object, words: str) -> None:
    with pytest.raises(InvalidDocument, match="EdgeDeployment is not valid: ") as from_text:
        decode(json.dumps(document), EdgeDeployment)
    assert words in str(from_text.value)
    with pytest.raises(InvalidDocument) as from_value:
        convert(document, EdgeDeployment)
    assert str(from_value.value) == str(from_text.value)


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(InvalidDocument) as caught:
        decode(json.dumps({"name": "x" * 10_000}), EnrollDevice)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nul",
        b"{",
        b'{"name":"\xff"}',
        b'{"name": 5, ',
        b'{"name":"a","tags":{"a":"\\ud800"}}',
        b"[" * 100_000,
        b'{"name":"a","tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\x00" * 100,
        "\ud800",
    ],
)
def test_any_rubbish_is_the_senders_fault(data: bytes | str) -> None:
    with pytest.raises(InvalidDocument):
        decode(data, EnrollDevice)


def test_deep_nesting_inside_a_free_field_is_refused() -> None:
    deep = b'{"image":"a","create_options":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    with pytest.raises(InvalidDocument, match="nested too deeply"):
        decode(deep, ModuleSpec)


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_decode_gives_a_document_or_a_user_error(data: bytes) -> None:
    with contextlib.suppress(InvalidDocument, DocumentTooNew):
        assert isinstance(decode(data, Hello), Hello)


def test_a_newer_document_is_called_newer_even_if_its_shape_changed() -> None:
    with pytest.raises(DocumentTooNew, match="_Note has schema version 2, this Hedgerow reads up to 1"):
        decode(b'{"schema_version": 2, "c": []}', _Note)
    with pytest.raises(DocumentTooNew):
        convert({"schema_version": 3, "b": 1}, _Note)
    assert decode(b'{"schema_version": 2, "b": 1}', _Note, supported=2).b == 1


def test_instants_need_an_offset_and_are_written_in_utc() -> None:
    document = decode(b'{"name":"d","target":"t","modules":{},"created_at":"2026-11-21T11:00:00+02:00"}', EdgeDeployment)
    assert document.created_at == datetime(2026, 11, 21, 9, tzinfo=UTC)


def _entry(path: str) -> FileEntry:
    return decode(msgspec.json.encode({"path": path, "digest": DIGEST, "size_bytes": 0}), FileEntry)


@pytest.mark.parametrize("path", ["a", "a/b.onnx", "...", "a/..b", "a b", "ä/ß", "-rf", "a/.hidden", "x" * 1024])
def test_good_paths(path: str) -> None:
    assert _entry(path).path == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "//a"),
        *("a\\b", "..\\a", "a\nb", "a\n", "a\x00b", "\x1b[2J", "x" * 1025),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidDocument):
        _entry(path)


@given(st.text(max_size=30))
def test_an_accepted_path_stays_inside(path: str) -> None:
    try:
        parts = _entry(path).path.split("/")
    except InvalidDocument:
        return
    assert not set(parts) & {"", ".", ".."}


@given(st.permutations(["a", "b/c", "b", "z"]))
def test_a_models_digest_does_not_depend_on_the_order_of_files(paths: list[str]) -> None:
    assert digest_of_files(_entry(path) for path in paths) == digest_of_files(_entry(path) for path in ["a", "b", "b/c", "z"])
    assert digest_of_files([_entry("a")]) != digest_of_files([_entry("b")])
