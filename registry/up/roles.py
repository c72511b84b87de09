"""Which processes make up a control plane, as data: settings in, command lines out. Starts nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hedgerow.settings import setting
from registry.mosquitto.listening import device_url

# As registry.wakeups_socket.MOST_SHARING, which this small process does not import.
MOST_HUBS = 8


@dataclass(frozen=True)
class UpSettings:
    """Settings of ``hedgerow up``."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace; made when it does not exist")
    host: str = setting("127.0.0.1", "address to listen on; anything but loopback needs --behind-proxy")
    port: int = setting(8080, "port of the REST API, the pages and the image registry; 0 picks a free one")
    broker_port: int = setting(1883, "loopback port of the embedded MQTT broker, or of Mosquitto for the hub; 0 picks a free one")
    balancer_port: int = setting(8090, "port of the load balancer in front of services; 0 picks a free one")
    database: str | None = setting(None, "postgresql://… instead of the SQLite files in the workspace", secret=True)
    blobs: str | None = setting(None, "s3://bucket/prefix (extra s3) or file:///folder for contents instead of the workspace")
    blobs_endpoint: str | None = setting(None, "address of an S3 server that is not Amazon's")
    gc_every_s: float = setting(
        86400.0, "how often contents that nothing refers to are freed; 0: only when asked for (hedgerow gc)", least=0
    )
    broker: str | None = setting(None, "mqtt://… or mqtts://… of a broker of your own instead of the embedded one", secret=True)
    mosquitto: str | None = setting(
        None,
        "HOST:PORT: run Mosquitto there for devices elsewhere, with TLS and a login for each, instead of the embedded broker",
    )
    mosquitto_mtls: str | None = setting(
        None, "HOST:PORT: the same for devices with certificates of the workspace; with or without --mosquitto"
    )
    mosquitto_names: str = setting(
        "", "names or addresses (comma separated) by which devices reach it; the first stands in their device.toml"
    )
    mosquitto_cert: Path | None = setting(None, "its certificate (PEM), instead of one of the workspace's own authority")
    mosquitto_key: Path | None = setting(None, "the key (PEM) of --mosquitto-cert")
    hubs: int = setting(1, "hubs that share the devices' messages; more than one needs --database (at most 8)", least=1)
    behind_proxy: bool = setting(False, "a TLS-terminating proxy stands in front")
    public_url: str | None = setting(None, "https://… by which devices and people reach it from elsewhere, with --behind-proxy")
    egress_allow: str = setting("", "networks and hosts (comma separated) that may be called although they are not public https")
    egress_ca_file: Path | None = setting(
        None, "certificates (PEM) that receivers of webhooks and registries may have besides the machine's"
    )
    registry_logins: Path | None = setting(
        None, "file like Docker's config.json (or podman's auth.json) that logs in to registries"
    )
    events_keep_days: int = setting(365, "how long events are kept; 0 keeps them for ever", least=0)
    log_format: str = setting("text", "text or json")
    log_level: str = setting("warning", "debug, info, warning or error")
    watch_parent: bool = setting(False, "stop when standard input ends (used by programs that start this one)")


def from_folder(settings: UpSettings, folder: Path) -> UpSettings:
    """The same with every path seen from ``folder``: the processes that read them start in another one."""
    return replace(
        settings,
        workspace=folder / settings.workspace,
        egress_ca_file=folder / settings.egress_ca_file if settings.egress_ca_file else None,
        registry_logins=folder / settings.registry_logins if settings.registry_logins else None,
        mosquitto_cert=folder / settings.mosquitto_cert if settings.mosquitto_cert else None,
        mosquitto_key=folder / settings.mosquitto_key if settings.mosquitto_key else None,
    )


@dataclass(frozen=True)
class Role:
    """One process to keep alive. ``ready_file`` appears when it does its job."""

    name: str
    argv: tuple[str, ...]
    ready_file: Path


