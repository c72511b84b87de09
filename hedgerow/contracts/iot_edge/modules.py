"""One module of ``$edgeAgent`` as a ModuleSpec. What IoT Edge's agent would take is taken; what is different here is said."""

from __future__ import annotations

import json
import re

from hedgerow.contracts.edge import LAST_STARTUP_ORDER, ModuleSpec
from hedgerow.contracts.edge_finding import Finding, note, warning
from hedgerow.contracts.iot_edge.create_options import is_options_key, read_create_options
from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.part import Part

# A label of the container: so another version replaces it, as IoT Edge does.
LABEL_VERSION = "hedgerow.module.version"
_KEYS = ("type", "status", "restartPolicy", "settings", "version", "env", "imagePullPolicy", "startupOrder")
_POLICIES = ("never", "on-failure", "on-unhealthy", "always")
_ENV_NAME = re.compile(r"[^+#$\s.=]{1,256}")
_IMAGE_CHARACTERS = 512


def read_module(identity: str, name: str, part: Part) -> tuple[ModuleSpec, list[Finding]]:
    """``identity`` is its id in IoT Edge, ``name`` ours. Raises IotEdgeInvalid."""
    findings = part.unknown(*_KEYS)
    kind = part.word("type", ("docker",))
    settings = part.part("settings")
    findings += [one for one in settings.unknown("image", "createOptions") if not is_options_key(one.place.rpartition(".")[2])]
    if kind is None:
        findings.append(warning(part.place, "it has no type; it is taken for a docker module", 'Write "type": "docker".'))
    policy = part.word("restartPolicy", _POLICIES)
    if policy is None:
        findings.append(note(part.place, "it has no restartPolicy; IoT Edge's default is on-unhealthy"))
    order = part.whole("startupOrder", 0, LAST_STARTUP_ORDER)
    options = read_create_options(settings)
    spec = ModuleSpec(
        kind="docker",
        image=_image(settings),
        variables=read_env(part.part("env"), findings),
        status="stopped" if part.word("status", ("running", "stopped")) == "stopped" else "running",
        restart_policy=policy or "on-unhealthy",  # type: ignore[arg-type]  # one of _POLICIES
        startup_order=LAST_STARTUP_ORDER if order is None else order,
        create_options=_with_version(options, part),
        display_name=None if identity == name else identity,
        pull_policy="never" if part.word("imagePullPolicy", ("on-create", "never")) == "never" else "on-create",
    )
    if spec.display_name is not None:
        findings.append(note(part.place, f"module {identity!r} is {name!r} here; the other name is kept for people"))
    return spec, findings


def read_env(env: Part, findings: list[Finding]) -> dict[str, str]:
    """``{NAME: {"value": …}}`` as text. Raises IotEdgeInvalid."""
    variables: dict[str, str] = {}
    for name, value in env.values.items():
        place = f"{env.place}.{name[:80]}"
        if not _ENV_NAME.fullmatch(name):
            raise wrong(place, "this is no name of a variable", "Leave out +, #, $, =, dots and blanks.")
        if not isinstance(value, dict):
            findings.append(warning(place, 'IoT Edge wants {"value": …} here', 'Write {"value": …}.'))
            variables[name] = _as_text(value, place)
            continue
        inner = Part.of(place, value)
        findings += inner.unknown("value")
        if inner.key_of("value") is None:
            raise wrong(place, "it has no value", 'Write {"value": …}.')
        variables[name] = _as_text(inner.get("value"), place)
    return variables


def _as_text(value: object, place: str) -> str:
    match value:
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case None:
            return ""
        case _:
            raise wrong(place, "a value is text, a number, true or false", "Write lists and objects as their JSON text.")


def _image(settings: Part) -> str:
    image = (settings.text("image") or "").strip()
    if not image:
        raise wrong(settings.at("image"), "there is no image", "Write HOST/NAME:TAG there, or NAME:VERSION of an image here.")
    if len(image) > _IMAGE_CHARACTERS:
        raise wrong(settings.at("image"), f"it has more than {_IMAGE_CHARACTERS} characters", "Shorten it.")
    return image


def _with_version(options: dict[str, object], part: Part) -> dict[str, object]:
    version = part.text("version")
    if not version:
        return options
    key = next((key for key in options if key.lower() == "labels"), "Labels")
    labels = options.get(key)
    return {**options, key: {**(labels if isinstance(labels, dict) else {}), LABEL_VERSION: version[:128]}}
