"""Shadows of modules: what runs beside a module for its sake, as modules of their own, and how that is told of the module. Pure.

A module with a shadow means two more processes: the shadow itself (the runtime on the shadow's image) and the comparer
(``python -m runtime.shadow``), which listens at the module's tap. The planner treats both as any module: pulled, started,
restarted with delays, stopped, adopted by the next agent. But they have no trial (nobody depends on them), no telemetry, no port
that is known, and nothing ever waits for them: neither an update of another module nor the outcome of the desired state.

The module itself does not know: its fingerprint is the same with and without a shadow, and it always has its tap.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.edge import (
    LAST_STARTUP_ORDER,
    DesiredModule,
    Limits,
    ModuleSpec,
    Shadow,
    TelemetrySources,
    UpdatePolicy,
)
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.shadow import comparer_of, owner_of, pair_begins, shadow_of

_COMPARER_MEMORY_BYTES = 256 * 1024 * 1024
_COMPARER_GRACE_S = 3.0
# Places that only one process can have, and ways by which answers of a shadow would pass for the module's.
_NOT_FOR_SHADOWS = frozenset(
    {
        "HEDGEROW_GRPC_PORT",
        "HEALTH_PORT",
        "HEDGEROW_TAP_DIR",
        "HEDGEROW_TELEMETRY_URL",
        "HEDGEROW_TELEMETRY_TOKEN",
        "HEDGEROW_MQTT_URL",
        "AML_MODEL_DC_STORAGE_ENABLED",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
)


def with_shadows(modules: Mapping[str, DesiredModule]) -> dict[str, DesiredModule]:
    """``modules``, and what their shadows mean on a device."""
    everything = dict(modules)
    for name, module in modules.items():
        shadow, image = module.spec.shadow, module.shadow_image
        # Only what the runtime serves has a tap, and only that can be its shadow; the hub refuses the rest.
        if shadow is None or image is None or not (_is_served(module.image) and _is_served(image)):
            continue
        if module.spec.kind == "process":
            everything[shadow_of(name)] = DesiredModule(spec=_shadow_spec(module.spec, shadow), image=image)
            everything[comparer_of(name)] = DesiredModule(spec=_comparer_spec(name, module, shadow, image))
    return everything


def told_as(name: str, action: str) -> tuple[str, str]:
    """Module and action under which something about ``name`` is recorded: of a shadow, it is told of its module."""
    owner = owner_of(name)
    return owner, action if owner == name else f"{'shadow' if name == shadow_of(owner) else 'comparer'}-{action}"


def _is_served(image: ImagePin | None) -> bool:
    return image is not None and image.kind == "onnx"


def _shadow_spec(spec: ModuleSpec, shadow: Shadow) -> ModuleSpec:
    return msgspec.structs.replace(
        spec,
        image=shadow.image,
        variables={name: value for name, value in spec.variables.items() if name not in _NOT_FOR_SHADOWS},
        restart_policy="always",
        startup_order=LAST_STARTUP_ORDER,
        port=None,
        # The runtime's own readiness: a heartbeat, or a path of the module's script, is not for its shadow.
        probe=None,
        display_name=None,
        update=UpdatePolicy(rollback=False),
        telemetry=TelemetrySources(),
        shadow=None,
    )


def _comparer_spec(name: str, module: DesiredModule, shadow: Shadow, image: ImagePin) -> ModuleSpec:
    # A module works in modules/NAME/work: paths from there are the same on every device.
    there = {"tap": f"../../{name}/tap", "shadow": f"../../{shadow_of(name)}/ready.json", "pair": _pair(module, shadow, image)}
    rules = {"fraction": shadow.fraction, "rtol": shadow.rtol, "atol": shadow.atol}
    flags = [text for flag, value in {**there, **rules}.items() for text in (f"--{flag}", str(value))]
    return ModuleSpec(
        # Run with the agent's own Python (``engines/engine_process.py``): another release of the agent restarts nothing.
        command=["runtime.shadow", *flags],
        status=module.spec.status,
        limits=Limits(memory_bytes=_COMPARER_MEMORY_BYTES),
        stop_grace_s=_COMPARER_GRACE_S,
        update=UpdatePolicy(rollback=False),
    )


def _pair(module: DesiredModule, shadow: Shadow, image: ImagePin) -> str:
    """Names what is compared and how: what was counted of something else says nothing."""
    what = [module.image.digest if module.image else "", shadow.rtol, shadow.atol]
    rest = digest_of(msgspec.json.encode(what)).partition(":")[2][:16]
    return f"{pair_begins(image.digest)}{rest}"
