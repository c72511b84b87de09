"""Images of somebody else's registry in edge deployments: `mcr.microsoft.com/team/app:1.4`, and the pin that a device gets. Pure.

An image of this workspace has no slash in its reference; everything with one names a registry, Docker Hub's short names
(`team/app`) too.
"""

from __future__ import annotations

from hedgerow.contracts.iot_edge.names import our_name
from hedgerow.contracts.remote_image import DOCKER_HUB, RemoteImage
from hedgerow.contracts.service import ImagePin

# As Docker names its hub; where that answers requests is another name.
_HUB = "docker.io"


def is_foreign(reference: str) -> bool:
    """Whether ``reference`` is no image of this workspace."""
    return "/" in reference


def written_out(image: RemoteImage) -> str:
    """As Docker takes it: `HOST/NAME:TAG`, with `@DIGEST` behind it if that is known."""
    host = _HUB if image.host == DOCKER_HUB else image.host
    return f"{host}/{image.repository}:{image.tag}" + (f"@{image.digest}" if image.digest else "")


def pin_of(reference: str) -> ImagePin | None:
    """The pin of a foreign reference; None as long as it has no digest. Raises RemoteReferenceInvalid."""
    image = RemoteImage.parse(reference)
    if image.digest is None:
        return None
    name = our_name(image.repository.rpartition("/")[2]) or "image"
    where = written_out(image).partition("@")[0]
    return ImagePin(name=name, version=1, digest=image.digest, kind="docker", reference=where)


def pull_reference(pin: ImagePin) -> tuple[str, str] | None:
    """``(repository, digest)`` for a Docker engine; None for an image of this workspace."""
    if pin.reference is None:
        return None
    name = pin.reference.partition("@")[0]
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}", pin.digest
