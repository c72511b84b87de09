"""An operator's manifest, checked and pinned before it is stored: what is wrong is said now, not on the devices."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES, Reference
from registry.hub.errors import ManifestInvalid
from registry.hub.target import parse_target
from registry.store import images

# A desired state carries the manifest's modules with pins, in base64, in one MQTT message.
MAX_MANIFEST_BYTES = MAX_MQTT_PAYLOAD_BYTES // 2
_IMAGE_KINDS = {"process": ("onnx", "fpga"), "docker": ("docker",)}


def check_manifest(connection: Connection, manifest: EdgeDeployment) -> EdgeDeployment:
    """``manifest`` with every image reference pinned to the version that it means now.

    So devices that join later, or a newer image of the same name, change nothing unasked. Raises TargetInvalid,
    ManifestInvalid, InvalidReference, RecordNotFound (an image).
    """
    parse_target(manifest.target)
    size = len(encode(manifest))
    if size > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(name=manifest.name, problem=f"it has {size} bytes, the limit is {MAX_MANIFEST_BYTES}")
    modules = {name: _checked(connection, manifest.name, name, spec) for name, spec in manifest.modules.items()}
    return msgspec.structs.replace(manifest, modules=modules)


def _checked(connection: Connection, deployment: str, module: str, spec: ModuleSpec) -> ModuleSpec:
    if spec.kind == "process" and (spec.image is None) == (not spec.command):
        raise ManifestInvalid(name=deployment, problem=f"process module {module} needs either an image or a command")
    if spec.image is None:
        if spec.kind == "docker":
            raise ManifestInvalid(name=deployment, problem=f"docker module {module} has no image")
        return spec
    record = images.get(connection, Reference.parse(spec.image))
    if record.kind not in _IMAGE_KINDS[spec.kind]:
        problem = f"module {module} is of kind {spec.kind}, image {record.name}:{record.version} of kind {record.kind}"
        fitting = "docker" if record.kind == "docker" else "process"
        problem = f'{problem}, which needs kind = "{fitting}"'
        raise ManifestInvalid(name=deployment, problem=problem)
    return msgspec.structs.replace(spec, image=f"{record.name}:{record.version}")
