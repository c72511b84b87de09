"""Which version a pushed tag stands for (docs/decisions/014). A version's content never changes; a tag may move on.

- A number is that version: it must be the next one, or hold the same content already.
- ``latest`` is the newest version: the next one, unless the newest holds the same content.
- Any other tag is the newest version that was pushed as it: the next one, unless that holds the same content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, select

from hedgerow.contracts.names import Reference
from registry.errors import RecordDeleted, RecordNotFound, TagTaken
from registry.store import images
from registry.store.tables import image_names
from registry.store.upsert import insert

LATEST = "latest"
# What could only be a version: a number without a leading zero.
NUMBER = re.compile(r"[1-9][0-9]{0,9}\Z")


@dataclass(frozen=True)
class Place:
    """Where a push goes. ``is_there``: that version holds the content already; ``tags`` are for the record of a new one."""

    version: int
    is_there: bool
    is_new_name: bool
    tags: dict[str, str]


def place_for(connection: Connection, name: str, tag: str, digest: str) -> Place:
    """Reserves the number of a new version; the name's row is held, so that of two pushes at once the second sees the first.

    Raises TagTaken.
    """
    last = hold_name(connection, name)
    standing = _standing(connection, name, tag, last)
    if standing is not None and _holds(connection, name, standing, digest):
        return Place(standing, is_there=True, is_new_name=False, tags={})
    if NUMBER.match(tag):
        _check_free(name, int(tag), last)
    tags = {} if NUMBER.match(tag) or tag == LATEST else {images.PUSHED_AS: tag}
    return Place(images.next_version(connection, name), is_there=False, is_new_name=last == 0, tags=tags)


def hold_name(connection: Connection, name: str) -> int:
    """The last number that was given, 0 for a name that is new; until the commit nobody else pushes a version of it."""
    made = insert(connection, image_names).values(name=name, last_version=0).on_conflict_do_nothing()
    connection.execute(made)
    held = select(image_names.c.last_version).where(image_names.c.name == name).with_for_update()
    return int(connection.execute(held).scalar_one())


def _standing(connection: Connection, name: str, tag: str, last: int) -> int | None:
    if NUMBER.match(tag):
        return int(tag) if int(tag) <= last else None
    if tag == LATEST:
        there = images.versions_of(connection, name)
        return there[-1] if there else None
    return images.version_tagged(connection, name, tag)


def _holds(connection: Connection, name: str, version: int, digest: str) -> bool:
    try:
        return images.get(connection, Reference(name, version)).digest == digest
    except (RecordNotFound, RecordDeleted):
        return False


def _check_free(name: str, wanted: int, last: int) -> None:
    if wanted <= last:
        raise TagTaken(name=name, tag=wanted, problem=f"that number was given already, and {last + 1} is the next")
    if wanted != last + 1:
        raise TagTaken(name=name, tag=wanted, problem=f"the next version is {last + 1}")
