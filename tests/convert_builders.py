"""Models to convert, and `python -m packager convert` as the controller runs it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.convert import ConvertRequest, ConvertResult
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ModelRef
from tests.packager_builders import PackagerRun, digest_of_folder


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
    place.mkdir(parents=True, exist_ok=True)
    model = ModelRef(name="wine", version=1, digest=digest_of_folder(folder))
    target = place / out
    request = ConvertRequest(
        **{"model": model, "folder": str(folder), "out": str(target), "cache": str(place / "cache"), **changes}
    )
    file = place / "request.json"
    file.write_bytes(encode(request))
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "packager", "convert", str(file)],
        capture_output=True,
        cwd=place,
        env={**inherited, **(environment or {})},
        timeout=timeout_s,
        check=False,
    )
    lines = [msgspec.json.decode(line, type=ProgressLine) for line in done.stdout.splitlines()]
    return Converted(done.returncode, lines, done.stderr.decode(), target)
