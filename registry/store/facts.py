"""What the database says of itself: whose it is, and which life of it this is.

The **incarnation** is a random id made with the database and changed whenever a backup is restored; devices learn from
it that what they had sent may be missing.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select

from hedgerow.errors import Bug
from registry.errors import ForeignDatabase
from registry.store.tables import facts
from registry.store.upsert import insert

WORKSPACE_ID = "workspace_id"
INCARNATION = "incarnation"


def initialise(connection: Connection, workspace_id: str) -> None:
    """Claim a database for a workspace, once; again changes nothing. Raises ForeignDatabase when it is another's."""
    for key, made in ((WORKSPACE_ID, workspace_id), (INCARNATION, secrets.token_hex(16))):
        connection.execute(insert(connection, facts).values(key=key, value=made).on_conflict_do_nothing())
    check_owner(connection, workspace_id)


def check_owner(connection: Connection, workspace_id: str) -> None:
    """Raises ForeignDatabase when the database belongs to another workspace."""
    found = value(connection, WORKSPACE_ID)
    if found != workspace_id:
        raise ForeignDatabase(found=found, expected=workspace_id)


def incarnation(connection: Connection) -> str:
    """The id of this life of the database."""
    return value(connection, INCARNATION)


def renew_incarnation(connection: Connection) -> str:
    """Begin a new life (after a restore); returns its id."""
    fresh = secrets.token_hex(16)
    connection.execute(facts.update().where(facts.c.key == INCARNATION).values(value=fresh))
    return fresh


def value(connection: Connection, key: str) -> str:
    """A fact that every initialised database has."""
    row = connection.execute(select(facts.c.value).where(facts.c.key == key)).one_or_none()
    if row is None:
        raise Bug(what=f"the database has no fact {key!r}; it was never initialised")
    return str(row.value)
