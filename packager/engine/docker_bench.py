"""A container engine as a test bench, through the `docker` SDK: what foreign code in a container may do is decided here.

The network is the engine's default bridge. An `internal` network would keep the container off the outside world, but publishes
no ports, and a test over HTTP needs one. It is published on loopback, or for an engine on another machine on the address by
which that machine was named.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from packager.engine.docker_calls import engine_errors, load_image, remove_image
from packager.engine.port import LeftContainer, LoadedImage, TriedContainer, TryOut
from packager.errors import EngineFailed

PIDS_MAX = 512
_LINES = 200
_RUN_BYTES_MAX = 4 << 20
# Foreign code may write without end; the engine keeps this much of it.
_LOG_KEPT = {"max-size": "1m", "max-file": "2"}
_LOOPBACK = "127.0.0.1"


def published_on(host: str) -> str | None:
    """The address on which a port of a container is to be published so that we reach it; None where there is no such."""
    parts = urlsplit(host)
    if parts.scheme in ("unix", "npipe", "http+unix"):
        return _LOOPBACK
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        return None
    try:
        address = socket.gethostbyname(parts.hostname)
    except OSError:
        return None
    return _LOOPBACK if address.startswith("127.") else address


class DockerBench:
    """See :class:`packager.engine.port.Bench`. ``address`` is where ports are published."""

    def __init__(self, client: Any, address: str) -> None:  # noqa: ANN401 - the SDK has no types
        self._client, self._address = client, address

    def memory_bytes(self) -> int:
        with engine_errors("say how much memory it has"):
            return int(self._client.info()["MemTotal"])

    def load(self, archive: Iterable[bytes]) -> LoadedImage:
        return load_image(self._client, archive)

    def start(self, image_id: str, wanted: TryOut) -> TriedContainer:
        from docker.types import LogConfig

        with engine_errors("start the image"):
            container = self._client.containers.create(
                image_id,
                detach=True,
                labels=dict(wanted.labels),
                environment=dict(wanted.environment),
                ports={f"{wanted.port}/tcp": (self._address, None)},
                read_only=True,
                tmpfs={"/tmp": "mode=1777,size=1g"},  # noqa: S108 - the container's own
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=PIDS_MAX,
                mem_limit=wanted.memory_bytes,
                # The same: no swap beside it.
                memswap_limit=wanted.memory_bytes,
                log_config=LogConfig(type="json-file", config=_LOG_KEPT),
            )
        started = _DockerContainer(self._client, container, wanted, self._address)
        try:
            with engine_errors("start the image"):
                container.start()
        except EngineFailed:
            started.remove()
            raise
        return started

    def remove_image(self, image_id: str) -> None:
        remove_image(self._client, image_id)

    def left_behind(self, label: str) -> list[LeftContainer]:
        with engine_errors("list containers"):
            found = self._client.api.containers(all=True, filters={"label": label})
        return [
            LeftContainer(str(one["Id"]), dict(one.get("Labels") or {}), datetime.fromtimestamp(one["Created"]).astimezone())
            for one in found
        ]

    def remove_container(self, container_id: str) -> None:
        with contextlib.suppress(EngineFailed), engine_errors("remove a container"):
            self._client.api.remove_container(container_id, force=True, v=True)


class _DockerContainer:
    def __init__(self, client: Any, container: Any, wanted: TryOut, address: str) -> None:  # noqa: ANN401 - the SDK has no types
        self._client, self._container, self._wanted, self._address = client, container, wanted, address

    def address(self) -> tuple[str, int] | None:
        self._look()
        published = self._container.ports.get(f"{self._wanted.port}/tcp") or []
        return (self._address, int(published[0]["HostPort"])) if published else None

    def ended(self) -> str | None:
        self._look()
        state = self._container.attrs["State"]
        if state["Status"] in ("created", "running"):
            return None
        if state.get("OOMKilled"):
            return f"it used more than the {self._wanted.memory_bytes >> 20} MiB of memory that it may have"
        problem = state.get("Error")
        return f"exit code {state.get('ExitCode')}" + (f": {problem}" if problem else "")

    def log_tail(self) -> str:
        with engine_errors("read the container's log"):
            return bytes(self._container.logs(tail=_LINES)).decode(errors="replace").strip()

    def peak_memory_bytes(self) -> int | None:
        with engine_errors("count the container's memory"):
            counted = self._container.stats(stream=False, one_shot=True).get("memory_stats") or {}
        found = counted.get("max_usage") or counted.get("usage")
        return None if found is None else int(found)

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        said = bytearray()
        with engine_errors("run a command in the container"):
            order = self._client.api.exec_create(self._container.id, list(argv))["Id"]
            parts = self._client.api.exec_start(order, stream=True)
            try:
                for part in parts:
                    said += part
                    # Its end counts; foreign code may write without end.
                    del said[:-_RUN_BYTES_MAX]
            finally:
                parts._response.close()  # noqa: SLF001 - close() of the stream itself leaves its socket open
            code = self._client.api.exec_inspect(order)["ExitCode"]
        return (-1 if code is None else int(code)), said.decode(errors="replace")

    def remove(self) -> None:
        from docker.errors import NotFound

        with engine_errors("remove the container"), contextlib.suppress(NotFound):
            self._container.remove(force=True, v=True)

    def _look(self) -> None:
        with engine_errors("look at the container"):
            self._container.reload()
