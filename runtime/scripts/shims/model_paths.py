"""``Model.get_model_path`` of azureml-core. Everything else of it is a client's, and there only where it is installed."""

from __future__ import annotations

import os
from pathlib import Path


class Model:
    """Only what scoring scripts call."""

    @staticmethod
    def get_model_path(model_name: str, version: int | None = None, _workspace: object = None) -> str:
        """Path of a model under AZUREML_MODEL_DIR: its one file, or its folder.

        Looks for ``name/version`` (the newest without one) and for ``name`` below that folder, which may also be the model's
        own. Raises FileNotFoundError with what is there.
        """
        root = Path(os.environ.get("AZUREML_MODEL_DIR") or "azureml-models")  # noqa: TID251 - the script's own process
        for folder in (root / model_name, root.parent.parent / model_name, root.parent / model_name):
            if version is None and folder.is_file():
                return str(folder)
            if (found := _version_in(folder, version)) is not None:
                return str(_only_file(found))
        if root.is_dir() and version in (None, _number(root.name)) and model_name in (root.name, root.parent.name):
            return str(_only_file(root))
        there = ", ".join(sorted(entry.name for entry in root.iterdir())) if root.is_dir() else "no such folder"
        raise FileNotFoundError(f"Model {model_name!r} is not in {root} ({there})")


def _version_in(folder: Path, version: int | None) -> Path | None:
    if not folder.is_dir():
        return None
    versions = {number: entry for entry in folder.iterdir() if (number := _number(entry.name)) is not None and entry.is_dir()}
    if version is not None:
        return versions.get(int(version))
    return versions[max(versions)] if versions else folder


def _number(name: str) -> int | None:
    return int(name) if name.isdecimal() else None


def _only_file(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 else folder
