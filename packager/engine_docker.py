"""The container engine through the `docker` SDK. No other file of the packager imports it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from packager.engine import Container, LoadedImage
from packager.errors import BaseUnreadable, EngineFailed

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
        return DockerEngine(docker.DockerClient(base_url=host, timeout=_CALL_TIMEOUT_S))
    except DockerException as problem:
        log.info("no container engine answers at %s: %s", host, problem)
        return None


class DockerEngine:
    """See :class:`packager.engine.ContainerEngine`."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - the SDK has no types
        self._client = client

    def platform(self) -> str:
        with _told("say its platform"):
            facts = self._client.version()
        return f"{facts['Os']}/{facts['Arch']}"

    def image_id(self, tag: str) -> str:
        from docker.errors import ImageNotFound

        with _told(f"look up {tag}"):
            try:
                return str(self._client.images.get(tag).id)
            except ImageNotFound:
                raise BaseUnreadable(base=f"docker:{tag}", problem="the engine has no such image") from None

    def save(self, image_id: str) -> Iterator[bytes]:
        with _told(f"save {image_id}"):
            yield from self._client.images.get(image_id).save(chunk_size=_CHUNK_BYTES)

    def load(self, archive: Iterable[bytes]) -> LoadedImage:
        with _told("load the image"):
            before = {image.id for image in self._client.images.list(all=True)}
            loaded = self._client.images.load(archive)
        if len(loaded) != 1:
            raise EngineFailed(what="load the image", problem=f"it says that it loaded {len(loaded)} images")
        return LoadedImage(str(loaded[0].id), loaded[0].id in before)

    def start(self, image_id: str, port: int, labels: Mapping[str, str]) -> Container:
        with _told("start the image"):
            container = self._client.containers.run(
                image_id,
                detach=True,
                labels=dict(labels),
                ports={f"{port}/tcp": ("127.0.0.1", None)},
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=512,
            )
        return _DockerContainer(container, port)

    def remove_image(self, image_id: str) -> None:
        # Only tidying up: an image that something else uses by now stays, and that is right.
        try:
            with _told("remove the image"):
                self._client.images.remove(image_id)
        except EngineFailed as problem:
            log.warning("%s", problem)


class _DockerContainer:
    def __init__(self, container: Any, port: int) -> None:  # noqa: ANN401 - the SDK has no types
        self._container = container
        self._port = port

    def address(self) -> tuple[str, int] | None:
        with _told("look at the container"):
            self._container.reload()
        if self._container.status not in ("created", "running"):
            return None
        published = self._container.ports.get(f"{self._port}/tcp") or []
        return ("127.0.0.1", int(published[0]["HostPort"])) if published else None

    def log_tail(self) -> str:
        with _told("read the container's log"):
            return bytes(self._container.logs(tail=20)).decode(errors="replace").strip()

    def remove(self) -> None:
        with _told("remove the container"):
            self._container.remove(force=True, v=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Engine and connection errors as EngineFailed."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException) as problem:
        raise EngineFailed(what=what, problem=problem) from problem
