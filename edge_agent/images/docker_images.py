"""Images fetched by the Docker engine itself, by digest; it continues what it has in part by layers.

The ``docker`` SDK is imported with this file, which the composition root does only when a docker module is wanted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors

from edge_agent.errors import EngineBlind, PullFailed
from edge_agent.images.docker_ledger import DockerLedger
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import UnavailableError

API_TIMEOUT_S = 30


class DockerImages:
    """The workspace's registry, and others that a manifest names, as the Docker engine sees them. What comes is entered in
    ``ledger``. Towards another registry the engine's host has its own login (``docker login``), never the workspace's token.
    """

    def __init__(
        self,
        config: DeviceConfig,
        ledger: DockerLedger,
        clock: Clock,
        base_url: str | None = None,
        token: Callable[[], str] | None = None,
    ) -> None:
        """``token`` None: that of device.toml."""
        self._config = config
        self._token = token or (lambda: config.pull_token)
        self._ledger = ledger
        self._clock = clock
        self._base_url = base_url

    def present(self, image: ImagePin) -> bool:
        with self._client(image) as client:
            return _size(client, image_reference(self._config, image)) is not None

    def pull(self, image: ImagePin, progress: Callable[[str], None]) -> None:
        reference = image_reference(self._config, image)
        login = {"username": "device", "password": self._token()} if image.reference is None else None
        with self._client(image) as client:
            ours = _size(client, reference) is None
            if ours:
                self._ledger.pulled(image.digest, reference, self._clock.now())
            repository = repository_of(self._config, image)
            for line in client.pull(repository, tag=image.digest, auth_config=login, stream=True, decode=True):
                if "error" in line:
                    raise self._failed(image, line["error"])
                progress(f"being pulled by docker: {line.get('status', '')} {line.get('progress', '')}".strip())
            if ours:
                self._ledger.pulled(image.digest, reference, self._clock.now(), _size(client, reference) or 0)

    @contextmanager
    def _client(self, image: ImagePin) -> Iterator[Any]:
        try:
            with contextlib.closing(docker.APIClient(base_url=self._base_url, version="auto", timeout=API_TIMEOUT_S)) as client:
                yield client
        except docker.errors.DockerException as problem:
            raise self._failed(image, str(problem)) from problem

    def _failed(self, image: ImagePin, problem: str) -> UnavailableError:
        repository = repository_of(self._config, image)
        return PullFailed(image=image.reference or f"{image.name}:{image.version}", registry=repository, problem=problem)


def remove_image(reference: str, base_url: str | None) -> bool:
    """Take a name away, and the image with it when it was its last one. False while a container needs it.

    Raises EngineBlind.
    """
    try:
        with contextlib.closing(docker.APIClient(base_url=base_url, version="auto", timeout=API_TIMEOUT_S)) as client:
            client.remove_image(reference)
    except docker.errors.ImageNotFound:
        return True
    except docker.errors.APIError as problem:
        if problem.status_code == HTTPStatus.CONFLICT:
            return False
        raise EngineBlind(engine="docker", problem=str(problem)) from problem
    except docker.errors.DockerException as problem:
        raise EngineBlind(engine="docker", problem=str(problem)) from problem
    return True


def registry_host(config: DeviceConfig) -> str:
    """``HOST:PORT`` of the registry, as Docker names it."""
    return urlsplit(config.registry_url).netloc


def repository_of(config: DeviceConfig, image: ImagePin) -> str:
    """``HOST:PORT/NAME`` in the workspace's registry, or that of the manifest without its tag."""
    if image.reference is None:
        return f"{registry_host(config)}/{image.name}"
    folder, slash, name = image.reference.partition("@")[0].rpartition("/")
    # A colon after the last slash begins the tag; one before it is a port.
    return f"{folder}{slash}{name.partition(':')[0]}"


def image_reference(config: DeviceConfig, image: ImagePin) -> str:
    """``HOST:PORT/NAME@DIGEST``."""
    return f"{repository_of(config, image)}@{image.digest}"


def _size(client: Any, reference: str) -> int | None:  # noqa: ANN401 - the SDK is untyped
    try:
        return int(client.inspect_image(reference)["Size"])
    except docker.errors.ImageNotFound:
        return None
