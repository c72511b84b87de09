"""Builders with defaults for tests of the edge agent: devices, modules, desired states, situations. Values only."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.reconcile.situation import Exited, Running, Wanted, fingerprint
from hedgerow.contracts.device import DeviceConfig, TrustedKey
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, ModuleSpec
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.signed import sign

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BOOT = "boot-1"
DEVICE_UUID = "3f1f9e0a-7a5c-4a52-9c1e-2f4c0c6d9b11"


@dataclass(frozen=True)
class Workspace:
    """A workspace's signing key and one device of it."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    device_key: bytes = field(default_factory=lambda: os.urandom(32))
    uuid: str = DEVICE_UUID
    broker_url: str = "mqtt://127.0.0.1:1"
    registry_url: str = "http://127.0.0.1:1"

    @property
    def config(self) -> DeviceConfig:
        return DeviceConfig(
            device_uuid=self.uuid,
            name="porch",
            workspace_id="ws-1",
            topic_prefix="hedgerow/ws-1",
            broker_url=self.broker_url,
            registry_url=self.registry_url,
            device_key=base64.b64encode(self.device_key).decode(),
            pull_token="pull-secret",
            trusted_keys=[TrustedKey(keyid="k1", key=base64.b64encode(self.key.public_key().public_bytes_raw()).decode())],
        )

    def signed(self, state: DesiredState) -> bytes:
        return sign(PAYLOAD_DESIRED_STATE, encode(state), {"k1": self.key.sign})

    def write_toml(self, path: Path) -> Path:
        """device.toml as enrolment writes it."""
        config = self.config
        lines = [
            f'{name} = "{getattr(config, name)}"'
            for name in (
                "device_uuid",
                "name",
                "workspace_id",
                "topic_prefix",
                "broker_url",
                "registry_url",
                "device_key",
                "pull_token",
            )
        ]
        lines += ["[[trusted_keys]]", f'keyid = "{config.trusted_keys[0].keyid}"', f'key = "{config.trusted_keys[0].key}"']
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return path


def desired(
    modules: Mapping[str, DesiredModule], *, version: int = 1, incarnation: str = "inc-1", uuid: str = DEVICE_UUID
) -> DesiredState:
    return DesiredState(
        device_uuid=uuid, version=version, incarnation=incarnation, issued_at=NOW, edge_deployment="line-1", modules=dict(modules)
    )


def command(*argv: str, **spec: Any) -> DesiredModule:
    """A process module that runs a command."""
    return DesiredModule(spec=ModuleSpec(command=list(argv), **spec))


def shell(script: str, **spec: Any) -> DesiredModule:
    return command("/bin/sh", "-c", script, **spec)


def pin(digest_end: str = "a", kind: Any = "onnx") -> ImagePin:
    return ImagePin(name="shuttle", version=1, digest="sha256:" + digest_end.rjust(64, "0"), kind=kind)


def wanted(name: str = "m", *, image: ImagePin | None = None, **spec: Any) -> Wanted:
    module = DesiredModule(spec=ModuleSpec(**({"command": ["run"]} | spec)), image=image)
    return Wanted(name, module.spec, image, fingerprint(module))


def running(of: Wanted, **fields: Any) -> Running:
    values: dict[str, Any] = {"run": "r1", "pid": 100, "started_at": NOW, "fingerprint": of.fingerprint, "kind": of.spec.kind}
    return Running(name=of.name, **(values | fields))


def exited(of: Wanted, **fields: Any) -> Exited:
    values: dict[str, Any] = {
        "run": "r1",
        "exit_code": 1,
        "started_at": NOW,
        "exited_at": NOW,
        "fingerprint": of.fingerprint,
        "kind": of.spec.kind,
        "reason": "exit code 1",
    }
    return Exited(name=of.name, **(values | fields))
