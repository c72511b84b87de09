"""Which model version was converted from which. A conversion is made once: who asks for the same again gets the same version."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, select

from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference, check_name
from registry.store import models
from registry.store.tables import model_conversions, model_versions
from registry.store.upsert import insert

# What a converter is known for, in the words of whoever registers; and files that only such a model has.
_FRAMEWORKS = frozenset(("sklearn", "scikit-learn", "xgboost", "lightgbm", "pytorch", "torch"))
_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ubj", ".bst", ".xgb")


def converted_name(name: str) -> str:
    """What the conversion of a model is called when nobody says otherwise. Raises InvalidName for one that gets too long."""
    return check_name(f"{name}-onnx", "model")


def needs_conversion(manifest: ModelManifest) -> bool:
    """Whether an ONNX image of it can be built only after a conversion; what no converter is for stays as it is."""
    if any(entry.path.endswith(".onnx") for entry in manifest.files):
        return False
    return manifest.framework.lower() in _FRAMEWORKS or any(entry.path.endswith(_SUFFIXES) for entry in manifest.files)


def find_asked(connection: Connection, name: str, asked: str, source: ModelManifest) -> ModelManifest | None:
    """The version of ``name`` that this very request has made of ``source``, if it is still there."""
    here = model_conversions.c
    return _newest(connection, name, here.asked == asked, here.source_name == source.name, here.source_version == source.version)


def find_made(connection: Connection, name: str, conversion_key: str, source: ModelManifest) -> ModelManifest | None:
    """The version of ``name`` that the same conversion has made of another source with the same content.

    Never one that ``source`` was itself made from: nothing is made from itself.
    """
    found = _newest(connection, name, model_conversions.c.conversion_key == conversion_key)
    if found is None or (found.name, found.version) in _ancestry(connection, source):
        return None
    return found


def link(connection: Connection, made: ModelManifest, source: ModelManifest, *, conversion_key: str, asked: str) -> None:
    """Write down that ``made`` was converted from ``source``; both are held. Once more changes nothing."""
    row = {
        "name": made.name,
        "version": made.version,
        "source_name": source.name,
        "source_version": source.version,
        "conversion_key": conversion_key,
        "asked": asked,
    }
    connection.execute(insert(connection, model_conversions).values(**row).on_conflict_do_nothing())


def _ancestry(connection: Connection, made: ModelManifest) -> set[tuple[str, int]]:
    """``made`` and everything that it was converted from, step by step."""
    links = model_conversions.c
    seen = {(made.name, made.version)}
    ahead = list(seen)
    while ahead:
        name, version = ahead.pop()
        query = select(links.source_name, links.source_version).where(links.name == name, links.version == version)
        fresh = {(row.source_name, row.source_version) for row in connection.execute(query)} - seen
        seen |= fresh
        ahead += fresh
    return seen


def _newest(connection: Connection, name: str, *wanted: ColumnElement[bool]) -> ModelManifest | None:
    there = and_(model_versions.c.name == model_conversions.c.name, model_versions.c.version == model_conversions.c.version)
    query = (
        select(model_conversions.c.version)
        .join(model_versions, there)
        .where(model_conversions.c.name == name, model_versions.c.deleted_at.is_(None), *wanted)
        .order_by(model_conversions.c.version.desc())
    )
    version = connection.execute(query.limit(1)).scalar_one_or_none()
    return None if version is None else models.get(connection, Reference(name, version))
