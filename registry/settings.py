"""Settings of the control plane's processes: one table each; flags, environment, help and docs come from it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from hedgerow.logs import LogFormat
from hedgerow.settings import SettingRow, load_settings, rows, setting

S = TypeVar("S")


@dataclass(frozen=True)
class ServerSettings:
    """``python -P -m registry.server``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace; made when it is not there")
    host: str = setting("127.0.0.1", "address to listen on; beyond loopback only with --behind-proxy")
    port: int = setting(8080, "port to listen on; 0 picks a free one")
    database: str | None = setting(None, "URL of a PostgreSQL database; without it SQLite files in the workspace", secret=True)
    blobs: str | None = setting(
        None, "s3://bucket/prefix, or file:///folder, for contents; without it the workspace's own folder"
    )
    blobs_endpoint: str | None = setting(
        None, "address of an S3 server that is not Amazon's; credentials are AWS_ACCESS_KEY_ID and so on"
    )
    blob_lease_s: float = setting(86400.0, "how long uploaded content is kept although nothing refers to it yet")
    broker_url: str = setting("mqtt://127.0.0.1:1883", "broker that devices are told to use")
    device_broker_url: str | None = setting(None, "broker that devices are told to use, if not --broker-url")
    device_broker_ca: Path | None = setting(None, "certificate (PEM) that the devices' broker must descend from")
    broker_login: Literal["url", "own"] = setting(
        "url", "own: devices and hub log in with names and passwords of their own; url: as the broker's URL says"
    )
    device_certificates: bool = setting(False, "devices log in at the broker with certificates of the workspace's authority")
    device_certificate_s: float = setting(
        30 * 86400.0, "how long a device's certificate is good; devices renew it after two thirds"
    )
    balancer_port: int = setting(8090, "port of the balancer on this machine, for the links to endpoints")
    behind_proxy: bool = setting(False, "a proxy with TLS stands in front: take its X-Forwarded-* headers")
    public_url: str | None = setting(None, "address under which clients and devices reach this server, if it is another one")
    allowed_hosts: str = setting("", "further names (comma separated) under which requests may come")
    egress_allow: str = setting("", "networks and hosts (comma separated) that may be called although they are not public https")
    egress_ca_file: Path | None = setting(
        None, "certificate authorities (PEM) that registries of images are checked against, besides the system's"
    )
    registry_logins: Path | None = setting(
        None, "file like Docker's config.json, with logins for the registries whose tags edge deployments name"
    )
    threads: int = setting(24, "requests at once; 8 of them are never taken by event streams")
    ready_file: Path | None = setting(None, 'file to write {"url", "pid"} to once requests are answered')
    watch_parent: bool = setting(False, "end when standard input ends (the process that started this one is gone)")
    log_format: LogFormat = setting("text", "text for people, json for machines")
    log_level: str = setting("info", "debug, info, warning or error")

    @property
    def url(self) -> str:
        """Where clients and devices reach this server; right once ``port`` is the one that is listened on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


def read_settings(table: type[S], prog: str, arguments: Sequence[str], environment: Mapping[str, str]) -> S:
    """Build ``table`` from defaults < environment < flags. Prints help or a usage error and exits as argparse does.

    Raises InvalidSetting for a value that its setting does not take.
    """
    parser = argparse.ArgumentParser(prog=prog, description=table.__doc__, allow_abbrev=False)
    for row in rows(table):
        parser.add_argument(f"--{row.name.replace('_', '-')}", default=None, help=_help(row), **_kind(row))
    return load_settings(table, environment, vars(parser.parse_args(arguments)))


def _kind(row: SettingRow) -> dict[str, Any]:
    if row.type_name == "bool":
        return {"action": argparse.BooleanOptionalAction}
    return {"metavar": row.name.rpartition("_")[2].upper()}


def _help(row: SettingRow) -> str:
    default = f"; {row.shown_default} if not given" if row.shown_default else ""
    return f"{row.help} ({row.env}{default})".replace("%", "%%")
