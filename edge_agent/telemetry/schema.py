"""The buffer file's tables, and how a file of an older agent becomes one of today.

Format 2 adds columns and tables to format 1 and moves no row, so that a migration takes no longer for a million messages than
for none. It is one transaction: a file is of one format or of the other. The column ``messages.properties`` came later and is no
new format: an agent of before, whose release may come back, goes on with such a file and leaves the column empty.
"""

from __future__ import annotations

import secrets
import sqlite3

FORMAT = 2
# SQLite's page, and what a message needs on it beside its body: the chain value, names, numbers; its index entry.
PAGE_BYTES = 4096
ROW_BYTES = 120
INDEX_BYTES = 40
# A row of ``lost``: two chain values, names, numbers.
HOLE_BYTES = 200

_FORMAT_1 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), kept_bytes INTEGER NOT NULL, dropped INTEGER NOT NULL,
  ids INTEGER NOT NULL);
CREATE TABLE streams (stream TEXT PRIMARY KEY,
  last INTEGER NOT NULL, last_chain TEXT NOT NULL,
  base INTEGER NOT NULL, base_chain TEXT NOT NULL,
  acked INTEGER NOT NULL, acked_bytes INTEGER NOT NULL, queued_bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL,
  module TEXT NOT NULL, body TEXT NOT NULL, chain TEXT NOT NULL, size INTEGER NOT NULL);
CREATE UNIQUE INDEX messages_key ON messages (stream, sequence);
CREATE TABLE lost (stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
  previous_chain TEXT NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (stream, first)) WITHOUT ROWID;
CREATE TABLE ids (id INTEGER PRIMARY KEY,
  module TEXT NOT NULL, key TEXT NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL);
CREATE UNIQUE INDEX ids_key ON ids (module, key)
"""

# ``expiries`` is an index of messages.expires, as a table of its own: making an index would read every message.
_FORMAT_2 = """
ALTER TABLE streams ADD COLUMN queued_messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN local INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN priority INTEGER;
ALTER TABLE streams ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET queued_messages = last - max(acked, base);
ALTER TABLE messages ADD COLUMN expires INTEGER;
CREATE TABLE expiries (at INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (at, id)) WITHOUT ROWID;
CREATE TABLE dropped (reason TEXT PRIMARY KEY, messages INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO dropped SELECT 'quota', dropped FROM totals WHERE dropped > 0
"""

# The application's properties as JSON; NULL for none.
_PROPERTIES = "ALTER TABLE messages ADD COLUMN properties TEXT"


def create(db: sqlite3.Connection) -> None:
    """Make the tables of a new buffer with a new epoch."""
    for statement in (*_FORMAT_1.split(";"), "INSERT INTO totals VALUES (1, 0, 0, 0)", *_FORMAT_2.split(";"), _PROPERTIES):
        db.execute(statement)
    db.execute("INSERT INTO facts VALUES ('format', ?), ('epoch', ?)", (str(FORMAT), new_epoch_id()))


def create_format_1(db: sqlite3.Connection) -> None:
    """Make a buffer as 0.1.0 did; for tests of the migration."""
    for statement in _FORMAT_1.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO totals VALUES (1, 0, 0, 0)")
    db.execute("INSERT INTO facts VALUES ('format', '1'), ('epoch', ?)", (new_epoch_id(),))


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make or migrate the tables; the caller's transaction. Raises sqlite3.DatabaseError for a file of another program or of
    a newer agent."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        create(db)
        return
    found = format_of(db)
    if found == 1:
        for statement in _FORMAT_2.split(";"):
            db.execute(statement)
        db.execute("UPDATE facts SET value = ? WHERE name = 'format'", (str(FORMAT),))
    elif found != FORMAT:
        raise sqlite3.DatabaseError(f"it has format {found}, this agent knows {FORMAT}")
    if not has_properties(db):
        db.execute(_PROPERTIES)


def is_up_to_date(db: sqlite3.Connection) -> bool:
    """Whether there is nothing to bring up to date. Raises sqlite3.DatabaseError for a file that does not say its format."""
    return format_of(db) == FORMAT and has_properties(db)


def format_of(db: sqlite3.Connection) -> int:
    """The file's format; 0 for an empty one. Raises sqlite3.DatabaseError for one that does not say."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return 0
    row = db.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
    if row is None or not str(row[0]).isdigit():
        raise sqlite3.DatabaseError("it does not say its format")
    return int(row[0])


def has_properties(db: sqlite3.Connection) -> bool:
    """Whether messages of this file can have properties. Raises sqlite3.DatabaseError."""
    return any(column[1] == "properties" for column in db.execute("PRAGMA table_info(messages)"))


def new_epoch_id() -> str:
    """A random epoch."""
    return secrets.token_hex(8)


def size_of(body_bytes: int) -> int:
    """What a message (its body, and its properties if it has any) takes of the disk, in bytes: rows share a page only whole, and
    a long one continues on pages of its own.

    This is what counts against the quota; counting bodies alone would fill a disk twice over.
    """
    payload = body_bytes + ROW_BYTES
    own_pages = 0
    if payload > PAGE_BYTES - 35:
        # The formula of SQLite's file format for what stays on the shared page (section "Cell Payload Overflow Pages").
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (payload - least) % (PAGE_BYTES - 4)
        local = local if local <= PAGE_BYTES - 35 else least
        own_pages = -((local - payload) // (PAGE_BYTES - 4))
        payload = local
    rows_on_a_page = max(1, (PAGE_BYTES - 8) // (payload + 10))
    return own_pages * PAGE_BYTES + PAGE_BYTES // rows_on_a_page + INDEX_BYTES
