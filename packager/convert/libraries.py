"""The libraries that a model is opened with: those it was trained with; ours where they are exactly those, else made by uv."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hedgerow.contracts.convert import ConvertRequest
from hedgerow.contracts.environment import EnvironmentLock
from hedgerow.errors import MissingExtra
from packager.cache.layers import LayerCache, cache_key
from packager.convert.formats import Kind
from packager.environment.lock import lock_environment, tidy_requirements
from packager.environment.package_names import name_of, normal_name
from packager.environment.platforms import this_platform
from packager.environment.uv_command import Uv
from packager.environment.wheels import install_locked
from packager.oci.blobs import disk_error

_SITES = "convert-sites"
# With PyTorch one of them has five gigabytes.
_SITES_KEPT, _IN_USE_S = 8, 86_400
_PACKAGES = {
    "sklearn": "scikit-learn",
    "scikit-learn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
    "pytorch": "torch",
}
# The same library under another name: without the CUDA libraries, which nothing here runs on.
_ALSO = {"xgboost": "xgboost-cpu", "sklearn": "scikit-learn"}
_CPU_XGBOOST_SINCE = "2.1"
_CHECKERS = ("onnx", "onnxruntime", "protobuf<7")
_CONVERTERS: dict[Kind, tuple[str, ...]] = {
    "onnx": (),
    "pickle": ("skl2onnx",),
    "xgboost": ("onnxmltools", "skl2onnx", "xgboost-cpu"),
    "lightgbm": ("onnxmltools", "skl2onnx", "lightgbm"),
    "torch": ("onnxscript", "torch"),
}
# Libraries of these generations and older were built for numpy 1 without saying so.
_NUMPY_1 = {
    "scikit-learn": "1.4.1",
    "xgboost": "2.0.3",
    "torch": "2.2.2",
    "lightgbm": "4.3.0",
    "scipy": "1.12.0",
    "pandas": "2.2.1",
}
# In lists of what a model was trained with, never in a pickle.
_NOT_IN_PICKLES = ("mlflow", "mlflow-skinny", "azureml", "inference-schema")
_OWN_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "skl2onnx",
    "onnxmltools",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "torch",
    "onnxscript",
)


@dataclass(frozen=True)
class Libraries:
    """``site`` None: those of this interpreter. ``key`` stands for their exact versions; ``note`` is for a person, or empty."""

    python: Path
    site: Path | None
    key: str
    note: str = ""


def choose_libraries(request: ConvertRequest, kind: Kind, cache: LayerCache, uv: Callable[[Path], Uv]) -> Libraries:
    """Raises RequirementRefused, EnvironmentUnsolvable, IndexUnreachable, MissingExtra, DiskFull."""
    wanted = _wanted(request, kind)
    if satisfied_here(wanted, kind):
        own = {name: version for name in _OWN_PACKAGES if (version := _installed(name)) is not None}
        return Libraries(Path(sys.executable), None, cache_key("own", sys.version_info[:2], own))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = Path(sys.executable) if request.python_version == here else _other_python(request.python_version)
    note = ""
    if python is None:
        note = f"It was opened with Python {here}: there is no Python {request.python_version} on this machine."
    version = request.python_version if python is not None else here
    lock = lock_environment(_complete(wanted, kind), version, _this_platform(), cache, uv(cache.folder))
    site = _install(lock, cache, uv)
    return Libraries(python or Path(sys.executable), site, lock.digest, note)


def satisfied_here(wanted: Iterable[str], kind: Kind) -> bool:
    """Whether this interpreter has the converters and exactly what was asked for."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in (*wanted, *_CONVERTERS[kind]):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return False
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            return False
    return True


def _wanted(request: ConvertRequest, kind: Kind) -> list[str]:
    """What the request says that it was trained with. Formats that any version reads need no version."""
    if kind == "onnx":
        return []
    asked = [line for line in tidy_requirements(request.requirements) if name_of(line) not in _NOT_IN_PICKLES]
    package = _PACKAGES.get(request.framework.lower())
    if package and request.framework_version and package not in {name_of(line) for line in asked}:
        asked.append(f"{package}=={request.framework_version}")
    if kind in ("xgboost", "lightgbm"):
        return [] if satisfied_here([], kind) else asked
    return sorted(asked)


def _complete(wanted: list[str], kind: Kind) -> list[str]:
    """With the converters, and with what old libraries forgot to say."""
    names = {name_of(line) for line in wanted}
    lines = [_for_cpu(line) for line in wanted]
    lines += [name for name in (*_CONVERTERS[kind], *_CHECKERS) if name_of(name) not in names and _plain(name) not in names]
    if kind == "pickle" and names & {"xgboost", "xgboost-cpu", "lightgbm"}:
        lines.append("onnxmltools")
    if "numpy" not in names and any(_is_old(line) for line in wanted):
        lines.append("numpy<2")
    return lines


def drop_old_libraries(cache: LayerCache, now: datetime) -> None:
    """All but those used last. What was used within a day stays: another conversion may be running on it."""
    sites = sorted((cache.folder / _SITES).glob("*"), key=lambda site: site.stat().st_mtime, reverse=True)
    for site in sites[_SITES_KEPT:]:
        if now.timestamp() - site.stat().st_mtime > _IN_USE_S:
            # In one step out of everybody's sight; it goes with the scratch folder.
            site.rename(cache.scratch / f"old-{site.name}")


def _install(lock: EnvironmentLock, cache: LayerCache, uv: Callable[[Path], Uv]) -> Path:
    """The folder with the locked wheels, made once for each lock."""
    target = cache.folder / _SITES / lock.digest.removeprefix("sha256:")
    if target.is_dir():
        os.utime(target)
        return target
    site = cache.scratch / "convert-site"
    install_locked(lock, site, cache, uv(cache.folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        site.chmod(0o755)
        if not target.exists():
            os.rename(site, target)  # noqa: PTH104 - whole or not there; who loses a race keeps the other's
    except OSError as problem:
        if target.is_dir():
            return target
        raise disk_error(problem, target) from problem
    return target


def _this_platform() -> str:
    here = this_platform()
    if here is None:
        what = f"Converting on {sys.platform} {platform.machine()}"
        raise MissingExtra(what=what, module="the model's own versions", extra="convert")
    return here


def _other_python(version: str) -> Path | None:
    found = shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin")
    return Path(found) if found else None


def _installed(name: str) -> str | None:
    for one in (name, _ALSO.get(normal_name(name))):
        if one is None:
            continue
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _for_cpu(line: str) -> str:
    if not line.startswith("xgboost==") or platform.machine() != "x86_64":
        return line
    version = line.removeprefix("xgboost==")
    return line if _numbers(version) < _numbers(_CPU_XGBOOST_SINCE) else f"xgboost-cpu=={version}"


def _is_old(line: str) -> bool:
    name, exact, version = line.partition("==")
    return bool(exact) and name in _NUMPY_1 and _numbers(version) <= _numbers(_NUMPY_1[name])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _plain(name: str) -> str:
    return name.removesuffix("-cpu")
