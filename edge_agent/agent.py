"""The story of the agent: look at what is wanted and what runs, plan, act, and look again.

The supervisor's thread runs ``settle_once`` whenever the bell rings: a module ended, a desired state came, an image arrived, a
probe changed its mind, an action was done, or a waiting time is over. Pulling, probing, telemetry, the link and reporting have
threads of their own, so nothing slow stands between the end of a module and its new start.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping

import msgspec

from edge_agent.bell import Bell
from edge_agent.decisions import DecisionLog
from edge_agent.engines.in_use import Engines
from edge_agent.engines.probes import Prober
from edge_agent.errors import NotWantedRunning
from edge_agent.images.puller import Puller
from edge_agent.link.desired import Accepted, DesiredKeeper, Refusal
from edge_agent.link.reported import status_code
from edge_agent.link.reporter import Reporter, Snapshot
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.hands import Hands, Outcome
from edge_agent.reconcile.observe import Observation, observe
from edge_agent.reconcile.outcome import desired_outcome, module_statuses
from edge_agent.reconcile.plan import plan, startup_order
from edge_agent.reconcile.restart_policy import Moment, forgotten, learn, ordered, start_failed, wanted_again
from edge_agent.reconcile.shadows import told_as
from edge_agent.reconcile.situation import History, Running, Situation, Wanted, wanted_modules
from edge_agent.reconcile.steps import Start, Step, Stop, Wait
from edge_agent.reconcile.tally import Tally
from edge_agent.reconcile.trials import Trials
from edge_agent.reconcile.wishes import Wishes, still_to_restart
from edge_agent.state_store import StateStore
from hedgerow.clock import Clock
from hedgerow.contracts.status import DesiredOutcome

# Nothing should need it: a look without a reason, in case that a wake-up is lost.
LOOK_AGAIN_S = 30.0
# How long the refusal of an old desired state is shown before the one in force is again.
REFUSAL_SHOWN_S = 30.0
log = logging.getLogger(__name__)


class Histories(msgspec.Struct, frozen=True):
    """``history.json``."""

    modules: dict[str, History] = {}


class Agent:
    """The supervisor. ``boot_id`` is the kernel's; it gives stored monotonic times their meaning."""

    def __init__(
        self,
        desired: DesiredKeeper,
        engines: Engines,
        hands: Hands,
        prober: Prober,
        puller: Puller,
        trials: Trials,
        reporter: Reporter,
        decisions: DecisionLog,
        store: StateStore,
        metrics: Metrics,
        clock: Clock,
        bell: Bell,
        boot_id: str,
    ) -> None:
        self._desired = desired
        self._engines = engines
        self._hands = hands
        self._prober = prober
        self._puller = puller
        self._trials = trials
        self._reporter = reporter
        self._decisions = decisions
        self._store = store
        self._clock = clock
        self._bell = bell
        self._boot_id = boot_id
        loaded = store.load("history.json", Histories)
        self._history: Mapping[str, History] = loaded.modules if loaded else {}
        self._wishes = Wishes()
        self._restart: dict[str, str] = {}
        self._images_kept: frozenset[str] | None = None
        self._refusal: tuple[DesiredOutcome, float] | None = None
        self._stopping = threading.Event()
        self._tally = Tally(metrics, clock.monotonic_s())
        self.rounds = 0

    def run(self) -> None:
        """Settle again and again until ``stop``."""
        watching = False
        while not self._stopping.is_set():
            try:
                if not watching:
                    self._engines.watch()
                    watching = True
                wait_s = self.settle_once()
            except Exception:
                # One bad round must not end the care for all modules.
                log.exception("a round failed; the next one follows")
                wait_s = 1.0
            self.rounds += 1
            self._bell.wait(wait_s)

    def stop(self) -> None:
        """End ``run`` after the round under way; modules are left as they are."""
        self._stopping.set()
        self._bell.ring()

    def take_desired(self, envelope: bytes, incarnation: str) -> None:
        """A signed desired state has arrived."""
        try:
            answer = self._desired.offer(envelope, incarnation)
        except OSError as disk:
            # The hub sends it again with the next session.
            self._decisions.record(None, "refuse-desired", f"500: it cannot be stored: {disk.strerror}")
            return
        match answer:
            case Accepted(state=state, changed=True):
                self._decisions.record(
                    None, "accept-desired", f"version {state.version} of {state.edge_deployment or 'no deployment'}"
                )
                self._puller.hurry()
            case Refusal(version=version, problem=problem):
                outcome = DesiredOutcome(
                    version=version or self._desired.version, code=status_code(problem), message=problem.sentence()
                )
                self._refusal = (outcome, self._clock.monotonic_s())
                self._tally.refused(problem.key)
                self._decisions.record(None, "refuse-desired", f"{outcome.code}: {problem}")
        if isinstance(answer, Accepted):
            self._tally.accepted(answer.state.version, self._clock.monotonic_s(), changed=answer.changed)
            self._refusal = None
        self._bell.ring()

    def restart_module(self, name: str, reason: str) -> None:
        """Stop and start a module now (or start it now when it waits); no failure is counted. Raises NotWantedRunning."""
        state = self._desired.state
        wanted = state.modules.get(name) if state else None
        if wanted is None or wanted.spec.status != "running":
            raise NotWantedRunning(module=name)
        self._wishes.restart(name, reason)
        self._bell.ring()

    def forget_failures(self, name: str) -> None:
        """Try at once what waits, and give a version that was taken back another trial: an operator knows of a new cause."""
        self._wishes.again(name)
        self._bell.ring()

    def network_back(self) -> None:
        """The hub is reachable again: modules that failed for want of a network are tried now."""
        self._wishes.network_back(self._clock.monotonic_s())
        self._bell.ring()

    @property
    def images_kept(self) -> frozenset[str] | None:
        """Digests of the images that must stay on this device, ways back included; None until that is known."""
        return self._images_kept

    def settle_once(self) -> float:
        """One round; returns the seconds until the next look is due."""
        ended, busy = self._hands.take()
        state = self._desired.state
        asked = wanted_modules(state) if state else {}
        now_s = self._clock.monotonic_s()
        moment = Moment(now_s, self._boot_id, state.version if state else 0, random.random)
        wanted, seen = self._look(asked)
        history = self._remember(wanted, seen, ended, moment)
        if state is not None and self._judge_versions(asked, wanted, seen, ended, history, moment):
            wanted, seen = self._look(asked)
        self._images_kept = frozenset(self._trials.way_back.images(asked)) if state else None
        if self._images_kept is not None:
            self._puller.keep_only(self._images_kept)
        situation = self._situation(asked, wanted if state else None, seen, history, busy, now_s)
        steps = plan(situation)
        self._trials.way_back.keep()
        self._keep(_with_orders(history, steps))
        self._tell(steps)
        self._tally.began(steps)
        self._hands.run(steps)
        self._restart = still_to_restart(situation, steps)
        modules = module_statuses(situation, steps)
        self._tally.looked(modules, {name: one for name, one in wanted.items() if name in modules}, now_s)
        outcome = desired_outcome(state, situation, modules, steps)
        self._tally.outcome(outcome, now_s)
        self._reporter.show(Snapshot(self._outcome(outcome, now_s), modules))
        return _until_next(steps, self._trials.way_back.deadline_s(asked, now_s), now_s)

    def stop_modules(self) -> None:
        """Stop everything that runs, the last started first. For the end of an agent that was told to leave nothing behind."""
        state = self._desired.state
        wanted = wanted_modules(state) if state else {}
        wanted = self._trials.way_back.targets(wanted)
        seen = observe(self._engines.in_use(set()), self._prober, wanted, {}).seen
        for module in reversed(startup_order(wanted)):
            running = seen.get(module.name)
            if isinstance(running, Running):
                self._record(module.name, "stop", "the agent ends and was told to stop its modules")
                self._keep(
                    {**self._history, module.name: ordered(self._history.get(module.name, History()), "stopped", running.run)}
                )
                self._engines.of(running.kind).stop(module.name, module.spec.stop_grace_s)

    def _look(self, asked: Mapping[str, Wanted]) -> tuple[dict[str, Wanted], Observation]:
        """What the device aims at, and what runs of it."""
        wanted = self._trials.way_back.targets(asked)
        before = self._trials.way_back.before(asked)
        engines = self._engines.in_use({module.spec.kind for module in wanted.values()})
        return wanted, observe(engines, self._prober, wanted, before)

    def _situation(
        self,
        asked: Mapping[str, Wanted],
        wanted: Mapping[str, Wanted] | None,
        seen: Observation,
        history: Mapping[str, History],
        busy: frozenset[str],
        now_s: float,
    ) -> Situation:
        """Everything that the plan is made of."""
        return Situation(
            wanted=wanted,
            seen=seen.seen,
            strays=seen.strays,
            history=history,
            images=self._puller.images(),
            busy=busy,
            blind=seen.blind,
            now_s=now_s,
            boot_id=self._boot_id,
            versions=self._trials.way_back.known,
            before=self._trials.way_back.before(asked),
            unproven=self._trials.way_back.unproven(asked),
            proofs=self._trials.proofs.states(),
            restart=self._restart,
        )

    def _judge_versions(
        self,
        asked: Mapping[str, Wanted],
        wanted: Mapping[str, Wanted],
        seen: Observation,
        ended: list[Outcome],
        history: dict[str, History],
        moment: Moment,
    ) -> bool:
        """Commit, take back, refuse. True when the device now aims at something else than ``wanted``."""
        back = self._trials.judge(asked, seen, ended, history, moment)
        for name in back:
            # The version that runs again has done nothing wrong.
            history[name] = forgotten(history[name])
        return self._trials.way_back.targets(asked) != wanted

    def _remember(
        self, wanted: Mapping[str, Wanted], seen: Observation, ended: list[Outcome], moment: Moment
    ) -> dict[str, History]:
        history = {name: past for name, past in self._history.items() if name in wanted}
        for outcome in ended:
            self._note(outcome, history, moment)
        for name, module in wanted.items():
            if module.spec.kind not in seen.blind:
                history[name] = learn(history.get(name, History()), seen.seen.get(name), module.spec.restart_policy, moment)
        self._take_wishes(seen, history)
        return history

    def _take_wishes(self, seen: Observation, history: dict[str, History]) -> None:
        wishes = self._wishes.take()
        self._restart.update(wishes.restart)
        for name in wishes.again:
            self._trials.try_again(name)
        for name, past in history.items():
            if name in self._restart:
                history[name] = wanted_again(past, seen.seen.get(name))
            elif name in wishes.again or (wishes.network and past.failures):
                history[name] = forgotten(past)

    def _note(self, outcome: Outcome, history: dict[str, History], moment: Moment) -> None:
        step = outcome.step
        self._tally.ended(outcome)
        if outcome.problem is not None:
            self._record(step.module, f"{type(step).__name__.lower()}-failed", outcome.problem)
            if isinstance(step, Start) and step.module in history:
                history[step.module] = start_failed(history[step.module], outcome.problem, moment)

    def _keep(self, history: Mapping[str, History]) -> None:
        """Written before acting. A disk that cannot take it costs the memory of a restart, never the restart."""
        if history == self._history:
            return
        self._history = dict(history)
        try:
            self._store.save("history.json", Histories(self._history))
        except OSError as problem:
            log.warning("the history could not be written: %s", problem)

    def _tell(self, steps: list[Step]) -> None:
        for step in steps:
            if not isinstance(step, Wait):
                self._record(step.module, type(step).__name__.lower(), step.reason)

    def _record(self, name: str, action: str, reason: str) -> None:
        """Under the name that people know: a shadow's are told of its module."""
        module, told = told_as(name, action)
        self._decisions.record(module, told, reason)

    def _outcome(self, outcome: DesiredOutcome, now_s: float) -> DesiredOutcome:
        if self._refusal is None:
            return outcome
        refused, at_s = self._refusal
        newest = refused.version > outcome.version
        return refused if newest or now_s < at_s + REFUSAL_SHOWN_S else outcome


def _with_orders(history: Mapping[str, History], steps: list[Step]) -> dict[str, History]:
    """The history with every stop that is about to be carried out."""
    orders = {
        step.module: ordered(history[step.module], step.cause, step.run)
        for step in steps
        if isinstance(step, Stop) and step.module in history
    }
    return {**history, **orders}


def _until_next(steps: list[Step], trial_s: float | None, now_s: float) -> float:
    waits = [step.until_s - now_s for step in steps if isinstance(step, Wait) and step.until_s is not None]
    if trial_s is not None:
        waits.append(trial_s - now_s)
    return max(0.0, min([LOOK_AGAIN_S, *waits]))
