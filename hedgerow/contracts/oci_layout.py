"""The fixed parts of an OCI image layout, and of the tar of one that `docker load` takes as well. Packager and SDK write them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# The content of its file `oci-layout`.
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def blob_path(digest: str) -> str:
    """Where a blob stands in a layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def docker_manifest(config: str, layers: Iterable[str], tag: str | None) -> bytes:
    """The `manifest.json` that Docker's classic image store wants; ``config`` and ``layers`` are digests.

    ``tag`` (`name:version`) is what the image will be called.
    """
    entry = {
        "Config": blob_path(config),
        "RepoTags": [tag] if tag else None,
        "Layers": [blob_path(layer) for layer in layers],
    }
    return msgspec.json.encode([entry], order="sorted")
