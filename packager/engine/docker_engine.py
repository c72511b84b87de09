"""The container engine through the `docker` SDK, which no file outside of this folder imports."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from packager.engine.docker_calls import engine_errors, load_image, remove_image
from packager.engine.port import Bench, EngineWork, LoadedImage
from packager.errors import BaseUnreadable

log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_PING_TIMEOUT_S = 5
_CALL_TIMEOUT_S = 300


def connect_docker(host: str) -> DockerEngine | None:
    """The engine at ``host`` (`unix:///…`, `tcp://…`), or None when none answers or the SDK is not installed."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        log.info("the docker SDK is not installed; going on without a container engine")
        return None
    try:
        with contextlib.closing(docker.DockerClient(base_url=host, timeout=_PING_TIMEOUT_S)) as probe:
            probe.ping()
        return DockerEngine(docker.DockerClient(base_url=host, timeout=_CALL_TIMEOUT_S), host)
    except DockerException as problem:
        log.info("no container engine answers at %s: %s", host, problem)
        return None


class DockerEngine:
    """See :class:`packager.engine.port.ContainerEngine`."""

    def __init__(self, client: Any, host: str) -> None:  # noqa: ANN401 - the SDK has no types
        self._client, self._host = client, host

    def bench(self) -> Bench | None:
        """See docker_bench.py."""
        from packager.engine.docker_bench import DockerBench, published_on

        address = published_on(self._host)
        return None if address is None else DockerBench(self._client, address)

    def platform(self) -> str:
        with engine_errors("say its platform"):
            facts = self._client.version()
        return f"{facts['Os']}/{facts['Arch']}"

    def image_id(self, tag: str) -> str:
        from docker.errors import ImageNotFound

        with engine_errors(f"look up {tag}"):
            try:
                return str(self._client.images.get(tag).id)
            except ImageNotFound:
                raise BaseUnreadable(base=f"docker:{tag}", problem="the engine has no such image") from None

    def save(self, image_id: str) -> Iterator[bytes]:
        with engine_errors(f"save {image_id}"):
            yield from self._client.images.get(image_id).save(chunk_size=_CHUNK_BYTES)

    def load(self, archive: Iterable[bytes]) -> LoadedImage:
        return load_image(self._client, archive)

    def build(self, work: EngineWork, told: Callable[[str], None]) -> Iterator[bytes]:
        """See docker_build.py."""
        from packager.engine.docker_build import build_and_take

        with engine_errors("build from a Dockerfile"):
            yield from build_and_take(self._client, work, told)

    def remove_image(self, image_id: str) -> None:
        remove_image(self._client, image_id)
