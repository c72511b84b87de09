"""The settings of a build process, and the fixed numbers and names of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.settings import setting

# Where things stand in a container. The image's root, as contracts/image.py calls it, is IMAGE_ROOT.
IMAGE_ROOT = "opt/hedgerow"
SITE_FOLDER = "opt/hedgerow-site"
SCORING_PORT = 5001
NOBODY = "65534:65534"
# Python 3.N on which our code in an image runs, as in pyproject.toml (`requires-python`; a test compares them).
OLDEST_PYTHON_MINOR = 11
# What the scoring server needs, as in pyproject.toml ([project] msgspec and the extra `runtime`; a test compares them).
RUNTIME_REQUIREMENTS = (
    "flask>=3.0",
    "gunicorn>=27",
    "httptools>=0.6",
    "msgspec>=0.19",
    "numpy>=1.26",
    "onnxruntime>=1.20",
    "prometheus-client>=0.20",
    "uvloop>=0.20",
)


@dataclass(frozen=True)
class PackagerSettings:
    """Read by `python -m packager`."""

    base_image: str | None = setting(
        None, "Base when none is named: docker:TAG, registry:HOST/NAME:TAG, oci:FOLDER or docker-archive:FILE"
    )
    docker_host: str = setting("unix:///var/run/docker.sock", "Container engine for bases and tests", env="DOCKER_HOST")
    prove_timeout_s: float = setting(300.0, "Longest time that the proof of an image may take")
    ready_timeout_s: float = setting(60.0, "Longest time until a started image answers")
    require_sandbox: bool = setting(False, "As root, refuse tests of images that cannot have a user of their own")
    uv_timeout_s: float = setting(900.0, "Longest time that resolving or fetching packages may take")
    cache_bytes: int = setting(
        20 << 30, "Layers kept for later builds; beyond it those used longest ago go", env="HEDGEROW_LAYER_CACHE_BYTES"
    )
    egress_allow: str = setting(
        "", "networks and hosts (comma separated) of registries that may be called although not public https"
    )
    egress_ca_file: Path | None = setting(None, "certificates (PEM) that registries may have besides the machine's")
    registry_logins: Path | None = setting(
        None, "file like Docker's config.json (or podman's auth.json) that logs in to registries"
    )
    convert_timeout_s: float = setting(900.0, "Longest time of each step of a conversion (opening, finishing, measuring)")
    convert_memory_bytes: int = setting(4 << 30, "Memory that a step of a conversion may use", least=1 << 28)
    log_level: str = setting("info", "debug, info, warning or error")
