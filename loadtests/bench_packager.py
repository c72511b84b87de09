"""The figures of building images: the first time, with another model, with nothing changed, for two platforms, with 2 GB.

    python -m loadtests.bench_packager [--rounds 3] [--model-mb 2048] [--requirement scikit-learn]… [--folder DIR]

Every build is a process of its own, as the controller starts it, and its whole time counts. Beside each figure stands, taken in
turn with it, what the machine needs for the least that could be done: a bare interpreter, reading and copying the same file,
installing the same wheels and packing them with zlib. Wheels come from the package index that uv is set to, once, and then from
its cache; the base is the one that tests make (``make test-parts``); another platform's base is the same with another name.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hedgerow.contracts.build import BuildModel, BuildRequest, BuildResult, ProgressLine
from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.document import convert, decode, digest_of, encode
from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.model import FileEntry, digest_of_files
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, MEDIA_OCI_CONFIG, MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_MANIFEST
from hedgerow.contracts.push import PushRequest, PushResult
from hedgerow.sdk.explain import explain
from loadtests.bench_blobs import seconds, write_random
from loadtests.bench_skeleton import row
from packager.settings import RUNTIME_REQUIREMENTS
from tests.fixtures.base_image import base_tar
from tests.fixtures.oci_registry import running_registry

_CHUNK_BYTES = 1 << 20
_PLATFORMS = ("linux/amd64", "linux/arm64")
_MODEL_MB = 10


@dataclass(frozen=True)
class Ran:
    """One process of the packager. ``read_bytes`` is all that it read, from wherever."""

    seconds: float
    rss_mb: float
    read_bytes: int
    result: dict[str, Any]


def run_packager(verb: str, request: msgspec.Struct, folder: Path) -> Ran:
    """As the controller runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    order, told, log = folder / "request.json", folder / "told", folder / "log"
    order.write_bytes(encode(request))
    argv = [sys.executable, "-P", "-m", "packager", verb, str(order)]
    write = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(told), write, 0o600), (os.POSIX_SPAWN_OPEN, 2, str(log), write, 0o600)]
    environment = os.environ | {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"}
    facts: dict[str, Any] = {}

    def run() -> None:
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        facts["read"] = int(Path(f"/proc/{pid}/io").read_text().split()[1])
        facts["used"] = os.wait4(pid, 0)[2]

    took = seconds(run)
    last = msgspec.json.decode(told.read_bytes().splitlines()[-1], type=ProgressLine)
    if last.result is None:
        raise SystemExit(f"the packager failed: {last.problem}\n{log.read_text()[-2000:]}")
    return Ran(took, facts["used"].ru_maxrss / 1024, facts["read"], last.result)


@dataclass(frozen=True)
class Yard:
    """Where images are built, and of what. ``warm`` is a cache that has seen everything."""

    folder: Path
    bases: dict[str, str]
    base_bytes: int
    requirements: list[str]

    @property
    def warm(self) -> Path:
        return self.folder / "warm"

    def build(self, model: BuildModel, cache: Path, *, out: str = "out", **changes: Any) -> Ran:
        """Into ``out``, which is emptied before."""
        target = self.folder / out
        shutil.rmtree(target, ignore_errors=True)
        plain = {"name": "bench", "version": 1, "kind": "docker", "verify": False, "requirements": self.requirements}
        places = {"out": str(target / "image"), "cache": str(cache), "models": [model]}
        platforms = {"platforms": [_PLATFORMS[0]], "bases": self.bases}
        return run_packager("build", BuildRequest(**{**plain, **platforms, **places, **changes}), target)

    def fresh_cache(self, *, locks: bool = True) -> Path:
        """A cache that knows the bases and, with ``locks``, what was resolved, but has no layer of ours."""
        cache = self.folder / "fresh"
        shutil.rmtree(cache, ignore_errors=True)
        blobs = cache / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for kind in (self.warm / "records").iterdir():
            if kind.name.startswith(("base", "checked")) or (locks and kind.name == "lock"):
                shutil.copytree(kind, cache / "records" / kind.name)
        for reference in self.bases.values():
            for blob in Path(reference.removeprefix("oci:"), "blobs", "sha256").iterdir():
                if (known := self.warm / "blobs" / "sha256" / blob.name).exists() and not (blobs / blob.name).exists():
                    os.link(known, blobs / blob.name)
        return cache


def lay_bases(folder: Path) -> tuple[dict[str, str], int]:
    """The tests' base as OCI layouts, one for each platform; and its compressed size."""
    tar = base_tar()
    plain, layer = hashlib.sha256(), folder / "base.tar.gz"
    with tar.open("rb") as source, gzip.GzipFile(layer, "wb", compresslevel=6, mtime=0) as packed:
        while chunk := source.read(_CHUNK_BYTES):
            plain.update(chunk)
            packed.write(chunk)
    with layer.open("rb") as file:
        packed_digest = hashlib.file_digest(file, "sha256").hexdigest()
    bases = {}
    for platform in _PLATFORMS:
        system, architecture = platform.split("/")
        layout = folder / f"base-{architecture}"
        (layout / "blobs" / "sha256").mkdir(parents=True)
        os.link(layer, layout / "blobs" / "sha256" / packed_digest)
        config = {
            "architecture": architecture,
            "os": system,
            "config": {"Cmd": ["python3"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
        }
        described = _described(layout, config, MEDIA_OCI_CONFIG)
        layers = [{"mediaType": MEDIA_OCI_LAYER_GZIP, "digest": f"sha256:{packed_digest}", "size": layer.stat().st_size}]
        manifest = {"schemaVersion": 2, "mediaType": MEDIA_OCI_MANIFEST, "config": described, "layers": layers}
        top = _described(layout, manifest, MEDIA_OCI_MANIFEST) | {"platform": {"os": system, "architecture": architecture}}
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        bases[platform] = f"oci:{layout}"
    return bases, layer.stat().st_size


def _described(layout: Path, document: object, media_type: str) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = digest_of(data)
    (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def write_model(folder: Path, megabytes: int, version: int = 1) -> BuildModel:
    """A model of random bytes: no compressor can do anything about it, as with real weights."""
    folder.mkdir(exist_ok=True)
    write_random(folder / "model.onnx", megabytes)
    with (folder / "model.onnx").open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    entry = FileEntry(path="model.onnx", digest=digest, size_bytes=megabytes << 20)
    return BuildModel(ref=ModelRef(name="bench", version=version, digest=digest_of_files([entry])), folder=str(folder))


def bare_hash_and_copy(source: Path, target: Path) -> float:
    """Python's sha256 of a file, and a copy of it."""

    def both() -> None:
        hasher = hashlib.sha256()
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
        shutil.copyfile(source, target)

    return seconds(both)


def bare_install_and_pack(yard: Yard) -> tuple[float, int]:
    """The same wheels installed by uv out of its cache, and packed as one layer with Python's zlib; seconds and bytes."""
    site, layer = yard.folder / "site", yard.folder / "site.tar.gz"
    shutil.rmtree(site, ignore_errors=True)
    locks = [decode(file.read_bytes(), EnvironmentLock) for file in (yard.warm / "records" / "lock").iterdir()]
    lock = max((one for one in locks if one.platform == _PLATFORMS[0]), key=lambda one: len(one.packages))
    wheels = [f"{package.name}=={package.version}" for package in lock.packages]
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--python-version", "3.11"]

    def both() -> None:
        subprocess.run([*uv, "--python-platform", "x86_64-manylinux_2_28", "--target", str(site), *wheels], check=True)
        with (
            gzip.GzipFile(layer, "wb", compresslevel=zlib.Z_BEST_SPEED) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            tar.add(site, arcname="site")

    return seconds(both), layer.stat().st_size


def first_build(yard: Yard, model: BuildModel, rounds: int) -> None:
    ours, unlocked, bare = [], [], []
    for _ in range(rounds):
        ours.append(yard.build(model, yard.fresh_cache()).seconds)
        bare.append(bare_install_and_pack(yard)[0])
        unlocked.append(yard.build(model, yard.fresh_cache(locks=False)).seconds)
    beside = f"{_ratio(ours, bare):.2f}x uv install + tar + zlib -1 ({statistics.median(bare):.1f} s)"
    row("first build, wheels and base cached", statistics.median(ours), "s", 5.0, beside)
    row("the same with nothing resolved yet", statistics.median(unlocked), "s", 5.0, "the index is asked again")


def other_model(yard: Yard, rounds: int) -> None:
    """The model alone changed: how long, and what of it goes over the wire."""
    with running_registry(yard.folder) as registry:
        _other_model(yard, rounds, registry.address)


def _other_model(yard: Yard, rounds: int, registry: str) -> None:
    ours, bare, layers = [], [], []
    folder = yard.folder / "changing"
    before = yard.build(write_model(folder, _MODEL_MB), yard.warm)
    _push(yard, before, registry, 0)
    sent = 0
    for number in range(1, rounds + 1):
        model = write_model(folder, _MODEL_MB, number + 1)
        after = yard.build(model, yard.warm)
        ours.append(after.seconds)
        bare.append(bare_hash_and_copy(folder / "model.onnx", yard.folder / "copy") + _bare_start())
        found = explain(_report(yard, after), _report_kept(yard))
        layers = [layer.purpose for layer in found.platforms[0].layers if layer.state == "rebuilt"]
        sent = _push(yard, after, registry, number).pushed_bytes
    beside = f"{_ratio(ours, bare):.1f}x interpreter + sha256 + copy ({statistics.median(bare):.2f} s)"
    row(f"only the model changed ({_MODEL_MB} MB)", statistics.median(ours), "s", 0.7, beside)
    row(
        "sent to a registry that has the one before",
        sent / 1e6,
        "MB",
        _MODEL_MB * 1.048576 + 0.1,
        f"rebuilt: {', '.join(layers)}",
    )


def nothing_changed(yard: Yard, model: BuildModel, rounds: int) -> None:
    yard.build(model, yard.warm)
    pairs = [(yard.build(model, yard.warm).seconds, _bare_start()) for _ in range(rounds)]
    ours, bare = [one for one, _ in pairs], [one for _, one in pairs]
    row("nothing changed", statistics.median(ours), "s", 0.2, f"{_ratio(ours, bare):.1f}x a bare interpreter")


def weight(yard: Yard, model: BuildModel) -> None:
    """What the image has on top of its base, without the model; only with the runtime's own requirements."""
    lean = Yard(yard.folder, yard.bases, yard.base_bytes, [])
    report = _report(lean, lean.build(model, lean.warm))
    own = [layer for layer in report.platforms[0].layers if not layer.purpose.startswith(("base", "model"))]
    packed = sum(layer.size_bytes for layer in own)
    plain = sum(file.size_bytes for layer in own for file in layer.files)
    beside = f"{plain / packed:.2f}x smaller than its files; the base has {yard.base_bytes / 1e6:.1f} MB"
    row("container image on its base, no model", packed / 1e6, "MB", 48.0, beside)


def two_platforms(yard: Yard, model: BuildModel, rounds: int) -> None:
    alone, together = [], []
    for _ in range(rounds):
        alone.append(yard.build(model, yard.fresh_cache()).seconds)
        together.append(yard.build(model, yard.fresh_cache(), platforms=list(_PLATFORMS)).seconds)
    beside = f"{statistics.median(together):.1f} s; amd64 alone {statistics.median(alone):.1f} s; nothing built before"
    row("arm64 and amd64 together", _ratio(together, alone), "x", 1.5, beside)


def large_model(yard: Yard, megabytes: int, rounds: int) -> None:
    """As an ONNX artifact: the model's layer is a tar that is not packed."""
    model = write_model(yard.folder / "large", megabytes)
    source = yard.folder / "large" / "model.onnx"
    ours, bare, last = [], [], None
    for _ in range(rounds):
        shutil.rmtree(yard.folder / "cold", ignore_errors=True)
        last = yard.build(model, yard.folder / "cold", kind="onnx", requirements=[], bases={})
        ours.append(last.seconds)
        bare.append(bare_hash_and_copy(source, yard.folder / "copy"))
        (yard.folder / "copy").unlink()
    if last is None:
        return
    beside = f"{statistics.median(ours):.1f} s; sha256 + copy {statistics.median(bare):.1f} s"
    row(f"model of {megabytes} MB", _ratio(ours, bare), "x", 2.0, beside)
    row(
        "its passes over the file",
        last.read_bytes / (megabytes << 20),
        "",
        1.1,
        "bytes read by the process, its own code included",
    )
    row("memory meanwhile (RSS)", last.rss_mb, "MB", 200.0)


def _push(yard: Yard, made: Ran, registry: str, number: int) -> PushResult:
    target = f"http://{registry}/bench:{number}"
    request = PushRequest(layout=str(yard.folder / "out" / "image"), source=_built(made).digest, target=target, referrers=False)
    (yard.folder / "before.json").write_bytes(encode(_report(yard, made)))
    return convert(run_packager("push", request, yard.folder / "push").result, PushResult)


def _report_kept(yard: Yard) -> BuildReport:
    return decode((yard.folder / "before.json").read_bytes(), BuildReport)


def _report(yard: Yard, made: Ran) -> BuildReport:
    blobs = yard.folder / "out" / "image" / "blobs" / "sha256"
    beside = next(one for one in _built(made).referrers if one.artifact_type == ARTIFACT_BUILD_REPORT)
    manifest = json.loads((blobs / beside.digest.removeprefix("sha256:")).read_bytes())
    return decode((blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")).read_bytes(), BuildReport)


def _built(made: Ran) -> BuildResult:
    return convert(made.result, BuildResult)


def _bare_start() -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-P", "-c", "pass"], check=True))


def _ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, bare, strict=True))


def measure(yard: Yard, options: argparse.Namespace) -> None:
    model = write_model(yard.folder / "small", 1)
    yard.build(model, yard.warm, platforms=list(_PLATFORMS))
    parts: dict[str, Callable[[], None]] = {
        "first": lambda: first_build(yard, model, options.rounds),
        "model": lambda: other_model(yard, options.rounds),
        "same": lambda: nothing_changed(yard, model, options.rounds),
        "weight": lambda: weight(yard, model),
        "platforms": lambda: two_platforms(yard, model, options.rounds),
        "large": lambda: large_model(yard, options.model_mb, options.rounds),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model-mb", type=int, default=2048)
    parser.add_argument("--requirement", action="append", default=[], help="more packages than the runtime's; repeatable")
    parser.add_argument("--only", choices=("first", "model", "same", "weight", "platforms", "large"))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    options = parser.parse_args()
    wheels = ", ".join([*RUNTIME_REQUIREMENTS, *options.requirement])
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds")
    print(f"wheels: {wheels}")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        measure(Yard(Path(scratch), *lay_bases(Path(scratch)), options.requirement), options)


if __name__ == "__main__":
    main()