def plan_roles(settings: UpSettings, run: Path) -> list[Role]:
    """The processes of a control plane in start order; stopping goes the other way round."""
    workspace = ["--workspace", str(settings.workspace)]
    shared = [*workspace, "--log-format", settings.log_format]
    balancer = ["--balancer-port", str(settings.balancer_port)]
    server = [*shared, *balancer, "--host", settings.host, "--port", str(settings.port)]
    return [
        *_broker(settings, run, shared),
        _role("server", run, [*server, "--behind-proxy"] if settings.behind_proxy else server),
        *_hubs(settings.hubs, run, shared),
        _role("controller", run, [*shared, *balancer, "--stop-services-on-exit"]),
    ]


def _broker(settings: UpSettings, run: Path, shared: list[str]) -> list[Role]:
    port = ["--port", str(settings.broker_port)]
    if settings.broker:
        return []
    if not (settings.mosquitto or settings.mosquitto_mtls):
        return [_role("broker", run, ["--workspace", str(settings.workspace), *port])]
    options = [*shared, *port, "--listen", settings.mosquitto or "", "--names", settings.mosquitto_names]
    if settings.mosquitto_mtls:
        options += ["--mtls", settings.mosquitto_mtls]
    if settings.mosquitto_cert:
        options += ["--cert", str(settings.mosquitto_cert)]
    if settings.mosquitto_key:
        options += ["--key", str(settings.mosquitto_key)]
    return [_role("broker", run, options, module="mosquitto")]


def role_environment(settings: UpSettings) -> dict[str, str]:
    """What the roles read from the environment: URLs may hold passwords, and everybody can read a command line."""
    given = {
        "HEDGEROW_LOG_LEVEL": settings.log_level,
        "HEDGEROW_BROKER_URL": settings.broker or f"mqtt://127.0.0.1:{settings.broker_port}",
        **_logins(settings),
        "HEDGEROW_DATABASE": settings.database,
        "HEDGEROW_BLOBS": settings.blobs,
        "HEDGEROW_BLOBS_ENDPOINT": settings.blobs_endpoint,
        "HEDGEROW_PUBLIC_URL": settings.public_url,
        "HEDGEROW_EGRESS_ALLOW": settings.egress_allow,
        "HEDGEROW_EGRESS_CA_FILE": str(settings.egress_ca_file or ""),
        "HEDGEROW_REGISTRY_LOGINS": str(settings.registry_logins or ""),
        "HEDGEROW_GC_EVERY_S": str(settings.gc_every_s),
        "HEDGEROW_EVENTS_KEEP_DAYS": str(settings.events_keep_days),
    }
    return {name: value for name, value in given.items() if value}


def _logins(settings: UpSettings) -> dict[str, str]:
    """How hub and devices log in, where the broker is Mosquitto of ours."""
    listen = listen_for_devices(settings)
    if listen is None or settings.broker:
        return {}
    authority = "" if settings.mosquitto_cert else str(settings.workspace / "keys" / "ca.pem")
    return {
        "HEDGEROW_DEVICE_BROKER_URL": device_url(listen, settings.mosquitto_names),
        "HEDGEROW_DEVICE_BROKER_CA": authority,
        "HEDGEROW_BROKER_LOGIN": "own",
        **({"HEDGEROW_DEVICE_CERTIFICATES": "true"} if settings.mosquitto_mtls else {}),
    }


def listen_for_devices(settings: UpSettings) -> str | None:
    """Where devices that are enrolled now are told to go; None without Mosquitto. Those of before stay where they are."""
    return settings.mosquitto_mtls or settings.mosquitto


def _hubs(count: int, run: Path, options: list[str]) -> list[Role]:
    if count == 1:
        return [_role("hub", run, options)]
    names = ["hub", *(f"hub-{number}" for number in range(2, count + 1))]
    return [_role(name, run, [*options, "--share"], module="hub") for name in names]


def _role(name: str, run: Path, options: list[str], module: str = "") -> Role:
    ready_file = run / f"{name}.ready"
    # -P keeps the current folder off sys.path: a `registry.py` lying around there is not ours.
    argv = (sys.executable, "-P", "-m", f"registry.{module or name}", *options, "--ready-file", str(ready_file), "--watch-parent")
    return Role(name, argv, ready_file)
