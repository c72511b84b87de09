"""The settings of a build process, and the fixed numbers and names of an image."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.settings import setting

# Where things stand in a container. The image's root, as contracts/image.py calls it, is IMAGE_ROOT.
IMAGE_ROOT = "opt/hedgerow"
SITE_FOLDER = "opt/hedgerow-site"
SCORING_PORT = 5001
NOBODY = "65534:65534"
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

    base_image: str | None = setting(None, "Base when none is named: docker:TAG, oci:FOLDER or docker-archive:FILE")
    docker_host: str = setting("unix:///var/run/docker.sock", "Container engine for bases and tests", env="DOCKER_HOST")
    prove_timeout_s: float = setting(300.0, "Longest time that the proof of an image may take")
    ready_timeout_s: float = setting(60.0, "Longest time until a started image answers")
    uv_timeout_s: float = setting(900.0, "Longest time that resolving or fetching packages may take")
    log_level: str = setting("info", "debug, info, warning or error")
