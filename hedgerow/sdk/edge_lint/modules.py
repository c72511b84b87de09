"""Traps of one module: restarts, probes, limits, images, options that a device refuses, logs without end, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.engines.docker_options import check_allowed
from edge_agent.errors import OptionForbidden
from edge_agent.reconcile.situation import Wanted
from hedgerow.contracts.edge import ModuleSpec
from hedgerow.contracts.edge_finding import Finding, error, note, warning
from hedgerow.contracts.foreign_image import is_foreign, written_out
from hedgerow.contracts.remote_image import RemoteImage, RemoteReferenceInvalid

# As long as there are words to allow; each look finds the next.
_PRIVILEGES_AT_MOST = 8
_ARCHITECTURE = re.compile(r"(?:^|[-_.])(amd64|x86_64|arm64v8|arm64|aarch64|arm32v7|armhf|windows-amd64)$")
_SECRET_NAME = re.compile(r"(?i)(pass(word|wd)?|secret|token|api_?key|access_?key|connection_?string|credential)s?$")
_SECRET_VALUE = re.compile(r"(?i)(SharedAccessKey|AccountKey|BEGIN [A-Z ]{0,20}PRIVATE KEY|AKIA[0-9A-Z]{16})")
_BOUNDED_DRIVERS = frozenset({"local", "none", "journald", "syslog"})


def module_findings(name: str, spec: ModuleSpec) -> Iterator[Finding]:
    """What there is to say about module ``name``."""
    place = f"$.modules.{name}"
    yield from _restarts(place, spec)
    yield from _probe(place, spec)
    yield from _image(place, spec)
    yield from _variables(place, spec)
    options = {str(key).lower(): value for key, value in spec.create_options.items()}
    host = _folded(options.get("hostconfig"))
    if spec.limits.memory_bytes is None and not host.get("memory"):
        yield warning(f"{place}.limits", "it has no memory limit, so it can take all of the device's", "Set limits.memory_bytes.")
    if spec.kind == "docker":
        yield from _privileges(place, name, spec)
        yield from _logs(place, host)
        if _folded(host.get("restartpolicy")).get("name") not in (None, "", "no"):
            text = "Docker's own restart policy is replaced: the agent restarts modules, with reasons and probes"
            yield note(f"{place}.create_options.HostConfig.RestartPolicy", text)
    elif spec.create_options:
        yield warning(
            f"{place}.create_options", "they are for containers and mean nothing for a process", 'Write kind = "docker".'
        )


def _restarts(place: str, spec: ModuleSpec) -> Iterator[Finding]:
    if spec.status == "stopped":
        yield note(f"{place}.status", "it is deployed stopped")
    elif spec.restart_policy == "never":
        yield warning(f"{place}.restart_policy", "once it ends, for whatever reason, it stays down", 'Write "always".')
    elif spec.restart_policy == "always":
        yield note(
            f"{place}.restart_policy",
            "always means always here: delays grow to a minute and it is never given up (IoT Edge stops for good after 20)",
        )
    elif spec.restart_policy == "on-failure":
        yield note(f"{place}.restart_policy", "when it ends with exit code 0 it stays down")


def _probe(place: str, spec: ModuleSpec) -> Iterator[Finding]:
    health = any(str(key).lower() == "healthcheck" for key in spec.create_options)
    if spec.probe is None:
        if spec.kind == "docker" and not health and spec.restart_policy != "never":
            text = "it has no probe, so nobody notices when it hangs"
            if spec.restart_policy == "on-unhealthy":
                text = "nothing can tell that it is unhealthy, so its policy acts on failed ends only"
            yield warning(f"{place}.probe", text, "Give it a probe, or a Healthcheck in its create options.")
        return
    if spec.probe.kind == "exec" and not spec.probe.command:
        yield error(f"{place}.probe.command", "an exec probe has no command", "Write the command, as a list.")
    if spec.probe.kind in ("http", "tcp") and spec.kind == "docker" and spec.port is None and not _has_ports(spec):
        yield error(f"{place}.probe", f"a {spec.probe.kind} probe needs a port", "Set port.")
    if spec.probe.timeout_s >= spec.probe.period_s:
        yield note(f"{place}.probe.timeout_s", "it is not shorter than the period, so probes come later than planned")
    if spec.update.rollback and spec.probe.start_patience_s > spec.update.ready_within_s:
        yield note(
            f"{place}.update.ready_within_s",
            f"a new version is taken back after {spec.update.ready_within_s:g} s, before its probe loses patience",
        )


def _has_ports(spec: ModuleSpec) -> bool:
    options = _folded(spec.create_options)
    return bool(_folded(options.get("hostconfig")).get("portbindings") or options.get("exposedports"))


def _image(place: str, spec: ModuleSpec) -> Iterator[Finding]:
    at = f"{place}.image"
    if spec.image is None:
        if spec.kind == "docker":
            yield error(at, "a docker module has no image", "Name it.")
        elif not spec.command:
            yield error(place, "a process module has neither an image nor a command", "Write one of them.")
        return
    if spec.kind == "process" and spec.command:
        yield error(place, "it has an image and a command", "Leave one of them out.")
    if spec.kind == "process" and is_foreign(spec.image):
        yield error(at, "an image of another registry runs as a container", 'Write kind = "docker".')
    if spec.pull_policy == "never":
        yield warning(f"{place}.pull_policy", "the image is never pulled; a device that lacks it waits", 'Write "on-create".')
    yield from _foreign_image(at, spec.image) if is_foreign(spec.image) else _own_image(at, spec.image)


def _foreign_image(at: str, reference: str) -> Iterator[Finding]:
    try:
        image = RemoteImage.parse(reference)
    except RemoteReferenceInvalid as problem:
        yield error(at, str(problem), problem.advice)
        return
    if image.digest is None and image.tag == "latest":
        yield warning(at, f"{written_out(image)} is whatever it is when it is deployed", "Name a version.")
    elif image.digest is None:
        yield note(at, "its tag is resolved to a digest when it is deployed; the control plane must reach that registry")
    if found := _ARCHITECTURE.search(image.tag):
        yield note(at, f"by its tag it runs on {found[1]} only", "See that the target names such devices only.")


def _own_image(at: str, image: str) -> Iterator[Finding]:
    name, colon, version = image.partition(":")
    if "@" in image:
        return
    if not colon:
        yield note(at, f"the newest version of {name} is taken when it is deployed, and stays until the next deployment")
    elif not version.isdecimal():
        hub = f"docker.io/library/{image}"
        text = f"{image!r} has no version of an image here, which is a number"
        yield error(at, text, f"Write {hub} if it is Docker Hub's, or HOST/NAME:TAG.")


def _variables(place: str, spec: ModuleSpec) -> Iterator[Finding]:
    for variable, value in spec.variables.items():
        at = f"{place}.variables.{variable}"
        if value and (_SECRET_NAME.search(variable) or _SECRET_VALUE.search(value)):
            text = "it looks like a secret; everybody who may read deployments reads it"
            yield warning(at, text, "Keep it on the device: a file that the module reads, or Docker's secrets.")
        if variable.startswith("HEDGEROW_"):
            yield warning(at, "the agent sets variables of this name itself", "Choose another.")
        elif variable.startswith("IOTEDGE_"):
            yield note(at, "IoT Edge's workload API is not here; modules use HEDGEROW_TELEMETRY_URL or the local MQTT")


def _privileges(place: str, name: str, spec: ModuleSpec) -> Iterator[Finding]:
    allowed: set[str] = set()
    for _ in range(_PRIVILEGES_AT_MOST):
        try:
            check_allowed(Wanted(name, spec, None, ""), allowed)
        except OptionForbidden as refusal:
            word, option = str(refusal.fields["word"]), str(refusal.fields["option"])[:200]
            at = f"{place}.create_options"
            if word == "nothing" or word in allowed:
                yield error(at, f"every device refuses it: {option}", "Take it away.")
                return
            yield warning(at, f"a device refuses {option} unless it allows {word}", f"Agent: --docker-allow {word}")
            allowed.add(word)
        except (TypeError, AttributeError, ValueError):
            # Lists where objects belong, and the like.
            yield error(
                f"{place}.create_options", "Docker would not take them: a value is of the wrong kind", "See ContainerCreate."
            )
            return
        else:
            return


def _logs(place: str, host: Mapping[str, Any]) -> Iterator[Finding]:
    log = _folded(host.get("logconfig"))
    if not log:
        return
    driver = str(log.get("type") or "json-file")
    if driver not in _BOUNDED_DRIVERS and "max-size" not in _folded(log.get("config")):
        at = f"{place}.create_options.HostConfig.LogConfig"
        yield warning(at, f"its logs grow without end ({driver} without max-size)", "Set max-size and max-file.")


def _folded(value: object) -> dict[str, Any]:
    return {str(key).lower(): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}
