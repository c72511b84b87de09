"""Takes secrets out of what leaves the device for people: keys by their value, and whatever looks like a password. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.broker_login import device_login
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState

HIDDEN = "***"
_SHORTEST = 6
_WORDS = (
    r"(?:passw(?:or)?d|pwd|passphrase|secret|token|credential|sig"
    r"|(?:api|access|account|shared|private)[_-]?key)"
)
# No repetition stands before the word: lines may be long, and every place in one is a beginning.
_NAMED = re.compile(
    rf"(?i)({_WORDS}[a-z0-9_.-]{{0,40}}[\"']?\s{{0,4}}[:=]\s{{0,4}}[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&}}]+", re.ASCII
)
_AUTHORIZATION = re.compile(
    r"(?i)(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|sharedaccesssignature)?\s{0,4})[^\s\"',]+"
)
_IN_URL = re.compile(r"(?<=://)[^/\s:@]{0,200}:[^/\s@]{1,200}(?=@)")
_SECRET_NAME = re.compile(rf"(?i){_WORDS}")
# ``--password VALUE``; with ``=`` it is one of _NAMED.
_SECRET_OPTION = re.compile(rf"(?i)--?[a-z0-9_.-]{{0,40}}{_WORDS}[a-z0-9_.-]{{0,40}}")


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


def secrets_of(config: DeviceConfig, state: DesiredState | None, fetched: Collection[str] = ()) -> set[str]:
    """What device.toml and the modules' variables hold, and what the device ``fetched`` since (``link/keys.py``)."""
    found = {*fetched, config.device_key, config.pull_token, device_login(config.device_uuid, config.key_bytes()).password}
    for url in (config.broker_url, config.registry_url):
        if password := urlsplit(url).password:
            found.add(password)
    tokens = Tokens(config.key_bytes())
    for name, module in state.modules.items() if state else ():
        found.add(tokens.of(name))
        found |= {value for variable, value in module.spec.variables.items() if _SECRET_NAME.search(variable)}
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
        spec["command"] = _without_secrets(spec.get("command", []))
        spec["variables"] = dict.fromkeys(spec.get("variables", {}), HIDDEN)
        spec["create_options"] = _without_environment(spec.get("create_options", {}))
    for name, twin in plain.get("twins", {}).items():
        plain["twins"][name] = dict.fromkeys(twin, HIDDEN)
    return dict(plain)


def _without_secrets(command: Sequence[str]) -> list[str]:
    before = ["", *command]
    return [HIDDEN if _SECRET_OPTION.fullmatch(option) else word for option, word in zip(before, command, strict=False)]


def _without_environment(options: Mapping[str, object]) -> dict[str, object]:
    return {name: HIDDEN if name.lower() in ("env", "labels", "cmd", "entrypoint") else value for name, value in options.items()}
