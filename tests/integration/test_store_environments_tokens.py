"""Tokens in the store: only their holders know them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from registry.errors import RecordNotFound, TokenRefused
from registry.store import tokens
from registry.store.database import Database
from registry.store.tables import tokens as tokens_table
from tests.registry_stores import BACKENDS, NOW, after, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def test_a_token_is_good_until_it_expires_or_is_revoked(database: Database) -> None:
    with database.write() as connection:
        made = tokens.create(connection, name="ci", role="contributor", now=NOW, expires_at=after(60), subject="s")
        forever = tokens.create(connection, name="ops", role="owner", now=NOW)
    assert made.secret is not None
    assert forever.secret is not None
    with database.write() as connection:
        found = tokens.verify(connection, made.secret, after(59))
        assert (found.id, found.name, found.role, found.subject) == (made.id, "ci", "contributor", "s")
        with pytest.raises(TokenRefused, match="expired"):
            tokens.verify(connection, made.secret, after(60))
        # A clock that jumped back does not bring it to life for longer than it had.
        assert tokens.verify(connection, made.secret, after(-3600)).id == made.id
        tokens.revoke(connection, forever.id, after(1))
        with pytest.raises(TokenRefused, match="revoked"):
            tokens.verify(connection, forever.secret, after(2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hrw",
        "hrw__",
        "hrw_x_y",
        "x_{id}_{secret}",
        "hrw_{id}_",
        "hrw_{id}_{secret}x",
        "hrw_{id}_ü",
        "hrw_\0_x",
        "hrw_\udcff_x",
    ],
)
def test_what_is_no_token_is_refused(database: Database, text: str) -> None:
    with database.write() as connection:
        made = tokens.create(connection, name="ci", role="reader", now=NOW)
        assert made.secret is not None
        _, token_id, secret = made.secret.split("_", 2)
        with pytest.raises(TokenRefused, match="not one of this workspace"):
            tokens.verify(connection, text.format(id=token_id, secret=secret), NOW)


def test_the_database_does_not_hold_the_secret(database: Database) -> None:
    with database.write() as connection:
        made = tokens.create(connection, name="ci", role="reader", now=NOW)
        stored = str(connection.execute(select(tokens_table)).all())
    assert made.secret is not None
    assert made.secret.split("_", 2)[2] not in stored
    assert made.id in stored


def test_last_use_is_noted_to_the_minute(database: Database) -> None:
    with database.write() as connection:
        secret = tokens.create(connection, name="ci", role="reader", now=NOW).secret or ""

    def use(seconds: float) -> str:
        with database.read() as connection:
            found = tokens.verify(connection, secret, after(seconds))
        tokens.note_use(database, found, after(seconds))
        with database.read() as connection:
            return str(tokens.find(connection, found.id).last_used_at)

    assert use(1) == use(50) == str(after(1))
    assert use(70) == str(after(70))


def test_scopes_and_the_maker_stay_with_a_token_and_its_page_sessions(database: Database) -> None:
    scopes = ["models:iris", "images:team-a.*"]
    with database.write() as connection:
        made = tokens.create(connection, name="ci", role="reader", scopes=scopes, created_by="owner:ann:1", now=NOW)
        found = tokens.verify(connection, made.secret or "", NOW)
        session = tokens.create_page_session(connection, found, "page", NOW, timedelta(hours=1))
        plain = tokens.create(connection, name="all", role="reader", now=NOW)
    assert (made.scopes, made.created_by) == (scopes, "owner:ann:1")
    assert found.scopes == tuple(scopes)
    with database.read() as connection:
        assert tokens.find(connection, made.id).scopes == scopes
        assert tokens.find(connection, made.id).secret is None
        assert tokens.verify(connection, session.secret or "", NOW).scopes == tuple(scopes), "a page shows no more"
        assert tokens.verify(connection, plain.secret or "", NOW).scopes == ()


def test_lists_and_bound_tokens(database: Database) -> None:
    with database.write() as connection:
        for number in range(5):
            tokens.create(connection, name=f"t{number}", role="device", subject=f"d{number % 2}", now=after(number // 2))
    with database.read() as connection:
        first = tokens.newest(connection, 3)
        rest = tokens.newest(connection, 3, first[-1].id)
    assert len({info.id for info in [*first, *rest]}) == 5
    assert first[0].name == "t4"
    with database.write() as connection:
        assert tokens.revoke_for(connection, "device", "d0", after(9)) == 3
        assert tokens.revoke_for(connection, "device", "d0", after(9)) == 0
        with pytest.raises(RecordNotFound):
            tokens.revoke(connection, "nobody", after(9))
