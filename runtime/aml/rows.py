"""The body that callers without a script send most, read with one call: ``{"data": [[5.1, 3.5, 1.4, 0.2], …]}``. Pure.

What this declines is not wrong: names, other forms, NaN, and everything that deserves a sentence is the business of face.py.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec

from hedgerow.contracts.model import Datatype
from runtime.models.row_form import RowForm, number_of


def rows_from(form: RowForm, body: bytes) -> tuple[list[float], int] | None:
    """The numbers of all rows, one row after another, and how many rows; None where the body is anything else."""
    try:
        rows: list[list[float]] = _decoder(form.datatype, form.width).decode(body).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return (rows[0] if len(rows) == 1 else list(chain.from_iterable(rows)), len(rows)) if rows else None


@lru_cache(maxsize=1024)
def _decoder(datatype: Datatype, width: int) -> msgspec.json.Decoder[Any]:
    number: Any = number_of(datatype)
    row: Any = Annotated[list[number], msgspec.Meta(min_length=width, max_length=width)]
    return msgspec.json.Decoder(msgspec.defstruct("Rows", [("data", list[row])], forbid_unknown_fields=True, gc=False))
