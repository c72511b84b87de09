"""What is sent to Docker to create a module's container. Pure: values in, values out.

``create_options`` are Docker's own ContainerCreate JSON (as in IoT Edge) and pass through untouched; ours are added where
they do not collide. Options that give a container power over the host need this device's own consent, whoever signed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edge_agent.errors import OptionForbidden
from edge_agent.reconcile.situation import Wanted

HOST_NAME = "host.docker.internal"
LOG_FILES = 3
# The network that manifests written for IoT Edge name when they name one; here it is the device's own.
IOT_EDGE_NETWORK = "azure-iot-edge"
# What Docker can answer for as a name in its network.
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Docker reads JSON keys without regard to case, so must whoever checks or extends them.
_KEYS = ("Cmd", "Env", "ExposedPorts", "HostConfig", "Image", "Labels", "NetworkingConfig")
_HOST_KEYS = (
    "ExtraHosts",
    "LogConfig",
    "Memory",
    "NanoCpus",
    "NetworkMode",
    "PidsLimit",
    "PortBindings",
    "RestartPolicy",
    "Ulimits",
)
_HOST_MODES = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode")
# Podman, which answers to the same API, also joins a namespace by its path (``ns:/proc/1/ns/net``).
_SHARED = ("host", "container:", "ns:")
# The word of ``docker_allow`` that each option needs when it has a value.
_PRIVILEGES: Mapping[str, tuple[str, ...]] = {
    "privileged": ("Privileged",),
    "devices": ("Devices", "DeviceRequests", "DeviceCgroupRules"),
    "capabilities": ("CapAdd", "SecurityOpt", "Sysctls", "CgroupParent", "Runtime", "VolumesFrom"),
}
# The same for options that take something away when they are empty lists.
_UNMASKING = ("MaskedPaths", "ReadonlyPaths")
# These write on this device (or nowhere); every other driver sends what a module says to another machine.
_LOGS_HERE = ("", "json-file", "local", "journald", "none")


def container_config(
    wanted: Wanted,
    image: str,
    exposed_ports: Collection[str],
    environment: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    network: str | None = None,
    log_bytes_max: int = 3_000_000,
) -> dict[str, Any]:
    """The body of ``POST /containers/create``. ``exposed_ports`` are the image's (``5001/tcp``). With a ``network`` the
    module joins it under its names; leave it out for one that ``has_own_network``.
    """
    config: dict[str, Any] = {**_with_docker_keys(wanted.spec.create_options, _KEYS), "Image": image}
    if wanted.spec.command:
        config["Cmd"] = wanted.spec.command
    added = [f"{name}={value}" for name, value in {**wanted.spec.variables, **environment}.items()]
    config["Env"] = [*(config.get("Env") or []), *added]
    config["Labels"] = {**(config.get("Labels") or {}), **labels}
    config["HostConfig"] = _host_config(wanted, _with_docker_keys(config.get("HostConfig") or {}, _HOST_KEYS), exposed_ports)
    config["HostConfig"].setdefault("LogConfig", _bounded_log(log_bytes_max))
    if network is not None:
        config["HostConfig"]["NetworkMode"] = network
        config["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": _aliases(wanted)}}}
    if wanted.spec.port is not None:
        config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), _inner_port(wanted.spec.port, exposed_ports): {}}
    return config


def has_own_network(wanted: Wanted) -> bool:
    """True when the module's own options say which network it is in."""
    options = _with_docker_keys(wanted.spec.create_options, _KEYS)
    mode = _with_docker_keys(options.get("HostConfig") or {}, _HOST_KEYS).get("NetworkMode") or ""
    joined = _with_docker_keys(options.get("NetworkingConfig") or {}, ("EndpointsConfig",)).get("EndpointsConfig") or {}
    return bool({str(mode), *map(str, joined)} - {"", IOT_EDGE_NETWORK})


def _aliases(wanted: Wanted) -> list[str]:
    shown = wanted.spec.display_name or ""
    return [wanted.name, *([shown] if shown != wanted.name and _ALIAS.fullmatch(shown) else [])]


