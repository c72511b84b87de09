"""Takes secrets out of what leaves the device for people: keys by their value, and whatever looks like a password. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

import msgspec

from hedgerow.contracts.broker_login import device_login
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState

HIDDEN = "***"
_SHORTEST = 6
_WORDS = r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|shared[_-]?key|private[_-]?key|credential|sig)"
# No repetition stands before the word: lines may be long, and every place in one is a beginning.
_NAMED = re.compile(
    rf"(?i)({_WORDS}[a-z0-9_.-]{{0,40}}[\"']?\s{{0,4}}[:=]\s{{0,4}}[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&}}]+", re.ASCII
)
_AUTHORIZATION = re.compile(
    r"(?i)(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|sharedaccesssignature)?\s{0,4})[^\s\"',]+"
)
_IN_URL = re.compile(r"(?<=://)[^/\s:@]{1,200}:[^/\s@]{1,200}(?=@)")
_SECRET_NAME = re.compile(rf"(?i){_WORDS}")


class Redaction:
    """``secrets`` are values that must not leave, wherever they stand."""

    def __init__(self, secrets: Collection[str]) -> None:
        # The longest first: one may hold another.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """``text`` with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = _IN_URL.sub(HIDDEN, text)
        text = _AUTHORIZATION.sub(rf"\g<1>{HIDDEN}", text)
        return _NAMED.sub(rf"\g<1>{HIDDEN}", text)


def secrets_of(config: DeviceConfig, state: DesiredState | None) -> set[str]:
    """What device.toml and the modules' variables hold."""
    found = {config.device_key, config.pull_token, device_login(config.device_uuid, config.key_bytes()).password}
    for url in (config.broker_url, config.registry_url):
        if password := urlsplit(url).password:
            found.add(password)
    for module in state.modules.values() if state else ():
        found |= {value for name, value in module.spec.variables.items() if _SECRET_NAME.search(name)}
    return found


def shown_device(config: DeviceConfig) -> dict[str, object]:
    """device.toml without its secrets."""
    plain = msgspec.to_builtins(config)
    urls = {name: _IN_URL.sub(HIDDEN, plain[name]) for name in ("broker_url", "registry_url")}
    return {**plain, **urls, "device_key": HIDDEN, "pull_token": HIDDEN}


def shown_state(state: DesiredState) -> dict[str, object]:
    """A desired state without the values of variables and what is in Docker's options."""
    plain = msgspec.to_builtins(state)
    for module in plain["modules"].values():
        spec = module["spec"]
        spec["variables"] = dict.fromkeys(spec.get("variables", {}), HIDDEN)
        spec["create_options"] = _without_environment(spec.get("create_options", {}))
    for name, twin in plain.get("twins", {}).items():
        plain["twins"][name] = dict.fromkeys(twin, HIDDEN)
    return dict(plain)


def _without_environment(options: Mapping[str, object]) -> dict[str, object]:
    return {name: HIDDEN if name.lower() in ("env", "labels", "cmd", "entrypoint") else value for name, value in options.items()}
