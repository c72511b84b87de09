"""Documents that cross borders: their published schemas, and the promise that yesterday's documents still parse."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.document import Document, decode, encode
from hedgerow.errors import DocumentTooNew, InvalidDocument
from scripts import golden, inventory

SCHEMAS = golden.schemas()
DOCUMENTS = {kind.__name__: kind for kind in inventory.document_classes()}
EXAMPLES = sorted(Path(__file__).parent.glob("documents/v*/*.json"))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_schema_is_what_the_code_says(path: Path) -> None:
    target = inventory.TOP / path
    assert target.exists(), f"{path} is missing: run `make golden` and commit it"
    assert target.read_text(encoding="utf-8") == SCHEMAS[path], (
        f"{path} is stale: run `make golden`, read the difference, commit it"
    )


def test_no_schema_is_left_over() -> None:
    standing = {path.relative_to(inventory.TOP) for path in (inventory.TOP / golden.SCHEMAS).glob("*.json")}
    assert standing == set(SCHEMAS), "run `make golden`"


def test_every_document_has_an_example() -> None:
    assert set(DOCUMENTS) <= {path.stem for path in EXAMPLES}, "add the new document's example to tests/contract/documents/v1"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_document_of_an_earlier_day_still_parses_and_loses_nothing(path: Path) -> None:
    written = path.read_bytes()
    document = decode(written, DOCUMENTS[path.stem])
    _assert_holds(json.loads(encode(document)), json.loads(written), path.stem)
    assert decode(encode(document), DOCUMENTS[path.stem]) == document


def _assert_holds(found: object, wanted: object, where: str) -> None:
    """``found`` has everything of ``wanted``; it may have more (fields that came later, with their defaults)."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), where
        for name, value in wanted.items():
            assert name in found, f"{where}.{name} got lost"
            _assert_holds(found[name], value, f"{where}.{name}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), where
        assert len(found) == len(wanted), where
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            _assert_holds(one, other, f"{where}[{place}]")
    else:
        assert found == wanted, where


@pytest.mark.parametrize(
    "kind", [kind for kind in DOCUMENTS.values() if issubclass(kind, Document)], ids=lambda kind: kind.__name__
)
def test_document_takes_a_later_field_and_refuses_a_later_version(kind: type[Document]) -> None:
    example = json.loads((Path(__file__).parent / "documents" / "v1" / f"{kind.__name__}.json").read_text())
    assert decode(msgspec.json.encode(example | {"a_field_of_tomorrow": 1}), kind)
    with pytest.raises(DocumentTooNew, match=f"{kind.__name__} has schema version 2"):
        decode(msgspec.json.encode(example | {"schema_version": 2}), kind)
    with pytest.raises(InvalidDocument, match="schema_version"):
        decode(msgspec.json.encode(example | {"schema_version": "1"}), kind)


@pytest.mark.parametrize(
    "kind", [kind for kind in DOCUMENTS.values() if kind.__struct_config__.forbid_unknown_fields], ids=lambda kind: kind.__name__
)
def test_request_refuses_a_field_that_nobody_knows(kind: type[msgspec.Struct]) -> None:
    """A misspelt option must not be ignored."""
    example = json.loads((Path(__file__).parent / "documents" / "v1" / f"{kind.__name__}.json").read_text())
    with pytest.raises(InvalidDocument, match="misspelt"):
        decode(msgspec.json.encode(example | {"misspelt": 1}), kind)
