"""The embedded broker's settings; flags, environment, help and docs come from this table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.settings import setting


@dataclass(frozen=True)
class BrokerSettings:
    """``python -P -m registry.broker``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace")
    host: str = setting("127.0.0.1", "loopback address to listen on", env="HEDGEROW_BROKER_HOST")
    port: int = setting(1883, "port to listen on; 0 picks a free one", env="HEDGEROW_BROKER_PORT")
    ready_file: Path | None = setting(None, 'file to write {"url", "pid"} to once connections are taken')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
