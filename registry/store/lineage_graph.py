"""The graph of what was made from what: the kinds of things in it, how each is named, and which tables link them.

Links lead from an earlier kind of KINDS to a later one, and from a model to those converted from it, none of which it was
made from itself (``conversions.py``): so the graph has no cycles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Column, ColumnElement, FromClause, Select, and_, column, select, tuple_, values

from hedgerow.contracts.lineage import NodeKind
from registry.store.tables import (
    deployments,
    desired_images,
    devices,
    edge_images,
    image_environments,
    image_models,
    model_conversions,
    model_data,
    model_versions,
    run_data,
    runs,
    twins,
)

Key = tuple[Any, ...]
Step = Literal["up", "down"]

_SHAPES: dict[NodeKind, str] = {
    "data": "{}",
    "commit": "{}",
    "run": "{}",
    "environment": "{}:{}",
    "model": "{}:{}",
    "image": "{}:{}",
    "deployment": "{}/{}",
    "edge-deployment": "{}",
    "module": "{}/{}",
    "device": "{}",
}
KINDS: tuple[NodeKind, ...] = tuple(_SHAPES)


class Thing(NamedTuple):
    """A node: its kind and the columns that identify it. A module is known by its device's name and its own."""

    kind: NodeKind
    key: Key

    @property
    def name(self) -> str:
        return _SHAPES[self.kind].format(*self.key)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Link:
    """``rows`` say which ``source`` went into which ``target``."""

    source: NodeKind
    target: NodeKind
    source_key: tuple[Column[Any], ...]
    target_key: tuple[Column[Any], ...]
    rows: FromClause

    def near(self, step: Step) -> NodeKind:
        """The kind that a step in this direction begins at."""
        return self.source if step == "down" else self.target

    def far(self, step: Step) -> NodeKind:
        return self.target if step == "down" else self.source

    def near_key(self, step: Step) -> tuple[Column[Any], ...]:
        return self.source_key if step == "down" else self.target_key

    def far_key(self, step: Step) -> tuple[Column[Any], ...]:
        return self.target_key if step == "down" else self.source_key

    def query(self, step: Step, *columns: Column[Any]) -> Select[Any]:
        """``columns`` of the rows that have both ends."""
        whole = (part.is_not(None) for part in (*self.source_key, *self.target_key) if part.nullable)
        return select(*columns).select_from(self.rows).where(*whole)


def among(columns: tuple[ColumnElement[Any], ...], keys: Iterable[Key] | Select[Any]) -> ColumnElement[bool]:
    """The rows whose ``columns`` are one of ``keys``, which are distinct."""
    if isinstance(keys, Select):
        return columns[0].in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    listed = list(keys)
    if len(listed) == 1:
        return and_(*(part == value for part, value in zip(columns, listed[0], strict=True)))
    # A table to join with: SQLite uses no index for `(a, b) IN (VALUES …)`.
    names = [column(f"part_{position}", part.type) for position, part in enumerate(columns)]
    wanted = values(*names).data(listed).cte("wanted")
    return and_(*(part == given for part, given in zip(columns, wanted.c, strict=True)))


_RUN = (runs.c.id,)
_MODEL = (model_versions.c.name, model_versions.c.version)
_MODULE = (devices.c.name, desired_images.c.module)
_MODULES = desired_images.join(devices, devices.c.uuid == desired_images.c.device_uuid)
_IMAGE_OF_MODULE = (desired_images.c.image_name, desired_images.c.image_version)

LINKS: tuple[Link, ...] = (
    Link("data", "run", (run_data.c.digest,), (run_data.c.run_id,), run_data),
    Link("commit", "run", (runs.c.source_commit,), _RUN, runs),
    Link("run", "model", (model_versions.c.run_id,), _MODEL, model_versions),
    Link("data", "model", (model_data.c.digest,), (model_data.c.name, model_data.c.version), model_data),
    Link("commit", "model", (model_versions.c.source_commit,), _MODEL, model_versions),
    Link(
        "model",
        "model",
        (model_conversions.c.source_name, model_conversions.c.source_version),
        (model_conversions.c.name, model_conversions.c.version),
        model_conversions,
    ),
    Link(
        "model",
        "image",
        (image_models.c.model_name, image_models.c.model_version),
        (image_models.c.image_name, image_models.c.image_version),
        image_models,
    ),
    Link(
        "environment",
        "image",
        (image_environments.c.environment_name, image_environments.c.environment_version),
        (image_environments.c.image_name, image_environments.c.image_version),
        image_environments,
    ),
    Link(
        "image",
        "deployment",
        (deployments.c.image_name, deployments.c.image_version),
        (deployments.c.endpoint, deployments.c.name),
        deployments,
    ),
    Link(
        "image",
        "edge-deployment",
        (edge_images.c.image_name, edge_images.c.image_version),
        (edge_images.c.edge_deployment,),
        edge_images,
    ),
    Link("image", "module", _IMAGE_OF_MODULE, _MODULE, _MODULES),
    Link(
        "edge-deployment",
        "module",
        (twins.c.edge_deployment,),
        _MODULE,
        _MODULES.join(twins, twins.c.device_uuid == devices.c.uuid),
    ),
    Link("module", "device", _MODULE, (devices.c.name,), _MODULES),
)


def links_from(kind: NodeKind, step: Step) -> list[Link]:
    """The links that a step from a thing of this kind can take."""
    return [link for link in LINKS if link.near(step) == kind]


def is_passed(thing_kind: NodeKind, root_kind: NodeKind) -> bool:
    """Whether a walk goes on beyond things of this kind.

    An edge deployment is passed only when the walk begins at one: the other modules of its manifest have nothing to do
    with the image or the module that the walk came from, and what has is linked to them directly.
    """
    return thing_kind != "edge-deployment" or root_kind == "edge-deployment"
