"""Reads device.toml into a DeviceConfig."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

from edge_agent.errors import ConfigMissing, ConfigUnreadable
from edge_agent.settings import AgentSettings
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import convert


def read_device_config(path: Path) -> DeviceConfig:
    """The device's configuration. Raises ConfigMissing, ConfigUnreadable, InvalidDocument, DocumentTooNew."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigMissing(path=path, problem=problem.strerror) from None
    except ValueError as problem:
        raise ConfigUnreadable(path=path, problem=problem) from None
    return convert(values, DeviceConfig)


def others_can_read(path: Path) -> bool:
    """True when the file, which holds the device's key, is open to other users."""
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def default_state_dir(settings: AgentSettings) -> Path:
    """``state`` beside device.toml, unless the settings name another folder."""
    return settings.state_dir if settings.state_dir is not None else settings.config.absolute().parent / "state"
