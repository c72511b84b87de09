"""Lineage: from any thing to all that it was made from (up) and all that was made from it (down).

The story: find where to begin (``lineage_roots``), walk the links level by level (``lineage_graph``), say of each thing what
a reader asks first (``lineage_facts``). One query for each kind of link and level, however many things stand there. All
of it in one snapshot: the caller's connection is a reading one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from sqlalchemy import CTE, Connection, Select, select, union

from hedgerow.contracts.lineage import Direction, Lineage, LineageEdge, LineageNode, NodeKind
from registry.store.lineage_facts import describe
from registry.store.lineage_graph import KINDS, LINKS, Key, Link, Step, Thing, among, is_passed, links_from
from registry.store.lineage_roots import find

# Every path is shorter than this: it visits each kind once, and models once more for each conversion of a conversion.
DEEPEST = len(KINDS) + 10
# SQLite takes 32 766 values in one statement, a key has two.
_MANY = 500
_STEPS: dict[Direction, tuple[Step, ...]] = {"up": ("up",), "down": ("down",), "both": ("up", "down")}


@dataclass
class _Found:
    """What a walk has seen so far."""

    limit: int
    things: dict[Thing, None] = field(default_factory=dict)
    edges: dict[tuple[Thing, Thing], None] = field(default_factory=dict)
    truncated: bool = False

    def take(self, thing: Thing) -> bool:
        """Whether there was room for it, or it had come before."""
        if thing in self.things:
            return True
        if len(self.things) >= self.limit:
            self.truncated = True
            return False
        self.things[thing] = None
        return True


def walk(connection: Connection, of: str, *, direction: Direction, depth: int = DEEPEST, limit: int, now: datetime) -> Lineage:
    """Everything within ``depth`` links of the thing that ``of`` names, at most ``limit`` things, the nearest first.

    Raises InvalidLineageId, InvalidReference, InvalidName, AmbiguousCommit, RecordNotFound.
    """
    root, contents = find(connection, of, limit)
    found = _Found(limit)
    found.take(root)
    for thing in contents:
        if found.take(thing):
            found.edges[(root, thing)] = None
    begin = contents or [root]
    for step in _STEPS[direction]:
        _explore(connection, [thing for thing in begin if thing in found.things], root.kind, step, depth, found)
    return _lineage(connection, root, found, now)


def reach(
    connection: Connection, of: str, *, direction: Direction, only: Iterable[NodeKind], limit: int, now: datetime
) -> Lineage:
    """The things of the kinds ``only`` however far away, without what lies between: one question to the database.

    At most ``limit`` of them, by name; no edges but the node ``of`` itself is always there. Raises like :func:`walk`.
    """
    root, contents = find(connection, of, limit)
    found = _Found(limit)
    found.take(root)
    wanted = [kind for kind in KINDS if kind in set(only)]
    for step in _STEPS[direction]:
        reached = _reached(root.kind, [thing.key for thing in contents or [root]], step)
        for kind in wanted:
            if kind in reached:
                for row in connection.execute(_ordered(reached[kind], limit + 1)):
                    found.take(Thing(kind, tuple(row)))
    return _lineage(connection, root, found, now)


def _explore(connection: Connection, begin: Sequence[Thing], root_kind: NodeKind, step: Step, depth: int, found: _Found) -> None:
    frontier, seen = list(begin), set(begin)
    for _ in range(depth):
        fresh: dict[Thing, None] = {}
        for near, far in _neighbours(connection, frontier, root_kind, step, found):
            if found.take(far):
                found.edges[(near, far) if step == "down" else (far, near)] = None
                if far not in seen:
                    fresh[far] = None
        seen |= fresh.keys()
        frontier = list(fresh)
        if not frontier:
            return


def _neighbours(
    connection: Connection, frontier: Sequence[Thing], root_kind: NodeKind, step: Step, found: _Found
) -> Iterator[tuple[Thing, Thing]]:
    """Each thing of the frontier with each thing one link further."""
    for kind, group in groupby(sorted(frontier, key=lambda thing: KINDS.index(thing.kind)), key=lambda thing: thing.kind):
        keys = [thing.key for thing in group] if is_passed(kind, root_kind) else []
        for link in links_from(kind, step):
            for start in range(0, len(keys), _MANY):
                yield from _pairs(connection, link, step, keys[start : start + _MANY], found)


def _pairs(connection: Connection, link: Link, step: Step, keys: Sequence[Key], found: _Found) -> Iterator[tuple[Thing, Thing]]:
    near, far = link.near_key(step), link.far_key(step)
    # Twice the limit leaves room for links to things that are known already; more rows than that are not even read.
    most = 2 * found.limit + 1
    rows = connection.execute(link.query(step, *near, *far).where(among(near, keys)).limit(most)).all()
    found.truncated |= len(rows) == most
    for row in rows:
        yield Thing(link.near(step), tuple(row[: len(near)])), Thing(link.far(step), tuple(row[len(near) :]))


def _reached(root_kind: NodeKind, keys: Sequence[Key], step: Step) -> dict[NodeKind, Select[tuple[object, ...]]]:
    """For each kind that can be reached, the query of its keys; each is asked of the ones before it, in the database."""
    reached: dict[NodeKind, Select[tuple[object, ...]]] = {}
    for kind in KINDS if step == "down" else KINDS[::-1]:
        parts = []
        within: Link | None = None
        for link in LINKS:
            near = link.near(step)
            if link.far(step) != kind or not is_passed(near, root_kind):
                continue
            if near == kind:
                within = link
            if near == root_kind:
                parts.append(link.query(step, *link.far_key(step)).where(among(link.near_key(step), keys)))
            if near in reached:
                parts.append(_one_further(link, step, reached[near]))
        if parts:
            table = union(*parts).cte(f"reached_{kind.replace('-', '_')}")
            reached[kind] = select(*table.c) if within is None else _onwards(within, step, table)
    return reached


def _onwards(link: Link, step: Step, begin: CTE) -> Select[tuple[object, ...]]:
    """``begin`` and what is reached from there by links within its kind, however many."""
    found = select(*begin.c).cte(f"{begin.name}_onwards", recursive=True)
    here = [key == known for key, known in zip(link.near_key(step), found.c, strict=True)]
    whole = found.union(link.query(step, *link.far_key(step)).where(*here))
    return select(*whole.c)


def _one_further(link: Link, step: Step, near: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    names = [column.name for column in link.near_key(step)]
    if all(column in link.near_key(step) for column in link.far_key(step)):
        # A module's name holds its device's: nothing to look up.
        known = near.selected_columns
        return select(*(known[names.index(column.name)] for column in link.far_key(step)))
    return link.query(step, *link.far_key(step)).where(among(link.near_key(step), near))


def _ordered(query: Select[tuple[object, ...]], limit: int) -> Select[tuple[object, ...]]:
    return query.distinct().order_by(*query.selected_columns).limit(limit)


def _lineage(connection: Connection, root: Thing, found: _Found, now: datetime) -> Lineage:
    described = describe(connection, found.things, now)
    return Lineage(
        root=root.id,
        nodes=[
            LineageNode(id=thing.id, kind=thing.kind, name=said.name or thing.name, facts=said.facts, deleted=said.deleted)
            for thing, said in described.items()
        ],
        edges=[LineageEdge(source=source.id, target=target.id) for source, target in found.edges],
        truncated=found.truncated,
    )
