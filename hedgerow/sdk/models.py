"""Models: register, find, read, change, alias, download, delete."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import msgspec

from hedgerow.contracts.api import ChangeModel, ConvertModel, ModelAlias, Page, RegisterModel, SetAlias
from hedgerow.contracts.convert import Quantize
from hedgerow.contracts.document import convert
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.work import Activity, Run
from hedgerow.sdk import files
from hedgerow.sdk.addresses import address, file_address
from hedgerow.sdk.blobs import Progress, upload_missing
from hedgerow.sdk.downloads import Wanted, download_all
from hedgerow.sdk.errors import ApiError, NoSuchFile, NothingToRegister
from hedgerow.sdk.files import LocalFile
from hedgerow.sdk.model_facts import ModelFacts, ModelFilters, narrowed, registration
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.secret_search import secrets_among
from hedgerow.sdk.transport import Query, Transport

_PATH = "/api/v1/models"
# Models of this size or less travel inside their registration: one request instead of three.
_INLINE_BYTES = 256 * 1024


class Models:
    """``client.models``. References are ``name`` (newest), ``name:version``, ``name@alias`` or ``name@sha256:…``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(
        self,
        name: str,
        *paths: str | Path,
        sample_input: str | Path | None = None,
        run_id: str | None = None,
        progress: Progress | None = None,
        on_secret: Callable[[str, str], None] | None = None,
        **facts: Unpack[ModelFacts],
    ) -> ModelManifest:
        """Files and folders as one new version of ``name``; content that is there already is not sent again.

        The version is there whole or not at all. ``sample_input`` is a file with an input that the model takes, ``run_id``
        the run that made it; ``progress`` is called with bytes sent and bytes in all, ``on_secret`` before anything is sent
        with the path of each file that looks like a secret, and what speaks against it: no image is built with such a file.

        >>> _ = Path("model.onnx").write_bytes(b"weights")
        >>> model = client.models.register("churn", "model.onnx", framework="onnx", tags={"owner": "ann"})
        >>> model.name, model.version, [file.path for file in model.files]
        ('churn', 1, ['model.onnx'])

        Raises NothingToRegister, FileNamesCollide, NotARegularFile, FileChanged, OSError (missing, unreadable), and ApiError:
        ``alias_protected``, ``not_found`` (the run), ``mlmodel_invalid``, ``too_many_labels``.
        """
        if not paths:
            raise NothingToRegister(path="An empty list of paths")
        found = files.collect(Path(path) for path in paths)
        if on_secret is not None:
            for file, what in secrets_among(found):
                on_secret(file.entry.path, what)
        sample = files.collect([Path(sample_input)]) if sample_input is not None else []
        request = registration(
            name, [file.entry for file in found], run_id, facts, sample=sample[0].entry if sample else None, where=Path(paths[0])
        )
        return self._send([*found, *sample], request, progress)

    def register_outputs(self, name: str, run: Run, path: str = "", **facts: Unpack[ModelFacts]) -> ModelManifest:
        """Register what ``run`` left in its outputs (below ``path``, when given); nothing is sent, the content is there.

        Its code and data are those of the run. Raises NothingToRegister when the run left no file there, ApiError as above.
        """
        head = f"{path.strip('/')}/" if path.strip("/") else ""
        entries = [
            msgspec.structs.replace(entry, path=entry.path.removeprefix(head) or entry.path)
            for entry in run.outputs
            if entry.path.startswith(head)
        ]
        if not entries:
            raise NothingToRegister(path=f"outputs/{path} of run {run.id}")
        return self._register(registration(name, entries, run.id, facts))

    def get(self, reference: str) -> ModelManifest:
        """One version.

        >>> _ = Path("pump.onnx").write_bytes(b"weights")
        >>> _ = client.models.register("pump", "pump.onnx", aliases=["champion"])
        >>> client.models.get("pump@champion").version
        1

        Raises ApiError: ``not_found``, ``record_deleted`` (an owner deleted it although it was used).
        """
        return self._transport.call("GET", address(_PATH, reference), ModelManifest)

    def list(
        self, name: str | None = None, limit: int = PAGE_ITEMS, after: str | None = None, **filters: Unpack[ModelFilters]
    ) -> Page[ModelManifest]:
        """At most ``limit`` (1 to 1000) versions, newest first; ``after`` is the ``next`` of the page before.

        ``name`` with a star at its end stands for all names that begin so.

        >>> _ = Path("fan.onnx").write_bytes(b"weights")
        >>> _ = client.models.register("fan", "fan.onnx", tags={"site": "north"}, description="Vibration of fans")
        >>> [f"{m.name}:{m.version}" for m in client.models.list(tags={"site": "north"}, search="vibr*").items]
        ['fan:1']
        """
        query: Query = {"name": name, "limit": limit, "after": after, **narrowed(filters)}
        return self._transport.call("GET", _PATH, Page[ModelManifest], query=query)

    def iterate(self, name: str | None = None, **filters: Unpack[ModelFilters]) -> Iterator[ModelManifest]:
        """Every version that fits, newest first, read page by page; what is registered meanwhile moves nothing.

        >>> _ = Path("valve.onnx").write_bytes(b"weights")
        >>> for _ in range(3): _ = client.models.register("valve", "valve.onnx")
        >>> [model.version for model in client.models.iterate("valve")]
        [3, 2, 1]
        """
        return walk(lambda after: self.list(name, WALK_ITEMS, after, **filters))

    def update(
        self,
        reference: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        remove_tags: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        revision: int | None = None,
    ) -> ModelManifest:
        """Set and take away tags, add properties, replace the description; the rest of a version never changes.

        A tag with the value None is taken away, as are those of ``remove_tags``.

        With ``revision`` (that of the manifest which the caller saw) only if nobody changed the record since.

        >>> _ = Path("door.onnx").write_bytes(b"weights")
        >>> door = client.models.register("door", "door.onnx", tags={"stage": "test"})
        >>> client.models.update("door:1", tags={"stage": "prod"}, revision=door.revision).tags
        {'stage': 'prod'}

        Raises ApiError: ``property_fixed`` (it has another value already), ``precondition_failed`` (another revision).
        """
        changes: dict[str, str | None] = {**(tags or {}), **dict.fromkeys(remove_tags)}
        body = {"tags": changes, "properties": dict(properties or {}), "description": description}
        if_match = None if revision is None else str(revision)
        where = address(_PATH, reference)
        return self._transport.call("PATCH", where, ModelManifest, body=convert(body, ChangeModel), if_match=if_match)

    def aliases(self, name: str) -> Sequence[ModelAlias]:
        """All aliases of a model, in order; ``latest`` (always the newest version) is none of them."""
        where = address(_PATH, name, "aliases")
        return [
            *walk(lambda after: self._transport.call("GET", where, Page[ModelAlias], query={"limit": WALK_ITEMS, "after": after}))
        ]

    def set_alias(self, name: str, alias: str, version: int, *, protected: bool | None = None) -> ModelAlias:
        """Put ``alias`` on a version, or move it there. A protected one only an owner moves, unprotects or removes.

        ``protected`` None leaves that as it is.

        >>> _ = Path("lift.onnx").write_bytes(b"weights")
        >>> _ = client.models.register("lift", "lift.onnx")
        >>> client.models.set_alias("lift", "champion", 1, protected=True).protected
        True
        >>> client.models.get("lift").aliases
        ['champion']

        Raises ApiError: ``alias_protected``, ``alias_reserved`` (``latest``, a number), ``not_found``.
        """
        body = convert({"version": version, "protected": protected}, SetAlias)
        return self._transport.call("PUT", address(_PATH, name, "aliases", alias), ModelAlias, body=body)

    def delete_alias(self, name: str, alias: str) -> None:
        """The version that it named stays. Raises ApiError: ``not_found``, ``alias_protected``."""
        self._transport.delete(address(_PATH, name, "aliases", alias))

    def download(
        self,
        reference: str,
        folder: str | Path,
        *,
        files: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Sequence[Path]:
        """Write the model's files below ``folder``; each is verified and whole, or not there.

        ``files``: only these, by their paths in the model. Several at once, large ones in parallel parts; what an
        interrupted call has of a large one is used by the next. ``progress`` is called with bytes done and bytes in all.

        >>> Path("saved").mkdir(); _ = Path("saved/a.onnx").write_bytes(b"weights"); _ = Path("saved/notes.txt").write_text("-")
        >>> _ = client.models.register("parts", "saved")
        >>> [path.as_posix() for path in client.models.download("parts:1", "out", files=["a.onnx"])]
        ['out/a.onnx']

        Raises NoSuchFile, DownloadDamaged, NotARegularFile, OSError.
        """
        manifest = self.get(reference)
        root = address(_PATH, f"{manifest.name}:{manifest.version}", "files")
        wanted = [Wanted(file_address(root, entry.path), entry) for entry in _chosen(manifest, files)]
        return download_all(self._transport, wanted, Path(folder), progress)

    def download_sample_input(self, reference: str, folder: str | Path) -> Path | None:
        """Write the model's sample input into ``folder``, verified; None when it has none."""
        manifest = self.get(reference)
        if manifest.sample_input is None:
            return None
        where = address(_PATH, f"{manifest.name}:{manifest.version}", "sample-input")
        return download_all(self._transport, [Wanted(where, manifest.sample_input)], Path(folder))[0]

    def convert(
        self,
        reference: str,
        *,
        name: str | None = None,
        entry: str | None = None,
        quantize: Quantize = "none",
        opset: int | None = None,
        accuracy_loss_max: float = 0.01,
        atol: float = 1e-4,
        rtol: float = 1e-3,
        tags: Mapping[str, str] | None = None,
    ) -> Activity:
        """Have the model converted to ONNX, checked against the original, and registered as ``name`` (default: NAME-onnx).

        Wait with ``client.activities.wait``; its result holds ``model`` (``name:version``), ``digest`` and ``reused``: an equal
        conversion is not made again. What was measured stands in the properties of the new version.

        ``entry`` is the file to open when several fit. ``accuracy_loss_max``: what ``quantize`` may cost (share of rows whose
        label changes, or relative error). Refused when the converter differs by more than ``atol``/``rtol``.
        """
        request = {"name": name, "entry": entry, "quantize": quantize, "opset": opset, "accuracy_loss_max": accuracy_loss_max}
        body = convert({**request, "atol": atol, "rtol": rtol, "tags": dict(tags or {})}, ConvertModel)
        return self._transport.call("POST", address(_PATH, reference, "convert"), Activity, body=body)

    def delete(self, reference: str, *, force: bool = False) -> None:
        """Take a version away; its number is never used again.

        Refused (``in_use``, with the list) while an image is made of it, an alias names it or a build is to take it in.
        ``force`` does it all the same, for an owner: lineage still shows the version, its files are freed.
        """
        self._transport.delete(address(_PATH, reference), query={"force": "true"} if force else None)

    def _send(self, found: Sequence[LocalFile], request: RegisterModel, progress: Progress | None) -> ModelManifest:
        if sum(file.entry.size_bytes for file in found) <= _INLINE_BYTES:
            inline = {file.entry.digest: b"".join(files.read_again(file)) for file in found}
            return self._register(msgspec.structs.replace(request, inline=inline))
        upload_missing(self._transport, found, progress)
        try:
            return self._register(request)
        except ApiError as problem:
            if problem.problem.code != "blob_missing":
                raise
        # Between upload and registration lay longer than content is kept that nothing refers to.
        upload_missing(self._transport, found, progress)
        return self._register(request)

    def _register(self, request: RegisterModel) -> ModelManifest:
        return self._transport.call("POST", _PATH, ModelManifest, body=request)


def _chosen(manifest: ModelManifest, paths: Sequence[str] | None) -> Sequence[FileEntry]:
    """Raises NoSuchFile."""
    if paths is None:
        return manifest.files
    there = {entry.path: entry for entry in manifest.files}
    for path in paths:
        if path not in there:
            close = difflib.get_close_matches(path, there, n=1)
            hint = f"Did you mean {close[0]}?" if close else "See its files: hedgerow model show"
            raise NoSuchFile(model=f"{manifest.name}:{manifest.version}", path=path[:200], hint=hint)
    return [there[path] for path in dict.fromkeys(paths)]
