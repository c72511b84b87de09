"""Images: build them from models, look at them, delete them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hedgerow.contracts.api import BuildImage, ChangeImage, Page
from hedgerow.contracts.image import ImageKind, ImageRecord
from hedgerow.contracts.work import Activity
from hedgerow.sdk import files
from hedgerow.sdk.addresses import address
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.filters import label_filters
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Query, Transport

_PATH = "/api/v1/images"


class Images:
    """``client.images``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(
        self,
        name: str,
        models: Sequence[str],
        *,
        kind: ImageKind = "onnx",
        script: str | None = None,
        source: str | Path | None = None,
        environment: str | None = None,
        platforms: Sequence[str] = ("linux/amd64",),
        base: str | None = None,
        verify: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> Activity:
        """Start a build; wait with ``client.activities.wait``. Its result holds ``image`` (``name:version``) and ``digest``.

        ``script`` is relative to ``source``, a folder that is uploaded with it.
        """
        found = files.collect([Path(source)]) if source is not None else []
        upload_missing(self._transport, found)
        request = BuildImage(
            name=name,
            kind=kind,
            models=list(models),
            script=script,
            source=[file.entry for file in found],
            environment=environment,
            platforms=list(platforms),
            base=base,
            verify=verify,
            tags=dict(tags or {}),
        )
        return self._transport.call("POST", _PATH, Activity, body=request)

    def get(self, reference: str) -> ImageRecord:
        return self._transport.call("GET", address(_PATH, reference), ImageRecord)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        name: str | None = None,
        kind: ImageKind | None = None,
        model: str | None = None,
        digest: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Page[ImageRecord]:
        """Newest first. ``name`` may end with a star; ``model`` is a reference: with a name alone, any version of it.

        ``tags`` must all be there, None stands for any value.
        """
        narrowed = {"name": name, "kind": kind, "model": model, "digest": digest, "tag": label_filters(tags)}
        query: Query = {"limit": limit, "after": after, **narrowed}
        return self._transport.call("GET", _PATH, Page[ImageRecord], query=query)

    def iterate(
        self,
        *,
        name: str | None = None,
        kind: ImageKind | None = None,
        model: str | None = None,
        digest: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Iterator[ImageRecord]:
        """Every version that fits, newest first, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name, kind=kind, model=model, digest=digest, tags=tags))

    def change_tags(self, reference: str, tags: Mapping[str, str | None]) -> ImageRecord:
        """Set tags; those with the value None are taken away."""
        return self._transport.call("PATCH", address(_PATH, reference), ImageRecord, body=ChangeImage(tags=dict(tags)))

    def delete(self, reference: str, *, force: bool = False) -> None:
        """Refused (``in_use``) while a deployment, a device or an edge deployment uses it, unless an owner forces it."""
        self._transport.delete(address(_PATH, reference), query={"force": True} if force else None)
