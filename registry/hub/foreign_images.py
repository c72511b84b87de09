"""Tags of somebody else's registry become digests when a manifest comes: a device never follows a tag.

Asked over the network, through the egress policy, before any transaction. A registry that cannot be asked now costs nothing if
this very tag has been resolved for the same deployment before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.foreign_image import is_foreign, written_out
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.egress import EgressRefused
from hedgerow.errors import HedgerowError, UnavailableError
from registry.hub.errors import ForeignImageUnresolved

Resolve = Callable[[RemoteImage], str]


def resolve_foreign(manifest: EdgeDeployment, before: EdgeDeployment | None, resolve: Resolve) -> EdgeDeployment:
    """``manifest`` with a digest in each reference to a foreign image. ``resolve`` gives the digest of an image's tag.

    Raises ForeignImageUnresolved, RemoteReferenceInvalid.
    """
    known = _known(before)
    found: dict[str, str] = {}
    modules: dict[str, ModuleSpec] = {}
    for name, spec in manifest.modules.items():
        modules[name] = spec
        if spec.image is not None and spec.kind == "docker" and is_foreign(spec.image):
            if spec.image not in found:
                found[spec.image] = _pinned(RemoteImage.parse(spec.image), known, resolve)
            modules[name] = msgspec.structs.replace(spec, image=found[spec.image])
    return msgspec.structs.replace(manifest, modules=modules)


def with_own_names(manifest: EdgeDeployment, own_host: str) -> EdgeDeployment:
    """``manifest`` with `HOST/NAME:V` of this very registry as what it is here, `NAME:V`. Raises RemoteReferenceInvalid."""
    modules = {name: _with_own_name(spec, own_host.lower()) for name, spec in manifest.modules.items()}
    return msgspec.structs.replace(manifest, modules=modules)


def _with_own_name(spec: ModuleSpec, own_host: str) -> ModuleSpec:
    if spec.image is None or not is_foreign(spec.image):
        return spec
    image = RemoteImage.parse(spec.image)
    if image.host != own_host or "/" in image.repository:
        return spec
    which = f"@{image.digest}" if image.digest else "" if image.tag == "latest" else f":{image.tag}"
    return msgspec.structs.replace(spec, image=f"{image.repository}{which}")


def _known(before: EdgeDeployment | None) -> Mapping[str, str]:
    """References with a digest by what they are without it."""
    pinned = [spec.image for spec in before.modules.values() if spec.image and is_foreign(spec.image)] if before else []
    return {reference.partition("@")[0]: reference for reference in pinned if "@" in reference}


def _pinned(image: RemoteImage, known: Mapping[str, str], resolve: Resolve) -> str:
    text = written_out(image)
    if image.digest is not None:
        return text
    try:
        return f"{text}@{resolve(image)}"
    except UnavailableError as problem:
        if text in known:
            return known[text]
        raise ForeignImageUnresolved(image=text, problem=problem) from problem
    except EgressRefused as problem:
        raise ForeignImageUnresolved(image=text, problem=problem) from problem
    except HedgerowError as problem:
        raise ForeignImageUnresolved(image=text, problem=problem.sentence()) from problem