def _bounded_log(bytes_max: int) -> dict[str, Any]:
    """Docker's own default keeps everything for ever."""
    return {"Type": "json-file", "Config": {"max-size": str(max(1, bytes_max // LOG_FILES)), "max-file": str(LOG_FILES)}}


def check_allowed(wanted: Wanted, allowed: Collection[str]) -> None:
    """Raise OptionForbidden for the first option that this device does not allow. ``allowed`` are words of ``docker_allow``."""
    for level in _decoded_levels(wanted.spec.create_options):
        _refuse_ambiguous_names(wanted.name, level)
    named = _with_docker_keys(wanted.spec.create_options, _KEYS)
    options, joined = named.get("HostConfig") or {}, _joined_networks(named.get("NetworkingConfig"))
    for word, option in [
        *_plain_privileges(options),
        *_shared_namespaces(options),
        *joined,
        *_host_folders(options),
        *_remote_logs(options),
        *_survival(options),
    ]:
        if word not in allowed:
            raise OptionForbidden(module=wanted.name, option=option, word=word)


def _decoded_levels(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects whose keys the engine reads as option names; labels and the like are names of the user's own."""
    yield options
    yield from (value for key, value in options.items() if key.lower() == "networkingconfig" and isinstance(value, dict))
    for host in [value for key, value in options.items() if key.lower() == "hostconfig" and isinstance(value, dict)]:
        yield host
        for mounts in [value for key, value in host.items() if key.lower() == "mounts" and isinstance(value, list)]:
            yield from (mount for mount in mounts if isinstance(mount, dict))


def _refuse_ambiguous_names(module: str, options: Mapping[str, Any]) -> None:
    """The engine folds case in its own way (``ſ`` is ``s`` to it) and merges doubled keys: such names could hide an option."""
    doubled = len({key.lower() for key in options}) < len(options)
    if doubled or not all(key.isascii() for key in options):
        raise OptionForbidden(module=module, option="an option name that is doubled or not plain ASCII", word="nothing")


def _with_docker_keys(options: object, names: Collection[str]) -> dict[str, Any]:
    """``options`` with those of ``names`` in Docker's spelling, whatever case they were written in."""
    spelling = {name.lower(): name for name in names}
    return (
        {spelling.get(str(key).lower(), str(key)): value for key, value in options.items()} if isinstance(options, dict) else {}
    )


def _plain_privileges(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lowered = {key.lower(): value for key, value in options.items()}
    for word, names in _PRIVILEGES.items():
        yield from ((word, name) for name in names if lowered.get(name.lower()))
    yield from (("capabilities", name) for name in _UNMASKING if name.lower() in lowered)


def _shared_namespaces(options: object) -> Iterator[tuple[str, str]]:
    for mode, value in _with_docker_keys(options, _HOST_MODES).items():
        if mode in _HOST_MODES and str(value or "").lower().startswith(_SHARED):
            yield "host", f"{mode}={value}"


def _joined_networks(networking: object) -> Iterator[tuple[str, str]]:
    """Docker refuses the host's network here; other engines that speak its API need not."""
    joined = _with_docker_keys(networking, ("EndpointsConfig",)).get("EndpointsConfig") or {}
    for name in joined if isinstance(joined, dict) else ():
        if str(name).lower() == "host" or str(name).lower().startswith(_SHARED[1:]):
            yield "host", f"NetworkingConfig={name}"


def _host_folders(options: object) -> Iterator[tuple[str, str]]:
    named = _with_docker_keys(options, ("Binds", "Mounts"))
    for bind in named.get("Binds") or []:
        if str(bind).startswith(("/", ".", "~")):
            yield "binds", f"the host folder {bind}"
    for mount in named.get("Mounts") or []:
        parts = _with_docker_keys(mount, ("Type", "VolumeOptions"))
        # Options of a volume can name a driver that mounts a folder of the host.
        if parts.get("Type") not in ("volume", "tmpfs") or parts.get("VolumeOptions"):
            yield "binds", f"the mount {mount}"


def _remote_logs(options: object) -> Iterator[tuple[str, str]]:
    log = _with_docker_keys(options, ("LogConfig",)).get("LogConfig") or {}
    driver = str(_with_docker_keys(log, ("Type",)).get("Type") or "")
    if driver.lower() not in _LOGS_HERE:
        yield "remote-logs", f"the log driver {driver}"


def _survival(options: object) -> Iterator[tuple[str, str]]:
    """When memory is short the kernel ends whoever has the highest score: below 0, others go before this module."""
    named = _with_docker_keys(options, ("OomKillDisable", "OomScoreAdj"))
    score = named.get("OomScoreAdj") or 0
    if not isinstance(score, int) or score < 0:
        yield "oom-score", f"OomScoreAdj={score}"
    if named.get("OomKillDisable"):
        yield "oom-score", "OomKillDisable"


def _host_config(wanted: Wanted, host: dict[str, Any], exposed_ports: Collection[str]) -> dict[str, Any]:
    limits = wanted.spec.limits
    # The agent restarts modules itself: with reasons, probes and a delay that Docker does not know.
    host["RestartPolicy"] = {"Name": "no"}
    host["ExtraHosts"] = [*(host.get("ExtraHosts") or []), f"{HOST_NAME}:host-gateway"]
    if limits.memory_bytes is not None:
        host["Memory"] = limits.memory_bytes
    if limits.cpus is not None:
        host["NanoCpus"] = int(limits.cpus * 1e9)
    if limits.processes is not None:
        host["PidsLimit"] = limits.processes
    if limits.open_files is not None:
        files = {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files}
        host["Ulimits"] = [*(host.get("Ulimits") or []), files]
    if wanted.spec.port is not None:
        binding = [{"HostIp": "127.0.0.1", "HostPort": str(wanted.spec.port)}]
        host["PortBindings"] = {**(host.get("PortBindings") or {}), _inner_port(wanted.spec.port, exposed_ports): binding}
    return host


def _inner_port(port: int, exposed_ports: Collection[str]) -> str:
    """The port inside the container: the one the image exposes, else the same number."""
    tcp = sorted(exposed for exposed in exposed_ports if exposed.endswith("/tcp"))
    return f"{port}/tcp" if not tcp or f"{port}/tcp" in tcp else tcp[0]
