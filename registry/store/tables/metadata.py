"""The two metadata objects and the naming of their constraints.

``RECORDS`` (everything that must be whole) and ``SERIES`` (telemetry and metric points, which on SQLite live in a file
of their own so that their writes never queue behind a record's commit).
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, MetaData

# Named constraints are what Alembic needs to alter them later, on SQLite as on PostgreSQL.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
RECORDS = MetaData(naming_convention=_NAMING)
SERIES = MetaData(naming_convention=_NAMING)


def states(column: str, *allowed: str) -> CheckConstraint:
    """``column`` takes one of these words."""
    quoted = ", ".join(f"'{state}'" for state in allowed)
    return CheckConstraint(f"{column} IN ({quoted})", name=column)
