"""How what runs inside the sandbox says why it could not: a kind and its values, in a file that the packager reads."""

from __future__ import annotations

import json
from pathlib import Path

FAILURE_FILE = "failure.json"


class Failure(Exception):
    """``kind`` is one that `packager/convert/refusals.py` knows; ``fields`` fill the sentence there."""

    def __init__(self, kind: str, **fields: object) -> None:
        super().__init__(kind)
        self.kind = kind
        self.fields = fields


def write_failure(folder: Path, failure: Failure) -> None:
    told = {name: str(value)[:2000] for name, value in failure.fields.items()}
    (folder / FAILURE_FILE).write_text(json.dumps({"kind": failure.kind, "fields": told}), encoding="utf-8")
