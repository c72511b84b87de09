"""Brings together what new versions are judged by (what runs, proofs, their own metrics) and hands it to ``way_back.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_agent.engines.proofs import Proofs
from edge_agent.engines.sampling import Sampled, Sampler
from edge_agent.reconcile.hands import Outcome
from edge_agent.reconcile.observe import Observation
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.situation import History, Running, Seen, Wanted
from edge_agent.reconcile.steps import Start
from edge_agent.reconcile.trial import Signals
from edge_agent.reconcile.way_back import Circumstances, WayBack


class Trials:
    """Called by the supervisor only."""

    def __init__(self, way_back: WayBack, proofs: Proofs, sampler: Sampler) -> None:
        self.way_back = way_back
        self.proofs = proofs
        self._sampler = sampler

    def judge(
        self,
        asked: Mapping[str, Wanted],
        seen: Observation,
        ended: Sequence[Outcome],
        history: Mapping[str, History],
        moment: Moment,
    ) -> set[str]:
        """Move all versions on by one look; returns the modules that were taken back or whose update was refused."""
        sampled = self._sampled(asked, seen.seen)
        self._sampler.watch(sampled.values())
        now = Circumstances(
            seen.seen,
            history,
            moment,
            blind=seen.blind.keys(),
            proofs=self.proofs.states(),
            signals=self._signals(sampled),
            start_problems=_start_problems(asked, ended),
        )
        back = self.way_back.advance(asked, now)
        self.proofs.keep_only({wanted.image.digest for wanted in asked.values() if wanted.image})
        return back

    def try_again(self, name: str) -> None:
        """An operator knows of a new cause: a version that was refused gets another trial, with another proof."""
        version = self.way_back.try_again(name)
        if version is not None:
            self.proofs.forget(version)

    def close(self) -> None:
        """End what is under way in the background."""
        self._sampler.watch([])
        self.proofs.close()

    def _sampled(self, asked: Mapping[str, Wanted], seen: Mapping[str, Seen]) -> dict[str, Sampled]:
        on_trial = self.way_back.before(asked)
        found: dict[str, Sampled] = {}
        for name, wanted in asked.items():
            running, update = seen.get(name), wanted.spec.update
            bounded = update.max_error_rate is not None or update.max_latency_p95_s is not None
            if name in on_trial and bounded and isinstance(running, Running) and running.fingerprint == wanted.fingerprint:
                path = wanted.spec.telemetry.scrape_path or "/metrics"
                found[name] = Sampled(running.kind, name, running.run, path, update.commit_after_s)
        return found

    def _signals(self, sampled: Mapping[str, Sampled]) -> dict[str, Signals]:
        found = {name: self._sampler.signals(target) for name, target in sampled.items()}
        return {name: signals for name, signals in found.items() if signals is not None}


def _start_problems(asked: Mapping[str, Wanted], ended: Sequence[Outcome]) -> dict[str, str]:
    """Starts of the version that is asked for that failed: the problem where it is the module's own, "" otherwise."""
    problems: dict[str, str] = {}
    for outcome in ended:
        step = outcome.step
        if outcome.problem is None or not isinstance(step, Start) or step.module not in asked:
            continue
        if step.wanted.fingerprint == asked[step.module].fingerprint:
            problems[step.module] = outcome.problem if outcome.own_fault else ""
    return problems
