"""Which modules may have a shadow, and which image can be one. What the agent could not do is refused when the manifest comes."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.edge import ModuleSpec
from hedgerow.contracts.foreign_image import is_foreign
from hedgerow.contracts.names import Reference
from registry.hub.errors import ShadowInvalid
from registry.store import images


def with_checked_shadow(connection: Connection, deployment: str, module: str, spec: ModuleSpec) -> ModuleSpec:
    """``spec`` with its shadow's image pinned to the version that it means now; its own image was pinned before.

    Raises ShadowInvalid, InvalidReference, RecordNotFound (an image).
    """
    shadow = spec.shadow
    if shadow is None:
        return spec
    if spec.kind != "process" or spec.image is None:
        what = "it runs a command" if spec.kind == "process" else "it is a container"
        problem = f"{what}, and only a process module with an onnx image has a tap"
        raise ShadowInvalid(module=module, name=deployment, problem=problem)
    if is_foreign(shadow.image):
        problem = f"image {shadow.image} is one of another registry, which runs as a container"
        raise ShadowInvalid(module=module, name=deployment, problem=problem)
    own = images.get(connection, Reference.parse(spec.image))
    record = images.get(connection, Reference.parse(shadow.image))
    for image in (own, record):
        if image.kind != "onnx":
            problem = f"image {image.name}:{image.version} is of kind {image.kind}"
            raise ShadowInvalid(module=module, name=deployment, problem=problem)
    pinned = msgspec.structs.replace(shadow, image=f"{record.name}:{record.version}")
    return msgspec.structs.replace(spec, shadow=pinned)
