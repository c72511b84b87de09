"""An operator's manifest, checked and pinned before it is stored: what is wrong is said now, not on the devices."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.desired_reference import MAX_ENVELOPE_BYTES
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.foreign_image import is_foreign, pin_of
from hedgerow.contracts.names import Reference
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.routes.route import RouteInvalid, parse_route
from registry.hub.errors import ManifestInvalid
from registry.hub.shadows import with_checked_shadow
from registry.hub.target import parse_target
from registry.store import blobs, images

# The hub composes and compares it for every device it is for.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# Of a deployment with its layers and patches; base64 makes four bytes of three, the envelope takes a little.
MAX_STATE_BYTES = MAX_ENVELOPE_BYTES // 4 * 3 - 4096
_IMAGE_KINDS = {"process": ("onnx", "fpga"), "docker": ("docker",)}


def check_manifest(connection: Connection, manifest: EdgeDeployment) -> EdgeDeployment:
    """``manifest`` with every image reference pinned to the version that it means now.

    So devices that join later, or a newer image of the same name, change nothing unasked. Raises TargetInvalid,
    ManifestInvalid, ShadowInvalid, InvalidReference, RecordNotFound (an image), RemoteReferenceInvalid. Images of other
    registries have their digest already (``foreign_images.py``).
    """
    parse_target(manifest.target)
    _check_rollout(manifest)
    size = len(encode(manifest))
    if size > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(name=manifest.name, problem=f"it has {size} bytes, the limit is {MAX_MANIFEST_BYTES}")
    for name, value in _free_values(manifest):
        try:
            check_bounds(value)
        except UnboundedValue as problem:
            raise ManifestInvalid(name=manifest.name, problem=f"{name}: {problem}") from None
    for name, route in manifest.routes.items():
        _check_route(manifest.name, name, route.route)
    _check_agent(connection, manifest)
    pinned = {name: _checked(connection, manifest.name, name, spec) for name, spec in manifest.modules.items()}
    modules = {name: with_checked_shadow(connection, manifest.name, name, spec) for name, spec in pinned.items()}
    return msgspec.structs.replace(manifest, modules=modules)


def _check_rollout(manifest: EdgeDeployment) -> None:
    for number, group in enumerate(manifest.rollout.groups if manifest.rollout else [], 1):
        parse_target(group.target)
        if group.percent is not None and group.devices is not None:
            problem = f"group {group.name or number} of its rollout has both percent and devices; write one of them"
            raise ManifestInvalid(name=manifest.name, problem=problem)


def _free_values(manifest: EdgeDeployment) -> Iterator[tuple[str, object]]:
    """What may be of any shape; composition, signing and devices walk it again and again."""
    yield from ((f"the create options of module {name}", spec.create_options) for name, spec in manifest.modules.items())
    yield from ((f"the twin of module {name}", twin) for name, twin in manifest.twins.items())


def _check_route(deployment: str, name: str, text: str) -> None:
    try:
        parse_route(text)
    except RouteInvalid as problem:
        raise ManifestInvalid(name=deployment, problem=f"route {name}: {problem}") from problem


def _check_agent(connection: Connection, manifest: EdgeDeployment) -> None:
    wheel = manifest.agent.wheel if manifest.agent else None
    if wheel is not None and not blobs.is_known(connection, wheel):
        problem = f"the agent's wheel {wheel} is not in this workspace; bring it: hedgerow edge agent-release upload FILE.whl"
        raise ManifestInvalid(name=manifest.name, problem=problem)


def _checked(connection: Connection, deployment: str, module: str, spec: ModuleSpec) -> ModuleSpec:
    if spec.kind == "process" and (spec.image is None) == (not spec.command):
        raise ManifestInvalid(name=deployment, problem=f"process module {module} needs either an image or a command, not both")
    if spec.image is None:
        if spec.kind == "docker":
            raise ManifestInvalid(name=deployment, problem=f"docker module {module} has no image")
        return spec
    if is_foreign(spec.image):
        return _checked_foreign(deployment, module, spec)
    record = images.get(connection, Reference.parse(spec.image))
    if record.kind not in _IMAGE_KINDS[spec.kind]:
        problem = f"module {module} is of kind {spec.kind}, image {record.name}:{record.version} of kind {record.kind}"
        fitting = "docker" if record.kind == "docker" else "process"
        problem = f'{problem}, which needs kind = "{fitting}"'
        raise ManifestInvalid(name=deployment, problem=problem)
    return msgspec.structs.replace(spec, image=f"{record.name}:{record.version}")


def _checked_foreign(deployment: str, module: str, spec: ModuleSpec) -> ModuleSpec:
    if spec.kind != "docker":
        problem = f'module {module} is a process; images of other registries run as containers (kind = "docker")'
        raise ManifestInvalid(name=deployment, problem=problem)
    if pin_of(spec.image or "") is None:
        raise ManifestInvalid(name=deployment, problem=f"image {spec.image} of module {module} has no digest")
    return spec
