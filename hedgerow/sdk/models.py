"""Models: register, list, show, download, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hedgerow.contracts.api import Page, RegisterModel
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.work import Run
from hedgerow.sdk import files
from hedgerow.sdk.addresses import address, file_address
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.errors import NothingToRegister
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/models"


class Models:
    """``client.models``. References are ``name``, ``name:version`` or ``name@sha256:…``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(
        self,
        name: str,
        *paths: str | Path,
        framework: str = "custom",
        framework_version: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> ModelManifest:
        """Upload files and folders as one new version of ``name``; content that is there already is not sent again."""
        found = files.collect(Path(path) for path in paths)
        upload_missing(self._transport, found)
        request = RegisterModel(
            name=name,
            files=[file.entry for file in found],
            framework=framework,
            framework_version=framework_version,
            description=description,
            tags=dict(tags or {}),
            properties=dict(properties or {}),
            run_id=run_id,
        )
        return self._transport.call("POST", _PATH, ModelManifest, body=request)

    def register_outputs(
        self,
        name: str,
        run: Run,
        path: str = "",
        *,
        framework: str = "custom",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelManifest:
        """Register what ``run`` left in its outputs (below ``path``, when given); nothing is sent, the content is there.

        Raises NothingToRegister when the run left no file there.
        """
        head = f"{path.strip('/')}/" if path.strip("/") else ""
        entries = [
            msgspec.structs.replace(entry, path=entry.path.removeprefix(head) or entry.path)
            for entry in run.outputs
            if entry.path.startswith(head)
        ]
        if not entries:
            raise NothingToRegister(path=f"outputs/{path} of run {run.id}")
        request = RegisterModel(
            name=name, files=entries, framework=framework, description=description, tags=dict(tags or {}), run_id=run.id
        )
        return self._transport.call("POST", _PATH, ModelManifest, body=request)

    def get(self, reference: str) -> ModelManifest:
        return self._transport.call("GET", address(_PATH, reference), ModelManifest)

    def list(self, name: str | None = None, limit: int = 50, after: str | None = None) -> Page[ModelManifest]:
        """Newest first."""
        query = {"name": name, "limit": limit, "after": after}
        return self._transport.call("GET", _PATH, Page[ModelManifest], query=query)

    def download(self, reference: str, folder: str | Path) -> Sequence[Path]:
        """Write the model's files below ``folder``; each is verified and whole, or not there."""
        manifest = self.get(reference)
        root = address(_PATH, f"{manifest.name}:{manifest.version}", "files")
        return [
            files.save(self._transport.download(file_address(root, entry.path)), entry, Path(folder)) for entry in manifest.files
        ]

    def delete(self, reference: str) -> None:
        """Refused (``in_use``) while an image is made of it; the version number is never used again."""
        self._transport.delete(address(_PATH, reference))
