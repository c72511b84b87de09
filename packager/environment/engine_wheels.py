"""Locks an environment in which some packages are there as source only: a container engine builds their wheels first.

Only when it was asked for (`BuildRequest.dockerfile`). uv on this machine keeps deciding on versions; what it finds no wheel
for is built in a container of the base image, taken out as a wheel, and offered to uv beside the index, until the lock is
complete. The wheels stay in the cache, so the same request makes the same image on this machine; another machine's compiler
may make other bytes, which the notes say.
"""

from __future__ import annotations

import io
import logging
import secrets
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.contracts.names import MEDIA_OCI_CONFIG
from hedgerow.contracts.oci import Platform
from hedgerow.contracts.platforms import normal_platform
from hedgerow.safe_tar import unpack_tar
from packager.bases.fetch import BaseImage
from packager.cache.layers import LayerCache, cache_key
from packager.engine.port import ContainerEngine, EngineWork
from packager.environment.dockerfile_base import LABEL, MADE_FOLDER, IndexPlan, plan_context, plan_index
from packager.environment.lock import lock_environment
from packager.environment.platforms import this_platform
from packager.environment.repack import pack_wheels
from packager.environment.uv_command import Uv
from packager.errors import BaseUnreadable, EngineFailed, EngineMissing, EnvironmentUnsolvable, SourceBuildFailed
from packager.oci.blobs import disk_error
from packager.oci.export import export_image
from packager.oci.layout import OciLayout

log = logging.getLogger(__name__)
_GENERATION = 1
_ROUNDS_AT_MOST = 20
_ARCHIVES = (".whl", ".tar.gz", ".zip")


class MadeWheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel that an engine built; its bytes are a blob of the cache."""

    name: str
    version: str
    file_name: str
    digest: str


@dataclass(frozen=True)
class EngineLock:
    """The lock, the ``uv`` that finds the wheels in it, and what must be said about the image."""

    lock: EnvironmentLock
    uv: Uv
    notes: tuple[str, ...] = ()
    made: tuple[MadeWheel, ...] = ()


def lock_with_engine(
    requirements: list[str],
    python_version: str,
    platform: str,
    base: BaseImage,
    cache: LayerCache,
    uv: Uv,
    engine: Callable[[], ContainerEngine | None],
    report: Callable[[str], None],
) -> EngineLock:
    """The lock of ``requirements``, for which what has no wheel is built on ``base``; ``report`` gets the engine's log by lines.

    Raises what `lock_environment` raises, and EngineMissing, EngineFailed, SourceBuildFailed.
    """
    made: tuple[MadeWheel, ...] = ()
    workplace = _Workplace(python_version, normal_platform(platform), base, cache, uv, engine, report)
    tried: set[str] = set()
    while True:
        offered = workplace.offer(made)
        try:
            lock = lock_environment(requirements, python_version, platform, cache, offered, made=[one.digest for one in made])
            return EngineLock(lock, offered, _notes(made), made)
        except EnvironmentUnsolvable as problem:
            lacking = [name for name in _lacking(problem) if name not in tried]
            if not lacking or len(tried) > _ROUNDS_AT_MOST:
                raise
        tried |= set(lacking)
        made += workplace.make(lacking)


def _lacking(problem: EnvironmentUnsolvable) -> list[str]:
    lacking = problem.fields.get("lacking")
    return [str(name) for name in lacking] if isinstance(lacking, list) and problem.fields.get("kind") == "wheel" else []


def _notes(made: Sequence[MadeWheel]) -> tuple[str, ...]:
    if not made:
        return ()
    names = ", ".join(f"{wheel.name} {wheel.version}" for wheel in made)
    return (f"Built from source by a container engine, so another machine may make another image of the same request: {names}.",)


@dataclass(frozen=True)
class _Workplace:
    python_version: str
    platform: str
    base: BaseImage
    cache: LayerCache
    uv: Uv
    engine: Callable[[], ContainerEngine | None]
    report: Callable[[str], None]

    def offer(self, made: Sequence[MadeWheel]) -> Uv:
        """``uv`` with a folder in which the wheels stand under their names."""
        if not made:
            return self.uv
        folder = self.cache.scratch / f"made-{cache_key([one.digest for one in made])[-12:]}"
        try:
            folder.mkdir(exist_ok=True)
            for wheel in made:
                target = folder / wheel.file_name
                if not target.exists():
                    target.symlink_to(self.cache.blobs.path(wheel.digest).absolute())
        except OSError as problem:
            raise disk_error(problem, folder) from problem
        links = [link for link in (self.uv.environment.get("UV_FIND_LINKS"), str(folder.absolute())) if link]
        return replace(self.uv, environment={**self.uv.environment, "UV_FIND_LINKS": ",".join(links)})

    def make(self, requirements: list[str]) -> tuple[MadeWheel, ...]:
        """Wheels of ``requirements``, from the cache or built now."""
        key = cache_key("engine", _GENERATION, sorted(requirements), self.python_version, self.platform, self.base.digest)
        known = self.cache.find("engine", key, tuple[MadeWheel, ...])
        if known and all(self.cache.blobs.holds(wheel.digest) for wheel in known):
            return known
        packages = ", ".join(requirements)
        engine = self._engine_for(packages)
        index = plan_index(self.uv.environment)
        if index.certificates and not Path(index.certificates).is_file():
            index = replace(index, certificates=None)
        self.report(f"building {packages} from source in a container")
        try:
            site = self._built(engine, requirements, index)
            made = tuple(self._keep(site))
        except OSError as problem:
            raise disk_error(problem, self.cache.scratch) from problem
        if not made:
            raise SourceBuildFailed(packages=packages, problem="nothing was installed")
        self.cache.keep("engine", key, made)
        return made

    def _engine_for(self, packages: str) -> ContainerEngine:
        engine = self.engine()
        if engine is None:
            raise EngineMissing(what=f"building {packages} from source")
        for runs in (engine.platform(), this_platform() or "another platform"):
            if not Platform.parse(self.platform).suits(Platform.parse(runs)):
                raise EngineFailed(
                    what=f"build {packages} for {self.platform}", problem=f"packages are built where they run; here is {runs}"
                )
        return engine

    def _built(self, engine: ContainerEngine, requirements: list[str], index: IndexPlan) -> Path:
        token = secrets.token_hex(8)
        context = self.cache.scratch / f"context-{token}.tar"
        taken = self.cache.scratch / f"taken-{token}.tar"
        root = self.cache.scratch / f"taken-{token}"
        self._write_context(context, requirements, index, token)
        base, ours = self._base_in(engine)
        work = EngineWork(", ".join(requirements), context, base, MADE_FOLDER, f"{LABEL}={token}", index.network, index.proxies)
        try:
            with taken.open("wb") as file:
                for chunk in engine.build(work, self.report):
                    file.write(chunk)
        finally:
            context.unlink()
            if ours:
                engine.remove_image(base)
        root.mkdir()
        with taken.open("rb") as file:
            unpack_tar(file, root, name="what the engine built")
        taken.unlink()
        return root / MADE_FOLDER.strip("/")

    def _keep(self, site: Path) -> Iterable[MadeWheel]:
        for packed in pack_wheels(site):
            blob = self.cache.blobs.add([packed.content])
            yield MadeWheel(name=packed.name, version=packed.version, file_name=packed.file_name, digest=blob.digest)

    def _base_in(self, engine: ContainerEngine) -> tuple[str, bool]:
        """The base's id in the engine, and whether it was brought there now."""
        try:
            return engine.image_id(self.base.digest), False
        except BaseUnreadable:
            log.info("loading the base image %s into the engine", self.base.digest)
        layout = OciLayout(self.cache.scratch / f"base-{secrets.token_hex(4)}")
        config = layout.add_document(msgspec.json.encode(self.base.config), MEDIA_OCI_CONFIG)
        for layer in self.base.layers:
            layout.blobs.take(self.cache.blobs, layer.digest)
        manifest = layout.add_manifest(config, list(self.base.layers))
        loaded = engine.load(export_image(layout.blobs, manifest))
        return loaded.image_id, not loaded.was_there

    def _write_context(self, target: Path, requirements: list[str], index: IndexPlan, token: str) -> None:
        with tarfile.open(target, "w") as tar:
            for planned in plan_context(requirements, index, token):
                entry = tarfile.TarInfo(planned.path)
                entry.size, entry.mode = len(planned.content), 0o644
                tar.addfile(entry, io.BytesIO(planned.content))
            _add(tar, "uv", self.uv.program.resolve(), 0o755)
            if index.certificates:
                _add(tar, "certificates.pem", Path(index.certificates), 0o644)
            for folder in map(Path, index.folders):
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    if path.name.endswith(_ARCHIVES) and path.is_file():
                        _add(tar, f"links/{path.name}", path, 0o644)


def _add(tar: tarfile.TarFile, name: str, source: Path, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = source.stat().st_size, mode
    with source.open("rb") as file:
        tar.addfile(entry, file)
