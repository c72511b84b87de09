"""Rows of a table as members of a backup, and back: gzip of JSON lines, one object a row, in order of the primary key.

Bytes are base64, numbers that JSON lacks are text (``"nan"``), everything else is what it is: so rows travel between SQLite
and PostgreSQL in both directions.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, Float, Integer, LargeBinary, Numeric, Table, select
from sqlalchemy.types import TypeEngine

from hedgerow.contracts.backup_archive import CHUNK_BYTES, BackupDamaged, Readable

# A member is closed when it has this many bytes of JSON; neither end ever holds more than one member in memory.
MEMBER_BYTES = 4 << 20
# One row at a time may be large (a model of 100 000 files), so few are fetched at once.
_ROWS_AT_ONCE = 100
# A row is at most about as large as a request's body; a member grows past its limit by one row.
MEMBER_BYTES_MAX = MEMBER_BYTES + (128 << 20)
_GZIP = 16 + zlib.MAX_WBITS
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def dump(connection: Connection, table: Table) -> Iterator[tuple[bytes, int]]:
    """The table as gzip members with their numbers of rows; nothing for an empty table."""
    query = select(table).order_by(*table.primary_key.columns)
    floats = [column.name for column in table.columns if isinstance(column.type, Float)]
    encoder = msgspec.json.Encoder()
    packer, raw_bytes, rows, packed = zlib.compressobj(1, wbits=_GZIP), 0, 0, bytearray()
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        for name in floats:
            values[name] = _spelled(values[name])
        line = encoder.encode(values) + b"\n"
        packed += packer.compress(line)
        raw_bytes, rows = raw_bytes + len(line), rows + 1
        if raw_bytes >= MEMBER_BYTES:
            yield bytes(packed) + packer.flush(), rows
            packer, raw_bytes, rows, packed = zlib.compressobj(1, wbits=_GZIP), 0, 0, bytearray()
    if rows:
        yield bytes(packed) + packer.flush(), rows


class Loader:
    """Puts members of one table back. ``table`` is reflected: an older schema has its own columns."""

    def __init__(self, connection: Connection, table: Table, file: str) -> None:
        self._connection, self._table, self._file = connection, table, file
        fields: list[tuple[str, Any]] = [(str(column.name), _kind(column.type) | None) for column in table.columns]
        # Checks names and types of all columns, and undoes the base64.
        self._decoder = msgspec.json.Decoder(msgspec.defstruct(table.name, fields, forbid_unknown_fields=True))
        self._floats = [column.name for column in table.columns if isinstance(column.type, Float | Numeric)]

    def load(self, member: Readable) -> int:
        """Insert the rows of a member; returns how many. Raises BackupDamaged, sqlalchemy's errors for rows that do not fit."""
        rows, count = [], 0
        for line in self._lines(member):
            rows.append(self._row(line))
            if len(rows) >= _ROWS_AT_ONCE:
                count += self._insert(rows)
                rows.clear()
        return count + (self._insert(rows) if rows else 0)

    def _insert(self, rows: Sequence[dict[str, Any]]) -> int:
        self._connection.execute(self._table.insert(), rows)
        return len(rows)

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            values = msgspec.structs.asdict(self._decoder.decode(line))
            return values | {name: float(values[name]) for name in self._floats if values[name] is not None}
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            raise self._damaged(f"a row of table {self._table.name} is not one ({problem})") from None

    def _lines(self, member: Readable) -> Iterator[bytes]:
        # Of the line that has no end yet. Joined once it has: a line of many parts would else be copied with each.
        open_line: list[bytes] = []
        for part in self._unpacked(member):
            first, *others = part.split(b"\n")
            open_line.append(first)
            if others:
                yield b"".join(open_line)
                yield from others[:-1]
                open_line = [others[-1]]
        if any(open_line):
            raise self._damaged(f"the rows of table {self._table.name} do not end where they should")

    def _unpacked(self, member: Readable) -> Iterator[bytes]:
        unpacker, left = zlib.decompressobj(_GZIP), MEMBER_BYTES_MAX
        packed = member.read(CHUNK_BYTES)
        while True:
            try:
                part = unpacker.decompress(packed, CHUNK_BYTES)
            except zlib.error as problem:
                raise self._damaged(f"the rows of table {self._table.name} are damaged ({problem})") from None
            left -= len(part)
            if left < 0:
                raise self._damaged(f"a member of table {self._table.name} unpacks to more than {MEMBER_BYTES_MAX} bytes")
            yield part
            packed = unpacker.unconsumed_tail or member.read(CHUNK_BYTES)
            # With nothing left to read there may still be something to unpack.
            if not packed and not part:
                break
        if unpacker.unused_data or not unpacker.eof:
            raise self._damaged(f"the rows of table {self._table.name} do not end where they should")

    def _damaged(self, problem: str) -> BackupDamaged:
        return BackupDamaged(file=self._file, problem=problem)


def _spelled(value: float | None) -> float | str | None:
    return str(value) if value is not None and not math.isfinite(value) else value


def _kind(column: TypeEngine[Any]) -> Any:  # noqa: ANN401 - types as values
    if isinstance(column, Integer):
        return _Int64
    if isinstance(column, Float | Numeric):
        return float | str
    return bytes if isinstance(column, LargeBinary) else str
