"""What callers say of models (facts of a registration, filters of a list), and how it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypedDict

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.document import convert
from hedgerow.contracts.model import FileEntry, SourceCommit, TensorSpec
from hedgerow.sdk.filters import instant_filter, label_filters
from hedgerow.sdk.provenance import commit_of, data_refs


class ModelFacts(TypedDict, total=False):
    """What may be said of a model at its registration.

    ``framework``, ``framework_version``: what made it (an MLflow folder says so itself). ``tags`` can be changed later,
    ``properties`` only added. ``inputs``, ``outputs``: its tensors. ``data``: the data sets that it was made from, each a
    ``sha256:…`` or a file or folder here, which is read but not sent. ``commit``: the code's; ``"git"`` for that of the
    folder in which the first path lies. ``aliases`` point at the new version from the moment that it is visible.
    """

    framework: str
    framework_version: str | None
    description: str
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    data: Mapping[str, str | Path]
    commit: SourceCommit | Literal["git"] | None
    aliases: Sequence[str]


class ModelFilters(TypedDict, total=False):
    """What a list is narrowed to; all of it must fit.

    ``tags`` and ``properties``: key and value, None for any value. ``search``: words that must all occur in name, framework,
    tags or description; a word with a star at its end stands for all that begin so. ``since`` is included, ``until`` is not;
    times without an offset are local. ``run``: an id; ``data``: the digest of a data set that the model was made from.
    ``newest``: of each name only the newest version.
    """

    tags: Mapping[str, str | None]
    properties: Mapping[str, str | None]
    framework: str | None
    search: str | None
    since: datetime | None
    until: datetime | None
    run: str | None
    digest: str | None
    data: str | None
    alias: str | None
    newest: bool


def registration(
    name: str,
    entries: Sequence[FileEntry],
    run_id: str | None,
    facts: ModelFacts,
    *,
    sample: FileEntry | None = None,
    where: Path | None = None,
) -> RegisterModel:
    """Raises InvalidDocument for facts that no record can hold."""
    said = dict(facts)
    commit, data = said.pop("commit", None), facts.get("data", {})
    if commit == "git":
        commit = None if where is None else commit_of(where if where.is_dir() else where.parent)
    for field in ("tags", "properties"):
        if field in said:
            said[field] = dict(facts[field])
    request = {
        "name": name,
        "files": list(entries),
        "run_id": run_id,
        "sample_input": sample,
        "source": commit,
        "data": data_refs(data),
    }
    fields: dict[str, object] = {**said, **request}
    return convert({key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}, RegisterModel)


def narrowed(filters: ModelFilters) -> dict[str, str | bool | Sequence[str] | None]:
    """The query of a list. Raises TypeError for a filter that there is not."""
    if unknown := sorted(filters.keys() - ModelFilters.__annotations__.keys()):
        raise TypeError(f"There is no filter {unknown[0]!r}; there are name, {', '.join(ModelFilters.__annotations__)}")
    return {
        "tag": label_filters(filters.get("tags")),
        "property": label_filters(filters.get("properties")),
        "framework": filters.get("framework"),
        "q": filters.get("search"),
        "since": instant_filter(filters.get("since")),
        "until": instant_filter(filters.get("until")),
        "run": filters.get("run"),
        "digest": filters.get("digest"),
        "data": filters.get("data"),
        "alias": filters.get("alias"),
        "newest": "true" if filters.get("newest") else None,
    }
