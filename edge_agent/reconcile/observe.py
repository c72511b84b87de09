"""One look at everything: what the engines say, with what the probes found, sorted into wanted and stray.

An engine that cannot be looked at makes only its own modules invisible; nothing is planned for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_agent.engines.engine import Engine
from edge_agent.engines.probes import Prober, Target, target_of
from edge_agent.errors import EngineBlind
from edge_agent.reconcile.situation import EngineKind, Running, Seen, Wanted


@dataclass(frozen=True)
class Observation:
    """What runs: ``seen`` by name for wanted modules, ``strays`` otherwise; ``blind`` engines with the reason."""

    seen: Mapping[str, Seen]
    strays: tuple[Seen, ...]
    blind: Mapping[EngineKind, str]


def observe(engines: Sequence[Engine], prober: Prober, wanted: Mapping[str, Wanted], before: Mapping[str, Wanted]) -> Observation:
    """Look at all engines; probing follows what is seen, also of the versions ``before`` that run until they are replaced."""
    everything: list[Seen] = []
    blind: dict[EngineKind, str] = {}
    for engine in engines:
        try:
            everything += engine.look()
        except EngineBlind as problem:
            blind[engine.kind] = str(problem)
    seen, strays = sort_out(everything, wanted)
    running = [module for module in seen.values() if isinstance(module, Running)]
    prober.watch(target for module in running if (target := _target(module, wanted, before)) is not None)
    return Observation({name: _with_finding(module, prober) for name, module in seen.items()}, strays, blind)


def _target(running: Running, wanted: Mapping[str, Wanted], before: Mapping[str, Wanted]) -> Target | None:
    version = before.get(running.name)
    if version is None or version.fingerprint != running.fingerprint:
        version = wanted[running.name]
    return target_of(version, running)


def sort_out(everything: Sequence[Seen], wanted: Mapping[str, Wanted]) -> tuple[dict[str, Seen], tuple[Seen, ...]]:
    """Modules that are wanted in the kind they have, by name, and all others."""
    seen: dict[str, Seen] = {}
    strays: list[Seen] = []
    for module in everything:
        belongs = module.name in wanted and wanted[module.name].spec.kind == module.kind
        if belongs:
            seen[module.name] = module
        else:
            strays.append(module)
    return seen, tuple(strays)


def _with_finding(module: Seen, prober: Prober) -> Seen:
    if not isinstance(module, Running):
        return module
    finding = prober.finding(module.name, module.run)
    return module if finding is None else replace(module, health=finding.health, detail=finding.detail)
