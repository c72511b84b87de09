"""Modules as containers of a Docker engine. Found and adopted by their labels; Docker restarts nothing by itself.

One thread follows Docker's events and keeps the last look, so ``look`` answers at once even when the Docker engine hangs. The
``docker`` SDK is imported with this file, which the composition root does only when a docker module is wanted.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import docker
import docker.errors

from edge_agent.engines.docker_network import DeviceNetwork
from edge_agent.engines.docker_options import check_allowed, container_config, has_own_network
from edge_agent.engines.engine import Launch
from edge_agent.errors import EngineBlind, ImageNotPulled, ModuleStartFailed
from edge_agent.images.docker_images import API_TIMEOUT_S, image_reference
from edge_agent.reconcile.situation import EngineKind, Exited, Health, Running, Seen, Wanted
from hedgerow.backoff import Backoff
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.names import LABEL_MODULE, LABEL_OWNER, LABEL_WORKSPACE

LABEL_FINGERPRINT = "hedgerow.fingerprint"
_RECONNECT = Backoff(first_s=0.5, factor=2.0, cap_s=10.0, immediate_s=0.2)
_EVENTS = ["create", "start", "die", "destroy", "oom", "health_status", "pause", "unpause"]
_HEALTH: Mapping[str, Health] = {"starting": "starting", "healthy": "ready", "unhealthy": "unhealthy"}
log = logging.getLogger(__name__)


class DockerEngine:
    """``on_gateway`` hears the host's address as containers reach it, once Docker answers. ``log_bytes_max`` is kept of each
    module's output.
    """

    kind: EngineKind = "docker"

    def __init__(
        self,
        config: DeviceConfig,
        allowed: Collection[str],
        on_gateway: Callable[[str], None],
        base_url: str | None = None,
        *,
        log_bytes_max: int = 3_000_000,
    ) -> None:
        self._config = config
        self._allowed = allowed
        self._on_gateway = on_gateway
        self._base_url = base_url
        self._log_bytes_max = log_bytes_max
        self._network = DeviceNetwork(config.device_uuid, f"{LABEL_OWNER}={config.device_uuid}")
        self._view: list[Seen] | None = None
        self._problem = "it has not been looked at yet"
        self._wake: Callable[[], None] = lambda: None
        self._closed = threading.Event()

    def look(self) -> list[Seen]:
        view = self._view
        if view is None:
            raise EngineBlind(engine="docker", problem=self._problem)
        return view

    def watch(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        threading.Thread(target=self._follow, name="docker-events", daemon=True).start()

    def address(self, name: str) -> str | None:
        for seen in self._view or []:
            if seen.name == name and isinstance(seen, Running):
                return seen.address
        return None

    def start(self, launch: Launch) -> None:
        check_allowed(launch.wanted, self._allowed)
        with self._client() as client, self._network.in_use():
            try:
                self._start(client, launch)
            except docker.errors.ImageNotFound:
                raise ImageNotPulled(image=self._reference(launch.wanted)) from None
            except docker.errors.APIError as problem:
                raise ModuleStartFailed(module=launch.wanted.name, problem=problem.explanation or str(problem)) from problem
            finally:
                self._refresh(client)

    def stop(self, name: str, grace_s: float) -> None:
        with self._client() as client:
            with contextlib.suppress(docker.errors.NotFound):
                client.stop(self._container_name(name), timeout=round(grace_s))
            self._refresh(client)

    def remove(self, name: str, *, purge: bool) -> None:
        """``purge`` also removes the container's anonymous volumes."""
        with self._client() as client:
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_container(self._container_name(name), v=purge)
            self._refresh(client)
            if purge:
                self._network.remove_when_unused(client)

    def close(self) -> None:
        """Stop following events; the containers run on."""
        self._closed.set()

    def _follow(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                with self._client() as client:
                    # Subscribed before the first look: what happens in between is an event already.
                    events = client.events(decode=True, filters={"label": [self._owner_label()], "event": _EVENTS})
                    self._tell_gateway(client)
                    self._refresh(client)
                    failures = 0
                    for _event in events:
                        self._refresh(client)
                self._lose_sight("its event stream ended")
            except Exception as problem:  # noqa: BLE001 - whatever the SDK raises, the answer is to look again later
                self._lose_sight(str(problem))
            self._closed.wait(_RECONNECT.delay_s(failures, random.random))
            failures += 1

    def _lose_sight(self, problem: str) -> None:
        log.warning("the docker engine cannot be followed: %s", problem)
        self._view, self._problem = None, problem
        self._wake()

    def _refresh(self, client: Any) -> None:  # noqa: ANN401 - the SDK is untyped
        try:
            found = client.containers(all=True, filters={"label": [self._owner_label()]})
            looks = [self._inspect(client, container["Id"]) for container in found]
        except docker.errors.DockerException as problem:
            self._lose_sight(str(problem))
            return
        self._view = [look for look in looks if look is not None]
        self._wake()

    def _inspect(self, client: Any, container_id: str) -> Seen | None:  # noqa: ANN401 - the SDK is untyped
        try:
            return seen_container(client.inspect_container(container_id))
        except docker.errors.NotFound:
            return None

    def _start(self, client: Any, launch: Launch) -> None:  # noqa: ANN401 - the SDK is untyped
        container = self._container_for(client, launch)
        try:
            client.start(container)
        except docker.errors.NotFound as problem:
            # An older container whose network somebody has removed can never start again; a new one can.
            if "network" not in str(problem.explanation):
                raise
            client.remove_container(container)
            client.start(self._container_for(client, launch))

    def _container_for(self, client: Any, launch: Launch) -> str:  # noqa: ANN401 - the SDK is untyped
        """Id of a container to start: one of the same fingerprint that is there already, else a new one."""
        wanted, name = launch.wanted, self._container_name(launch.wanted.name)
        try:
            there = client.inspect_container(name)
        except docker.errors.NotFound:
            there = None
        if there is not None:
            if (there["Config"]["Labels"] or {}).get(LABEL_FINGERPRINT) == wanted.fingerprint:
                return str(there["Id"])
            client.remove_container(there["Id"])
        reference = self._reference(wanted)
        image = client.inspect_image(reference)
        exposed = (image.get("Config") or {}).get("ExposedPorts") or {}
        network = None if has_own_network(wanted) else self._network.ensure(client)
        labels = self._labels(wanted)
        config = container_config(
            wanted, reference, exposed, launch.environment, labels, network=network, log_bytes_max=self._log_bytes_max
        )
        return str(client.create_container_from_config(config, name)["Id"])

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A connection of one's own for each action; whatever the SDK cannot do means that we are blind."""
        try:
            with contextlib.closing(docker.APIClient(base_url=self._base_url, version="auto", timeout=API_TIMEOUT_S)) as client:
                yield client
        except docker.errors.DockerException as problem:
            raise EngineBlind(engine="docker", problem=str(problem)) from problem

    def _tell_gateway(self, client: Any) -> None:  # noqa: ANN401 - the SDK is untyped
        ranges = client.inspect_network("bridge")["IPAM"]["Config"]
        gateway = next((entry["Gateway"] for entry in ranges if "Gateway" in entry), None)
        if gateway is not None:
            self._on_gateway(gateway)

    def _reference(self, wanted: Wanted) -> str:
        return image_reference(self._config, wanted.image) if wanted.image else (wanted.spec.image or "")

    def _container_name(self, name: str) -> str:
        return f"hedgerow-{self._config.device_uuid[:8]}-{name}"

    def _owner_label(self) -> str:
        return f"{LABEL_OWNER}={self._config.device_uuid}"

    def _labels(self, wanted: Wanted) -> dict[str, str]:
        return {
            LABEL_OWNER: self._config.device_uuid,
            LABEL_WORKSPACE: self._config.workspace_id,
            LABEL_MODULE: wanted.name,
            LABEL_FINGERPRINT: wanted.fingerprint,
        }


def seen_container(inspected: Mapping[str, Any]) -> Seen | None:
    """What ``docker inspect`` says in our words; None for a container that was created but never started."""
    state, labels = inspected["State"], inspected["Config"]["Labels"] or {}
    if state["Status"] == "created":
        return None  # a start that was cut short: the next one takes this very container
    started_at = _moment(state["StartedAt"]) or datetime.fromtimestamp(0, UTC)
    name, fingerprint = labels.get(LABEL_MODULE, ""), labels.get(LABEL_FINGERPRINT, "")
    run = f"{inspected['Id'][:12]}@{state['StartedAt']}"
    if state["Running"] or state["Status"] == "restarting":
        status = (state.get("Health") or {}).get("Status", "healthy")
        return Running(
            name=name,
            kind="docker",
            fingerprint=fingerprint,
            run=run,
            pid=state["Pid"],
            started_at=started_at,
            address=_address(inspected),
            health=_HEALTH.get(status, "ready"),
            detail="its Docker health check fails" if status == "unhealthy" else "",
        )
    code = state["ExitCode"]
    return Exited(
        name=name,
        kind="docker",
        fingerprint=fingerprint,
        run=run,
        exit_code=code,
        started_at=started_at,
        exited_at=_moment(state["FinishedAt"]),
        reason=f"exit code {code}" + (" (out of memory)" if state.get("OOMKilled") else ""),
    )


def _address(inspected: Mapping[str, Any]) -> str | None:
    for bindings in (inspected["NetworkSettings"].get("Ports") or {}).values():
        for binding in bindings or []:
            host = binding["HostIp"] if binding["HostIp"] not in ("", "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
            return f"http://{host}:{binding['HostPort']}"
    return None


def _moment(text: str) -> datetime | None:
    """Docker writes nanoseconds and year 1 for never."""
    if text.startswith("0001"):
        return None
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
