"""Makes an image ready to be served on this machine without a container engine: found, chosen, checked, unpacked once.

    NAME[:VERSION] | layout.tar | layout folder  →  the manifest for this machine  →  CACHE/sha256-…/  →  how to start it

A folder that holds hedgerow.json is served where it is. Of a docker image only Hedgerow's own layers are unpacked: they bring
the scoring server and every library, and a Python of this machine stands in the place of the base, as in the test of a build
(packager/verify/entry_point.py).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hedgerow.contracts.image import SCORING_CONFIG_FILE
from hedgerow.contracts.names import CONTAINER_CONFIG_TYPES, INDEX_TYPES, MEDIA_MODEL_MANIFEST, Reference
from hedgerow.contracts.oci import Descriptor, ImageConfig, ImageDocument, read_foreign_json, read_image_document
from hedgerow.contracts.platforms import of_machine
from hedgerow.errors import InvalidName, InvalidReference
from hedgerow.safe_tar import UnsafeArchive, unpack_tar
from hedgerow.sdk.client import Client
from hedgerow.sdk.image_cache import ImageCache
from hedgerow.sdk.image_sources import (
    INDEX_FILE,
    ImageSource,
    LayoutFolder,
    LayoutTar,
    RecordedImage,
    read_document,
    refused,
)
from hedgerow.sdk.image_tar import contents_of

# How the entry point of an image of ours begins; the folder that it serves comes next (packager/image_config.py).
_ENTRY_POINT = ["python3", "-P", "-m", "runtime", "--image"]
_OWN_LAYER = "hedgerow: "
# What an image's environment says about code and libraries; PATH and HOME are this machine's own.
_OF_THE_IMAGE = ("ORT_DISABLE_TELEMETRY", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_FILE_NAMES = (".tar", ".tgz", ".tar.gz", ".tar.zst")
_DOCUMENTS_MAX = 1000
_TAG = re.compile(r"^Tag: cp3([0-9]{1,2})-cp3\1-", re.MULTILINE)
_ENGINE = "Serve it in a container engine (hedgerow image load), or on a machine of that platform."


@dataclass(frozen=True)
class ServedImage:
    """``folder`` holds hedgerow.json. ``python`` None: the runtime that is installed here serves it.

    Otherwise ``python`` does, with ``environment`` and without its own site-packages. ``batchable`` are models that were
    measured when the image was built.
    """

    folder: Path
    python: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    batchable: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Chosen:
    """The manifest for this machine. ``config`` is a docker image's; None for an artifact, which suits every machine."""

    digest: str
    layers: list[Descriptor]
    config: dict[str, Any] | None


def ready_image(what: str, cache: Path, connect: Callable[[], contextlib.AbstractContextManager[Client]]) -> ServedImage:
    """Find ``what`` and unpack it into ``cache`` unless it is there; ``connect`` is called for an image of the workspace.

    Raises ImageNotServable, ApiError, ServerUnreachable, DownloadDamaged, OSError (full disk).
    """
    place = Path(what)
    if (place / SCORING_CONFIG_FILE).is_file():
        return ServedImage(place)
    kept = ImageCache(cache)
    with ExitStack() as stack:
        source = _open(what, place, kept, connect, stack)
        chosen = _choose(source)
        root = kept.unpacked(source, chosen.digest, chosen.layers)
    known = source.record.verification if isinstance(source, RecordedImage) else None
    batchable = tuple(known.batchable) if known is not None else ()
    if chosen.config is None:
        return ServedImage(_image_folder(root, root, source), batchable=batchable)
    folder, environment = _places(chosen.config, root)
    python = _python_for(environment.get("PYTHONPATH", ""), source)
    return ServedImage(_image_folder(folder, root, source), python, environment, batchable)


def _open(
    what: str, place: Path, cache: ImageCache, connect: Callable[[], contextlib.AbstractContextManager[Client]], stack: ExitStack
) -> ImageSource:
    if place.is_dir():
        if not (place / INDEX_FILE).is_file():
            raise refused(what, f"the folder has neither {SCORING_CONFIG_FILE} nor {INDEX_FILE} (an OCI layout)")
        return LayoutFolder(place, what)
    if place.is_file():
        return _open_tar(stack.enter_context(place.open("rb")), what, cache, stack)
    _expect_reference(what)
    client = stack.enter_context(connect())
    record = client.images.get(what)
    return RecordedImage(client.transport, record, contents_of(client.transport, record))


def _expect_reference(what: str) -> None:
    try:
        if not what.endswith(_FILE_NAMES):  # a name could end like that, but whoever writes it means a file
            Reference.parse(what)
            return
    except (InvalidName, InvalidReference):
        pass
    raise refused(what, "there is no such file or folder, and an image of the workspace is NAME or NAME:VERSION")


def _open_tar(file: IO[bytes], what: str, cache: ImageCache, stack: ExitStack) -> ImageSource:
    """A packed tar cannot be read from the middle: it is unpacked for the time being."""
    head = file.read(4)
    file.seek(0)
    if not head.startswith(_PACKED):
        return LayoutTar(file, what)
    folder = stack.enter_context(cache.for_the_time_being())
    try:
        unpack_tar(file, folder, name=what)
    except UnsafeArchive as problem:
        raise refused(what, str(problem), problem.remedy) from problem
    return LayoutFolder(folder, what)


