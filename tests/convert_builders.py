"""Models to convert, and `python -m packager convert` as the controller runs it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.contracts.convert import ConvertRequest, ConvertResult
from hedgerow.contracts.image import ModelRef
from tests.packager_builders import digest_of_folder
from tests.packager_process import PackagerRun, own_environment, run_verb


@dataclass(frozen=True)
class Converted(PackagerRun):
    """What one `python -m packager convert` did, and where its files are."""

    out: Path

    @property
    def result(self) -> ConvertResult:
        return self.result_as(ConvertResult)


def save_pickle(folder: Path, model: object, name: str = "model.pkl") -> Path:
    """A model's folder with one pickle in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(model))
    return folder


def run_convert(
    folder: Path,
    place: Path,
    environment: Mapping[str, str] | None = None,
    *,
    out: str = "out",
    timeout_s: float = 170,
    **changes: Any,
) -> Converted:
    """Convert the model in ``folder``; files land in ``place/out``, the cache lies in ``place/cache``."""
    model = ModelRef(name="wine", version=1, digest=digest_of_folder(folder))
    target = place / out
    request = ConvertRequest(
        **{"model": model, "folder": str(folder), "out": str(target), "cache": str(place / "cache"), **changes}
    )
    done = run_verb("convert", request, place, {**own_environment(), **(environment or {})}, timeout_s=timeout_s)
    return Converted(done.exit_code, done.lines, done.stderr, target)
