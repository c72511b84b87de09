"""Requests about images below ``/api/v1/images``, shared by server and SDK; ``api.py`` has the others."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hedgerow.contracts.api import LabelKey, Labels, LabelValue
from hedgerow.contracts.build import Compression
from hedgerow.contracts.image import ImageKind, StageName
from hedgerow.contracts.model import FileEntry, RelativePath
from hedgerow.contracts.names import Name


class BuildImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /images``, answers an Activity of kind ``image.build``. ``source`` are files of the scoring source folder.

    The fields that a BuildRequest has too mean the same there (``contracts/build.py``). ``stages`` (kind fpga only) says of
    each of ``models``, in the same order, which stage it is.
    """

    name: Name
    kind: ImageKind = "onnx"
    models: Annotated[list[str], msgspec.Meta(min_length=1)]
    stages: list[StageName] = []
    script: RelativePath | None = None
    source: list[FileEntry] = []
    environment: str | None = None
    platforms: list[str] = msgspec.field(default_factory=lambda: ["linux/amd64"])
    base: str | None = None
    bases: dict[str, str] = {}
    compression: Compression = "gzip"
    dockerfile: bool = False
    allowed_secrets: list[RelativePath] = []
    verify: bool = True
    rebuild: bool = False
    upgrade: bool = False
    tags: Labels = {}


class PushImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /images/REF/push``, answers an Activity of kind ``image.push``.

    ``target`` is ``HOST[:PORT]/NAME:TAG`` (with ``http://`` in front where the registry has no TLS). Who we are there:
    ``secret`` names a secret with the password (``username`` given) or with ``USER:PASSWORD``; or ``username`` and
    ``password``, which are sealed as secrets are. ``mount_from`` are repositories there that may have some of the content.
    """

    target: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    username: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)] | None = None
    secret: Name | None = None
    mount_from: Annotated[list[Annotated[str, msgspec.Meta(max_length=255)]], msgspec.Meta(max_length=20)] = []
    referrers: bool = True

    def __repr__(self) -> str:
        # Whatever shows a value of ours by mistake (a log, a traceback) shows no password.
        return f"PushImage(target={self.target!r})"


class ChangeImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /images/REF``. A tag with the value None is taken away."""

    tags: dict[LabelKey, LabelValue | None]
