"""All that has to do with Docker, made when it is first needed: its SDK costs memory, and many devices have no container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_agent.engines.engine import Engine, ImageSource
from edge_agent.images.docker_ledger import DockerLedger
from edge_agent.settings import AgentSettings
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.errors import MissingExtra


class DockerParts:
    """``folder`` is the state folder; ``on_gateway`` hears the host's address as containers reach it."""

    def __init__(
        self,
        config: DeviceConfig,
        settings: AgentSettings,
        folder: Path,
        clock: Clock,
        on_gateway: Callable[[str], None],
        token: Callable[[], str] | None = None,
    ) -> None:
        self._config = config
        self._token = token
        self._settings = settings
        self._clock = clock
        self._on_gateway = on_gateway
        self.ledger = DockerLedger(folder, self._remove_image)

    def engine(self) -> Engine:
        """Raises MissingExtra."""
        try:
            from edge_agent.engines.engine_docker import DockerEngine
        except ModuleNotFoundError as problem:
            raise _missing(problem) from None
        allowed = [word.strip() for word in self._settings.docker_allow.split(",") if word.strip()]
        return DockerEngine(
            self._config,
            allowed,
            self._on_gateway,
            self._settings.docker_host,
            log_bytes_max=self._settings.log_bytes_max,
        )

    def images(self) -> ImageSource:
        """Raises MissingExtra."""
        try:
            from edge_agent.images.docker_images import DockerImages
        except ModuleNotFoundError as problem:
            raise _missing(problem) from None
        return DockerImages(self._config, self.ledger, self._clock, self._settings.docker_host, self._token)

    def _remove_image(self, reference: str) -> bool:
        try:
            from edge_agent.images.docker_images import remove_image
        except ModuleNotFoundError as problem:
            raise _missing(problem) from None
        return remove_image(reference, self._settings.docker_host)


def _missing(problem: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(what="Docker modules", module=problem.name, extra="edge")
