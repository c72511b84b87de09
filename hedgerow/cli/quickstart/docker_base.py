"""Whether a Docker engine answers, and which Python base image it can give."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

# Most specific first; the last is fetched when none is there.
_WANTED = ("python:3.11-slim-bookworm", "python:3.11-slim", "debian-python:bookworm", "hedgerow-test-base:bookworm")
_ENGINE_TIMEOUT_S = 3
_PULL_TIMEOUT_S = 20


def find_docker_base(environment: Mapping[str, str]) -> tuple[str | None, str]:
    """``(tag, "")``, or ``(None, why not)``."""
    if importlib.util.find_spec("docker") is None:
        return None, "the docker library is not installed (pip install 'hedgerow[server]')"
    import docker
    from docker.errors import DockerException

    wanted = (environment["HEDGEROW_DOCKER_BASE"],) if environment.get("HEDGEROW_DOCKER_BASE") else _WANTED
    try:
        engine = docker.from_env(timeout=_ENGINE_TIMEOUT_S, environment=dict(environment))
        engine.ping()
        local = {tag for image in engine.images.list() for tag in image.tags}
    except (DockerException, OSError):
        return None, "no Docker engine answers (apt install docker.io, then start it)"
    for tag in wanted:
        if tag in local:
            return tag, ""
    try:
        docker.from_env(timeout=_PULL_TIMEOUT_S, environment=dict(environment)).images.pull(wanted[0])
    except (DockerException, OSError):
        return None, f"the engine has no Python base image and cannot fetch {wanted[0]}; set HEDGEROW_DOCKER_BASE to one it has"
    return wanted[0], ""
