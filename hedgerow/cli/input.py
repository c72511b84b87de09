"""Files that commands read whole: bounded, UTF-8, JSON; whatever is wrong with them is one sentence with the file named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

MAX_BYTES = 64 << 20


def read_text(path: Path) -> str:
    """The text of ``path`` (a pipe will do). Raises ClickException for what is too large or no UTF-8, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise click.ClickException(f"{path} holds more than {MAX_BYTES >> 20} MiB. Is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise click.ClickException(
            f"{path} is not UTF-8 text ({problem.reason} at byte {problem.start}). Save it as UTF-8."
        ) from None


def parse_json(text: str, where: object) -> Any:  # noqa: ANN401 - decoded JSON
    """Raises ClickException that names ``where``."""
    try:
        return json.loads(text)
    except ValueError as problem:
        raise click.ClickException(f"{where} is not JSON: {problem}. Correct it.") from None
    except RecursionError:
        raise click.ClickException(f"{where} is nested too deeply. Flatten it.") from None