def _choose(source: ImageSource) -> _Chosen:
    """The one image of ``source``, for this machine. Raises ImageNotServable."""
    here, others, entered = _this_machine(), list[str](), set[str]()
    tops = [found for top in source.tops() if (found := _images(source, top, entered))]
    if len(tops) > 1:
        raise refused(source.where, f"it holds {len(tops)} images", "Give a layout of one image.")
    for descriptor, document in tops[0] if tops else []:
        if document.artifact_type == MEDIA_MODEL_MANIFEST:
            return _Chosen(descriptor.digest, document.layers or [], None)
        if document.config is None or document.config.media_type not in CONTAINER_CONFIG_TYPES:
            continue
        config = _config(source, document.config)
        if f"{config.platform}/".startswith(f"{here}/"):
            return _Chosen(descriptor.digest, _own_layers(source, document, config), config.config or {})
        others.append(str(config.platform))
    if others:
        raise refused(source.where, f"it is for {', '.join(others)}, and this machine is {here}", _ENGINE)
    raise refused(source.where, "it holds no image that Hedgerow built")


def _this_machine() -> str:
    machine = platform.machine()
    return (of_machine(machine) or f"linux/{machine}") if sys.platform == "linux" else sys.platform


def _images(source: ImageSource, top: Descriptor, entered: set[str]) -> list[tuple[Descriptor, ImageDocument]]:
    """The manifests below ``top`` that are not in ``entered``, and enters them; one that lies beside another is no image."""
    pending, found = [top], []
    while pending:
        one = pending.pop(0)
        if one.digest in entered:
            continue
        entered.add(one.digest)
        if len(entered) > _DOCUMENTS_MAX:
            raise refused(source.where, f"it has more than {_DOCUMENTS_MAX} manifests")
        try:
            document = read_image_document(read_document(source, one))
        except ValueError as problem:
            raise refused(source.where, f"its manifest {one.digest} cannot be read ({problem})") from None
        if one.media_type in INDEX_TYPES:
            pending[:0] = document.manifests or []
        elif document.subject is None:
            found.append((one, document))
    return found


def _config(source: ImageSource, blob: Descriptor) -> ImageConfig:
    try:
        data = read_document(source, blob)
        # No path and no variable can hold one.
        if b"\\u0000" in data:
            raise ValueError("a NUL character")
        return read_foreign_json(data, ImageConfig)
    except ValueError as problem:
        raise refused(source.where, f"its configuration cannot be read ({problem})") from None


def _own_layers(source: ImageSource, document: ImageDocument, config: ImageConfig) -> list[Descriptor]:
    """The layers that Hedgerow put above the base, as the image's history tells. Raises ImageNotServable."""
    words = (config.config or {}).get("Entrypoint")
    if not isinstance(words, list) or words[: len(_ENTRY_POINT)] != _ENTRY_POINT or len(words) <= len(_ENTRY_POINT):
        entry = f"its entry point is {words}" if words else "it has no entry point"
        raise refused(source.where, f"it is no image that Hedgerow built ({entry})")
    made = [line.created_by for line in config.history or [] if not line.empty_layer]
    layers = document.layers or []
    own = [layer for layer, by in zip(layers, made, strict=False) if by.startswith(_OWN_LAYER)]
    if len(made) != len(layers) or not own:
        raise refused(source.where, "its history does not say which layers Hedgerow made", _ENGINE)
    return own


def _places(config: Mapping[str, Any], root: Path) -> tuple[Path, dict[str, str]]:
    """The folder to serve, and the image's environment, with paths of the image below ``root``."""
    lines = config.get("Env")
    given = dict(str(line).partition("=")[::2] for line in lines) if isinstance(lines, list) else {}
    environment = {name: given[name] for name in _OF_THE_IMAGE if name in given}
    folders = [_below(root, folder) for folder in environment.get("PYTHONPATH", "").split(":") if folder.startswith("/")]
    environment["PYTHONPATH"] = ":".join(str(folder) for folder in folders if _is_folder(folder))
    return _below(root, str(config["Entrypoint"][len(_ENTRY_POINT)])), environment


def _below(root: Path, path: str) -> Path:
    """``path`` of the image; ``..`` counts from its root."""
    return root / os.path.normpath(f"/{path}").lstrip("/")


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long
        return path.is_dir()
    return False


def _image_folder(folder: Path, root: Path, source: ImageSource) -> Path:
    # RuntimeError is how resolve() says that links lead in a circle.
    with contextlib.suppress(OSError, RuntimeError):
        real = folder.resolve(strict=True)
        if real.is_relative_to(root.resolve()) and (folder / SCORING_CONFIG_FILE).is_file():
            return folder
    raise refused(source.where, f"there is no {SCORING_CONFIG_FILE} in it, so it is no image that Hedgerow built")


def _python_for(path: str, source: ImageSource) -> Path:
    """An interpreter for the compiled libraries below ``path``. Raises ImageNotServable."""
    ours = f"3.{sys.version_info.minor}"
    minors = {minor for folder in path.split(":") if folder for minor in _minors(Path(folder))}
    wanted = f"3.{max(minors, key=int)}" if minors else ours
    if wanted == ours:
        return Path(sys.executable)
    found = shutil.which(f"python{wanted}")
    if found is None:
        problem = f"its libraries are for Python {wanted}, this is {ours}, and there is no python{wanted} on the PATH"
        raise refused(source.where, problem, "Install that Python, or serve it in a container engine (hedgerow image load).")
    return Path(found)


def _minors(site: Path) -> Iterator[str]:
    for tags in site.glob("*.dist-info/WHEEL"):
        with contextlib.suppress(OSError), tags.open(encoding="utf-8", errors="replace") as file:
            yield from _TAG.findall(file.read(10_000))
