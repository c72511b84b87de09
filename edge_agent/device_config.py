"""Reads device.toml into a DeviceConfig."""

from __future__ import annotations

import base64
import stat
import tomllib
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.errors import ConfigMissing, ConfigUnreadable
from edge_agent.settings import AgentSettings
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import convert
from hedgerow.errors import InvalidDocument

_KEY_BYTES = 32


def read_device_config(path: Path) -> DeviceConfig:
    """The device's configuration. Raises ConfigMissing, ConfigUnreadable, InvalidDocument, DocumentTooNew."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigMissing(path=path, problem=problem.strerror) from None
    except ValueError as problem:
        raise ConfigUnreadable(path=path, problem=problem) from None
    config = convert(values, DeviceConfig)
    for found in config_problems(config):
        raise InvalidDocument(document=str(path), problem=found)
    return config


def config_problems(config: DeviceConfig) -> Iterator[str]:
    """What the types alone do not tell; the key's text is never part of it."""
    keys = {"device_key": config.device_key, **{f"trusted key {key.keyid[:24]}": key.key for key in config.trusted_keys}}
    for name, text in keys.items():
        try:
            size = len(base64.b64decode(text, validate=True))
        except ValueError:
            size = -1
        if size != _KEY_BYTES:
            yield f"{name} is not base64 of {_KEY_BYTES} bytes"
    if config.broker_login == "certificate" and not config.broker_url.startswith("mqtts:"):
        yield "broker_login certificate needs a broker_url of the form mqtts://HOST:PORT"
    try:
        uuid.UUID(config.device_uuid)
    except ValueError:
        yield f"device_uuid {config.device_uuid[:80]!r} is not a UUID"
    for name, url, schemes in (
        ("broker_url", config.broker_url, ("mqtt", "mqtts")),
        ("registry_url", config.registry_url, ("http", "https")),
    ):
        if not _is_url(url, schemes):
            yield f"{name} is not of the form {schemes[0]}://HOST:PORT"


def _is_url(url: str, schemes: Collection[str]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def others_can_read(path: Path) -> bool:
    """True when the file, which holds the device's key, is open to other users."""
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def known_state_dir(settings: AgentSettings) -> Path:
    """The same for commands that only look: a path with a slip of the pen is no device without a report. Raises ConfigMissing."""
    if settings.state_dir is None and not settings.config.exists():
        raise ConfigMissing(path=settings.config, problem="No such file or directory")
    return default_state_dir(settings)


def default_state_dir(settings: AgentSettings) -> Path:
    """``state`` beside device.toml, unless the settings name another folder."""
    return settings.state_dir if settings.state_dir is not None else settings.config.absolute().parent / "state"
