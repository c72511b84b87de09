"""The figures of image builds as a user meets them: through the API and the controller, from the SDK and from the command line.

    python -m loadtests.bench_image_builds [--rounds 5] [--folder DIR]

Server and controller run as ever, on a workspace of their own; images are not tested (`--no-verify`) unless it says so, as in
`bench_packager.py`. Beside a build by the command line stands, taken in turn with it, a command that only lists. Wheels come
from the index that uv is set to, once; the base is the tests' (``make test-parts``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hedgerow.sdk.client import Client
from loadtests.bench_blobs import seconds
from loadtests.bench_packager import Yard, lay_bases, write_model
from loadtests.bench_skeleton import row
from tests.controller_process import Plane, doubling_model, plane

_MODEL_MB = 10
_SCRIPT = "def init(): pass\ndef run(data): return data\n"
Kind = Literal["onnx", "docker"]


@dataclass(frozen=True)
class Bench:
    """A running control plane, and a folder for models and scripts."""

    plane: Plane
    yard: Yard

    @property
    def client(self) -> Client:
        return self.plane.client

    def register(self, number: int) -> str:
        """Another version of one small network with 10 MB of weights beside it, which no compressor makes smaller."""
        folder = self.yard.folder / f"model-{number}"
        doubling_model(folder, factor=float(number))
        write_model(folder / "weights", _MODEL_MB)
        (folder / "weights" / "model.onnx").rename(folder / "weights" / "weights.bin")
        return f"bench:{self.client.models.register('bench', folder).version}"

    def options(self, kind: Kind) -> dict[str, Any]:
        if kind == "onnx":
            return {"kind": kind}
        source = self.yard.folder / "source"
        source.mkdir(exist_ok=True)
        (source / "score.py").write_text(_SCRIPT)
        return {"kind": kind, "script": "score.py", "source": source, "base": self.yard.bases["linux/amd64"]}

    def build(self, kind: Kind, model: str, **more: Any) -> dict[str, str]:
        """To the end, as a script would: ask, wait, read the result."""
        asked = self.client.images.build(f"bench-{kind}", [model], **{"verify": False, **self.options(kind), **more})
        return self.client.activities.wait(asked.id).result

    def command(self, *words: str) -> str:
        program = [str(Path(sys.executable).with_name("hedgerow")), "--workspace", str(self.plane.folder), *words]
        return subprocess.run(program, check=True, capture_output=True, text=True).stdout


def nothing_changed(bench: Bench, kind: Kind, model: str, rounds: int, *, verify: bool = False) -> None:
    """With ``verify``: what was tested is on record and is not tested again."""
    first = bench.build(kind, model, verify=verify)
    ours = [seconds(lambda: _must_be_unchanged(bench.build(kind, model, verify=verify), first)) for _ in range(rounds)]
    row(f"{kind}: nothing changed{', tested before' if verify else ''}", statistics.median(ours), "s", 0.2, _spread(ours))


def nothing_remembered(bench: Bench, kind: Kind, model: str, rounds: int) -> None:
    """As where the base is a tag: the packager has to be started to know that nothing changed."""
    first = bench.build(kind, model)
    ours = []
    for _ in range(rounds):
        shutil.rmtree(bench.plane.folder / "cache" / "answers")
        ours.append(seconds(lambda: _must_be_unchanged(bench.build(kind, model), first)))
    row(f"{kind}: the same, the packager is asked", statistics.median(ours), "s", 0.2, _spread(ours))


def by_command(bench: Bench, kind: Kind, model: str, rounds: int) -> None:
    words = ["image", "build", f"bench-{kind}", "--model", model, "--kind", kind, "--no-verify"]
    if kind == "docker":
        source = bench.options(kind)["source"]
        words += ["--script", str(source / "score.py"), "--source", str(source), "--base", bench.yard.bases["linux/amd64"]]
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: _must_say_so(bench.command(*words))))
        bare.append(seconds(lambda: bench.command("image", "list", "--limit", "1")))
    beside = f"`hedgerow image list`: {statistics.median(bare):.2f} s"
    row(f"{kind}: the same by `hedgerow image build`", statistics.median(ours), "s", 0.2, beside)


def other_model(bench: Bench, kind: Kind, numbers: range) -> None:
    models = [bench.register(number) for number in numbers]
    ours = [seconds(partial(bench.build, kind, model)) for model in models]
    row(f"{kind}: only the model changed ({_MODEL_MB} MB)", statistics.median(ours), "s", 0.7, _spread(ours))


def _must_be_unchanged(found: dict[str, str], first: dict[str, str]) -> None:
    if found != {**first, "unchanged": "true"}:
        raise SystemExit(f"that was a build: {found}")


def _must_say_so(said: str) -> None:
    if not said.startswith("Nothing changed:"):
        raise SystemExit(f"that was a build: {said}")


def _spread(times: list[float]) -> str:
    return f"{min(times):.2f} to {max(times):.2f} s"


def measure(bench: Bench, rounds: int) -> None:
    model = bench.register(1)
    kinds: tuple[Kind, ...] = ("onnx", "docker")
    for place, kind in enumerate(kinds):
        row(f"{kind}: first build", seconds(partial(bench.build, kind, model)), "s", 5.0)
        nothing_changed(bench, kind, model, rounds)
        nothing_remembered(bench, kind, model, rounds)
        by_command(bench, kind, model, rounds)
        other_model(bench, kind, range(2 + place * rounds, 2 + (place + 1) * rounds))
    nothing_changed(bench, "onnx", model, rounds, verify=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        yard = Yard(Path(scratch), *lay_bases(Path(scratch)), [])
        with plane(Path(scratch) / "plane", environment=dict(os.environ)) as started:
            measure(Bench(started, yard), options.rounds)


if __name__ == "__main__":
    main()
