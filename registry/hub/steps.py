"""The steps that a device would take from what it runs to what it should run. Pure.

Not a guess: the agent's own planner is asked, again and again, in a world that does what it says at once. What cannot be known
here (how long a pull takes, whether a version proves itself) is taken to go well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.restart_policy import ordered
from edge_agent.reconcile.shadows import with_shadows
from edge_agent.reconcile.situation import (
    Exited,
    History,
    ImageState,
    ProofState,
    Running,
    Seen,
    Situation,
    Wanted,
    fingerprint,
)
from edge_agent.reconcile.steps import Prove, Pull, Remove, Start, Step, Stop, Wait
from hedgerow.contracts.api_fleet import PlannedStep
from hedgerow.contracts.edge import DesiredModule
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.shadow import comparer_of, owner_of, shadow_of
from hedgerow.contracts.status import ModuleStatus

_BOOT = "plan"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_RUNS = frozenset({"starting", "running", "unhealthy"})
_ENDED = frozenset({"backoff", "failed", "exited", "stopped"})
# Steps that one module can take at most: pull, prove, stop, remove, start, each once for two versions.
_ROUNDS_PER_MODULE = 10


@dataclass
class _World:
    """What is on the device, as far as its report says; every step changes it."""

    seen: dict[str, Seen]
    images: dict[str, ImageState]
    history: dict[str, History] = field(default_factory=dict)
    proofs: dict[str, ProofState] = field(default_factory=dict)


def planned_steps(
    before: Mapping[str, DesiredModule], statuses: Mapping[str, ModuleStatus], after: Mapping[str, DesiredModule]
) -> list[PlannedStep]:
    """What is done to modules, in its order; waiting only where it would not end by itself.

    ``before`` is what the device should have run when it reported ``statuses``.
    """
    before, after, statuses = with_shadows(before), with_shadows(after), _with_shadow_statuses(statuses)
    wanted = {name: Wanted(name, module.spec, module.image, fingerprint(module)) for name, module in after.items()}
    held = _held(before, statuses, after)
    world = _World(
        dict(_seen({**before, **held}, statuses, held)),
        {digest: ImageState(ready=True) for digest in _images_there(before, statuses)},
    )
    found = [_stays(name, statuses[name]) for name in sorted(held)]
    for _ in range(_ROUNDS_PER_MODULE * (len(wanted) + len(world.seen)) + 1):
        steps = plan(_situation(world, wanted))
        acts = [step for step in steps if not isinstance(step, Wait)]
        if not acts:
            return [*found, *(_told(step) for step in steps)]
        for step in acts:
            found.append(_told(step))
            _carry_out(step, world)
    return found


def images_there(before: Mapping[str, DesiredModule], statuses: Mapping[str, ModuleStatus]) -> list[ImagePin]:
    """Images that the device has, judging by its report."""
    before, statuses = with_shadows(before), _with_shadow_statuses(statuses)
    there = _images_there(before, statuses)
    return [module.image for module in before.values() if module.image is not None and module.image.digest in there]


def _situation(world: _World, wanted: Mapping[str, Wanted]) -> Situation:
    ours = {name for name, seen in world.seen.items() if name in wanted and wanted[name].spec.kind == seen.kind}
    return Situation(
        wanted=wanted,
        seen={name: seen for name, seen in world.seen.items() if name in ours},
        strays=tuple(seen for name, seen in world.seen.items() if name not in ours),
        now_s=0.0,
        boot_id=_BOOT,
        history=world.history,
        images=world.images,
        proofs=world.proofs,
    )


def _held(
    before: Mapping[str, DesiredModule], statuses: Mapping[str, ModuleStatus], after: Mapping[str, DesiredModule]
) -> dict[str, DesiredModule]:
    """Modules whose wanted version the device has taken back: as long as it stays the same, it gets no other trial."""
    refused = [name for name, status in statuses.items() if status.rolled_back_from is not None]
    same = [
        name for name in refused if name in before and name in after and fingerprint(before[name]) == fingerprint(after[name])
    ]
    return {name: after[name] for name in same}


def _stays(name: str, status: ModuleStatus) -> PlannedStep:
    reason = status.rollback_reason or "it was not well"
    return PlannedStep(action="wait", module=name, text=f"the version before it stays: the device took this one back ({reason})")


def _seen(
    before: Mapping[str, DesiredModule], statuses: Mapping[str, ModuleStatus], held: Mapping[str, DesiredModule]
) -> Iterator[tuple[str, Seen]]:
    for name, status in statuses.items():
        module = before.get(name)
        kind = module.spec.kind if module else "process"
        current = module is not None and (name in held or _is_current(module, status))
        print_of = fingerprint(module) if module is not None and current else "another version"
        if status.state in _RUNS:
            # Whatever ails it now, a new desired state is not about that.
            yield name, Running(name=name, kind=kind, fingerprint=print_of, run="seen", pid=None, started_at=_LONG_AGO)
        elif status.state in _ENDED and status.started_at is not None:
            yield (
                name,
                Exited(
                    name=name,
                    kind=kind,
                    fingerprint=print_of,
                    run="seen",
                    exit_code=status.exit_code,
                    started_at=_LONG_AGO,
                    exited_at=None,
                    reason=f"exit code {status.exit_code}",
                ),
            )


def _images_there(before: Mapping[str, DesiredModule], statuses: Mapping[str, ModuleStatus]) -> set[str]:
    """An agent names an image when what it sees of the module is of that very version."""
    named = {status.image_digest for status in statuses.values() if status.image_digest is not None}
    refused = {status.rolled_back_from for status in statuses.values() if status.rolled_back_from is not None}
    return named | {module.image.digest for module in before.values() if module.image and module.image.digest in refused}


def _is_current(module: DesiredModule, status: ModuleStatus) -> bool:
    """Whether what the report speaks of is the version that the desired state asks for."""
    if status.rolled_back_from is not None:
        return False
    return module.image is None or status.image_digest == module.image.digest


def _carry_out(step: Step, world: _World) -> None:
    match step:
        case Pull():
            world.images[step.image.digest] = ImageState(ready=True)
        case Prove():
            world.proofs[step.image.digest] = ProofState(passed=True)
        case Stop():
            past = world.history.get(step.module, History(boot_id=_BOOT))
            world.history[step.module] = ordered(past, step.cause, step.run)
            world.seen[step.module] = _ended(world.seen[step.module])
        case Remove():
            world.seen.pop(step.module, None)
        case Start():
            world.seen[step.module] = _started(step)
        case Wait():
            pass


def _ended(seen: Seen) -> Seen:
    return Exited(
        name=seen.name,
        kind=seen.kind,
        fingerprint=seen.fingerprint,
        run=seen.run,
        exit_code=0,
        started_at=seen.started_at,
        exited_at=None,
        reason="it was stopped",
    )


def _started(step: Start) -> Running:
    wanted = step.wanted
    first = Running(name=wanted.name, kind=wanted.spec.kind, fingerprint="", run="new", pid=None, started_at=_LONG_AGO)
    return replace(first, fingerprint=wanted.fingerprint)


def _told(step: Step) -> PlannedStep:
    module = owner_of(step.module)
    whose = "" if step.module == module else "its shadow: " if step.module == shadow_of(module) else "its shadow's comparer: "
    text = f"{whose}{step.reason}"
    match step:
        case Pull():
            return PlannedStep(action="pull", module=module, text=text, image=image_name(step.image))
        case Prove():
            return PlannedStep(action="prove", module=module, text=text, image=image_name(step.image))
        case Stop():
            return PlannedStep(action="stop", module=module, text=f"{text}; it gets {step.grace_s:g} s to end")
        case Remove():
            return PlannedStep(action="remove", module=module, text=text)
        case Start():
            return PlannedStep(action="start", module=module, text=text)
        case Wait():
            return PlannedStep(action="wait", module=module, text=text)


def _with_shadow_statuses(statuses: Mapping[str, ModuleStatus]) -> dict[str, ModuleStatus]:
    """A shadow is told with its module; on the device it is one of its own, and so is its comparer."""
    everything = dict(statuses)
    for name, status in statuses.items():
        if status.shadow is not None:
            there, digest = status.shadow.state, status.shadow.image_digest
            began = _LONG_AGO if there in _ENDED else None
            everything[shadow_of(name)] = ModuleStatus(state=there, reason="", image_digest=digest, started_at=began)
            everything[comparer_of(name)] = ModuleStatus(state="running", reason="")
    return everything


def image_name(image: ImagePin) -> str:
    """As people know it."""
    return image.reference or f"{image.name}:{image.version}"
