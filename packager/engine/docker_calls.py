"""Calls of the `docker` SDK that both building and testing make, with its errors in our words."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from packager.engine.port import LoadedImage
from packager.errors import EngineFailed

log = logging.getLogger(__name__)


def load_image(client: Any, archive: Iterable[bytes]) -> LoadedImage:  # noqa: ANN401 - the SDK has no types
    """Take in a docker-archive tar of one image. Raises EngineFailed."""
    with engine_errors("load the image"):
        before = {image.id for image in client.images.list(all=True)}
        loaded = client.images.load(archive)
    if len(loaded) != 1:
        raise EngineFailed(what="load the image", problem=f"it says that it loaded {len(loaded)} images")
    return LoadedImage(str(loaded[0].id), loaded[0].id in before)


def remove_image(client: Any, image_id: str) -> None:  # noqa: ANN401 - the SDK has no types
    """Only tidying up: an image that something else uses by now stays, and that is right."""
    try:
        with engine_errors("remove the image"):
            client.images.remove(image_id)
    except EngineFailed as problem:
        log.warning("%s", problem)


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Engine and connection errors as EngineFailed."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException) as problem:
        raise EngineFailed(what=what, problem=problem) from problem
