"""What the planner is told: wanted modules, what was seen, what happened before, what is on the disk. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from edge_agent.reconcile.shadows import with_shadows
from edge_agent.reconcile.versions import Versions
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.edge import DesiredModule, DesiredState, Limits, ModuleSpec
from hedgerow.contracts.service import ImagePin

EngineKind = Literal["process", "docker"]
Health = Literal["starting", "ready", "unhealthy"]


@dataclass(frozen=True)
class Wanted:
    """One module of the desired state. ``fingerprint`` changes exactly when a running module must be replaced."""

    name: str
    spec: ModuleSpec
    image: ImagePin | None
    fingerprint: str


@dataclass(frozen=True)
class Running:
    """A module that runs. ``run`` identifies this run among all runs of the module, also across agent restarts."""

    name: str
    kind: EngineKind
    fingerprint: str
    run: str
    pid: int | None
    started_at: datetime
    address: str | None = None
    health: Health = "ready"
    detail: str = ""


@dataclass(frozen=True)
class Exited:
    """A module whose last run ended and was not cleaned away. ``exit_code`` is None when nobody saw the end."""

    name: str
    kind: EngineKind
    fingerprint: str
    run: str
    exit_code: int | None
    started_at: datetime
    exited_at: datetime | None
    reason: str


Seen = Running | Exited


@dataclass(frozen=True)
class ImageState:
    """An image that was asked for: on the device, or on its way (``failures`` attempts in a row failed).

    ``look_only``: it is not fetched, it has to be on the device already.
    """

    ready: bool
    failures: int = 0
    detail: str = "being pulled"
    look_only: bool = False


@dataclass(frozen=True)
class ProofState:
    """The repetition of an image's proof on this device: under way (``passed`` None), passed, or failed with the reason."""

    passed: bool | None
    detail: str = "its proof is being repeated on this device"


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a module between rounds and across agent restarts (persisted).

    ``failures`` in a row decide the delay; ``restarts`` only counts. ``retry_at_s`` and ``since_s`` are monotonic seconds of
    boot ``boot_id``. ``counted_run`` is the run whose failure is in ``failures`` already. ``ordered_stop`` is written
    before a stop is carried out, with the run it is for.
    """

    desired_version: int = 0
    boot_id: str = ""
    run: str = ""
    since_s: float = 0.0
    failures: int = 0
    restarts: int = 0
    retry_at_s: float = 0.0
    counted_run: str = ""
    problem: str = ""
    ordered_stop: StopCause | None = None
    ordered_run: str = ""


StopCause = Literal["unhealthy", "replaced", "removed", "stopped", "restarted"]


@dataclass(frozen=True)
class Situation:
    """Everything a plan depends on. ``wanted`` is None until a desired state was accepted: then nothing is touched.

    ``strays`` run here without being wanted (or are of another kind than wanted); ``busy`` modules have an action under
    way; ``blind`` engines could not be looked at, with the reason. ``now_s`` is monotonic, of boot ``boot_id``.
    ``versions`` is what is known of each module's versions, ``before`` what runs on until the wanted version can be switched
    to, ``unproven`` the modules whose image has to be proven before that. ``restart``: modules that somebody wants restarted,
    and why.
    """

    wanted: Mapping[str, Wanted] | None
    seen: Mapping[str, Seen]
    now_s: float
    boot_id: str
    strays: tuple[Seen, ...] = ()
    history: Mapping[str, History] = field(default_factory=dict)
    images: Mapping[str, ImageState] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    blind: Mapping[EngineKind, str] = field(default_factory=dict)
    versions: Mapping[str, Versions] = field(default_factory=dict)
    before: Mapping[str, Wanted] = field(default_factory=dict)
    unproven: frozenset[str] = frozenset()
    proofs: Mapping[str, ProofState] = field(default_factory=dict)
    restart: Mapping[str, str] = field(default_factory=dict)

    def past(self, name: str) -> History:
        """The history of a module, an empty one when there is none."""
        return self.history.get(name) or History()


def wanted_modules(state: DesiredState) -> dict[str, Wanted]:
    """The modules of a desired state, by name, and what their shadows mean."""
    modules = with_shadows(state.modules)
    return {name: Wanted(name, module.spec, module.image, fingerprint(module)) for name, module in modules.items()}


def fingerprint(module: DesiredModule) -> str:
    """Digest of what a run depends on. Policy, order, probe and status may change under a running module."""
    spec = module.spec
    what = {
        "kind": spec.kind,
        "image": module.image.digest if module.image else spec.image,
        "command": spec.command,
        "variables": spec.variables,
        "port": spec.port,
        "limits": _limits(spec.limits),
        "create_options": spec.create_options,
    }
    # Parsed JSON is hashed, not its text: another order of keys must never re-create a container.
    return digest_of(msgspec.json.encode(what, order="deterministic"))


class _FirstLimits(msgspec.Struct, frozen=True):
    memory_bytes: int | None
    cpus: float | None
    open_files: int | None


def _limits(limits: Limits) -> Limits | _FirstLimits:
    """As agents before `processes` hashed them: a new agent adopts what an older one has started."""
    first = _FirstLimits(limits.memory_bytes, limits.cpus, limits.open_files)
    return limits if limits.processes is not None else first
