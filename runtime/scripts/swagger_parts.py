"""What a script contributes to the swagger documents: its declared schemas, and files of its own, which win.

Crosses to the scoring server as JSON text in the Ready frame (the schemas may hold integers that msgpack cannot).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger("azmlinfsrv")

# swagger.json goes before swagger2.json, as azmlinfsrv has it.
_FILES = (("2", "swagger.json"), ("2", "swagger2.json"), ("3", "swagger3.json"), ("3.1", "swagger3.1.json"))


def swagger_parts(schemas: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """``{"input": …, "output": …, "versions": […], "files": {"2": document}}`` as text. init() has run: it may write files."""
    files: dict[str, object] = {}
    for version, name in _FILES:
        if version not in files and (document := _read(name, folders)) is not None:
            files[version] = document
    try:
        return json.dumps({**schemas, "files": files})
    except (TypeError, ValueError) as problem:
        _log.warning("the schemas that the script declares are no JSON (%s); its swagger shows none", problem)
        return json.dumps({"files": files})


def _read(name: str, folders: Sequence[Path]) -> object | None:
    file = next((place for folder in folders if (place := folder / name).is_file()), None)
    if file is None:
        return None
    try:
        document: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        _log.warning("%s is not used: %s", file, problem)
        return None
    _log.info("%s is served as swagger document", file)
    return document
