"""Hands an image to a container engine of this machine. The only file of the SDK that knows the engine's own library."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from hedgerow.errors import HedgerowError, MissingExtra
from hedgerow.sdk.errors import EngineUnreachable

_PING_TIMEOUT_S, _SILENCE_S = 10, 1800


@contextlib.contextmanager
def engine_at(host: str | None) -> Iterator[Engine]:
    """The engine at ``host`` (``unix:///…``, ``tcp://…``); None: the one that the environment names, as for `docker`.

    Raises MissingExtra, EngineUnreachable.
    """
    if importlib.util.find_spec("docker") is None:
        raise MissingExtra(what="Loading an image into an engine", module="docker", extra="edge")
    import docker
    from docker.errors import DockerException

    where = host or "DOCKER_HOST or its usual place"
    try:
        client = docker.DockerClient(base_url=host, timeout=_PING_TIMEOUT_S) if host else docker.from_env(timeout=_PING_TIMEOUT_S)
    except (DockerException, OSError, ValueError) as problem:
        raise EngineUnreachable(host=where, problem=_words(problem)) from None
    with contextlib.closing(client):
        engine = Engine(client, where)
        engine.platform()
        client.api.timeout = _SILENCE_S
        yield engine


class Engine:
    """What loading needs of an engine."""

    def __init__(self, client: Any, where: str) -> None:  # noqa: ANN401 - the SDK has no types
        self._client, self._where = client, where

    def platform(self) -> str:
        """``linux/amd64``. Raises EngineUnreachable."""
        facts = self._told(self._client.version)
        return f"{facts['Os']}/{facts['Arch']}"

    def load(self, archive: Iterator[bytes]) -> None:
        """Raises EngineUnreachable, and what ``archive`` raises: then the engine keeps nothing of it."""
        failed: list[HedgerowError] = []

        def pieces() -> Iterator[bytes]:
            try:
                yield from archive
            except HedgerowError as problem:
                failed.append(problem)
                raise

        def take() -> None:
            for line in self._client.api.load_image(pieces()):
                if "error" in line:
                    raise EngineUnreachable(host=self._where, problem=str(line["error"])[:300])

        try:
            self._told(take)
        except EngineUnreachable:
            # What broke the archive is said, not that the engine missed its end.
            if failed:
                raise failed[0] from None
            raise

    def image_id(self, tag: str) -> str:
        """Raises EngineUnreachable."""
        return str(self._told(lambda: self._client.images.get(tag)).id)

    def _told(self, action: Callable[[], Any]) -> Any:  # noqa: ANN401 - the SDK has no types
        from docker.errors import DockerException
        from requests import RequestException

        try:
            return action()
        except (DockerException, RequestException, OSError) as problem:
            raise EngineUnreachable(host=self._where, problem=_words(problem)) from None


def _words(problem: Exception) -> str:
    """What the engine said; of a connection that failed only why, which the library buries in its own and others' classes."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return f"nothing answers there ({cause.strerror})"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(problem) or type(problem).__name__)[:300]
