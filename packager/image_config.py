"""The config document of an image: what a container engine runs, or what a ModelPack reader shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hedgerow.contracts.document import encode
from hedgerow.contracts.names import LABEL_BASE_DIGEST, LABEL_IMAGE_KIND, LABEL_TOOL
from hedgerow.contracts.oci import History, ImageConfig, RootFs
from packager.oci.documents import CREATED
from packager.oci.tar_layer import StoredLayer
from packager.recipe import ModelFacts
from packager.settings import IMAGE_ROOT, NOBODY, SCORING_PORT, SITE_FOLDER

LABEL_MODELS = "hedgerow.models"
_SECOND_NS = 1_000_000_000
_READY = (
    "import http.client as h,sys;"
    f"c=h.HTTPConnection('127.0.0.1',{SCORING_PORT},timeout=3);c.request('GET','/v2/health/ready');"
    "sys.exit(c.getresponse().status!=200)"
)
_ENTRY_POINT = (
    *("python3", "-P", "-m", "runtime", "--image", f"/{IMAGE_ROOT}"),
    # All interfaces of a container: its published ports decide who reaches it.
    *("--host", "0.0.0.0", "--port", str(SCORING_PORT)),  # noqa: S104 - see above
)
# Of a base these belong to its own program or to the machine that made it.
_NOT_INHERITED = frozenset({"Cmd", "Entrypoint", "Healthcheck", "Hostname", "Domainname", "Image", "OnBuild", "ArgsEscaped"})


def container_config(
    base: ImageConfig, base_digest: str, layers: Iterable[StoredLayer], models: Iterable[ModelFacts], tool_version: str
) -> bytes:
    """The OCI image config: the base's, with our layers and our entry point on top."""
    added = list(layers)
    labels = {
        LABEL_IMAGE_KIND: "docker",
        LABEL_MODELS: ",".join(facts.title for facts in models),
        LABEL_TOOL: tool_version,
        LABEL_BASE_DIGEST: base_digest,
    }
    return encode(
        ImageConfig(
            created=CREATED,
            architecture=base.architecture,
            os=base.os,
            variant=base.variant,
            config=_run_config(base.config or {}, labels),
            rootfs=RootFs(diff_ids=[*base.rootfs.diff_ids, *(layer.diff_id for layer in added)]),
            history=[*_base_history(base), *(_history(layer) for layer in added)],
        )
    )


def _run_config(base: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {key: value for key, value in base.items() if key not in _NOT_INHERITED} | {
        "Entrypoint": list(_ENTRY_POINT),
        "Env": _environment(base.get("Env") or []),
        "ExposedPorts": {f"{SCORING_PORT}/tcp": {}},
        "Healthcheck": {
            "Test": ["CMD", "python3", "-I", "-S", "-c", _READY],
            "Interval": 30 * _SECOND_NS,
            "Timeout": 5 * _SECOND_NS,
            "StartPeriod": 30 * _SECOND_NS,
            "Retries": 3,
        },
        "Labels": {**_inherited_labels(base), **labels},
        "User": NOBODY,
        # Empty and writable; `-P` keeps what is written there off the import path.
        "WorkingDir": "/tmp",  # noqa: S108 - the container's own
    }


def _inherited_labels(base: Mapping[str, Any]) -> dict[str, str]:
    """Without what OCI's predefined labels (image-spec, annotations) say: title, version and source are the base's own."""
    return {name: value for name, value in (base.get("Labels") or {}).items() if not name.startswith("org.opencontainers.image.")}


def _environment(base: list[str]) -> list[str]:
    ours = {
        "HOME": "/tmp",  # noqa: S108 - the container's own
        # Whatever is run in the image, also what does not go through our entry point: see runtime/models/onnx_model.py.
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/{SITE_FOLDER}",
    }
    kept = [line for line in base if line.partition("=")[0] not in ours]
    if not any(line.startswith("PATH=") for line in kept):
        kept.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return [*kept, *(f"{name}={value}" for name, value in ours.items())]


def _base_history(base: ImageConfig) -> list[History]:
    """The base's history, or one line for each of its layers: an image with too few lines is refused by some engines."""
    history = base.history or []
    if sum(not line.empty_layer for line in history) == len(base.rootfs.diff_ids):
        return history
    return [History(created=CREATED, created_by="base image") for _ in base.rootfs.diff_ids]


def _history(layer: StoredLayer) -> History:
    return History(created=CREATED, created_by=f"hedgerow: {layer.purpose}")


def model_config(models: Iterable[ModelFacts], layers: Iterable[StoredLayer]) -> bytes:
    """The ModelPack config of an ONNX artifact; with several models it is named after the first."""
    first, *others = models
    descriptor = {"createdAt": CREATED, "name": first.title.split(":")[0], "version": first.title.split(":")[1]}
    if others:
        descriptor["description"] = "also holds " + ", ".join(facts.title for facts in others)
    document = {
        "config": {"format": "onnx"},
        "descriptor": descriptor,
        "modelfs": {"diffIds": [layer.diff_id for layer in layers], "type": "layers"},
    }
    return msgspec.json.encode(document, order="sorted")
