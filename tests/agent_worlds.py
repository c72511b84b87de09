"""Random worlds for tests of the planner: modules, images, versions and history as an agent's hands would change them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from edge_agent.reconcile import trial
from edge_agent.reconcile.module_state import TRANSITIONS, state_of
from edge_agent.reconcile.restart_policy import Moment, forgotten, learn, ordered, start_failed
from edge_agent.reconcile.situation import (
    EngineKind,
    Exited,
    History,
    ImageState,
    ProofState,
    Running,
    Seen,
    Situation,
    Wanted,
)
from edge_agent.reconcile.steps import Prove, Pull, Remove, Start, Step, Stop, Wait
from edge_agent.reconcile.trial import Event, Look
from edge_agent.reconcile.versions import Versions
from hedgerow.contracts.edge import RestartPolicy
from hedgerow.contracts.status import ModuleState
from tests.agent_builders import BOOT, exited, pin, running, wanted

POLICIES: tuple[RestartPolicy, ...] = ("never", "on-failure", "on-unhealthy", "always")
NAMES = ("a", "b", "c", "d")


@dataclass
class World:
    """Time stands still between rounds. ``wanted`` is what the hub asks for; ``bad_proofs`` are image digests."""

    wanted: dict[str, Wanted]
    here: dict[tuple[EngineKind, str], Seen]
    pulled: set[str]
    now_s: float = 1000.0
    version: int = 1
    boots: int = 1
    runs: int = 0
    history: dict[str, History] = field(default_factory=dict)
    versions: dict[str, Versions] = field(default_factory=dict)
    images: dict[str, ImageState] = field(default_factory=dict)
    proofs: dict[str, ProofState] = field(default_factory=dict)
    bad_proofs: frozenset[str] = frozenset()
    busy: dict[str, Step] = field(default_factory=dict)
    states: dict[str, ModuleState] = field(default_factory=dict)
    start_problems: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, Event]] = field(default_factory=list)
    # What the versions do, by fingerprint; tests give the words their meaning.
    behaviours: dict[str, str] = field(default_factory=dict)

    @property
    def boot(self) -> str:
        return BOOT if self.boots == 1 else f"boot-{self.boots}"

    def of(self, name: str) -> Versions:
        return self.versions.get(name) or Versions()

    def targets(self) -> dict[str, Wanted]:
        return {name: trial.target(asked, self.of(name)) for name, asked in self.wanted.items()}

    def before(self) -> dict[str, Wanted]:
        found = {n: trial.before(w, self.of(n)) for n, w in self.wanted.items() if trial.has_way_back(w, self.of(n))}
        return {name: before for name, before in found.items() if before is not None}

    def look(self) -> Situation:
        moment = Moment(self.now_s, self.boot, self.version, lambda: 0.5)
        targets = self.targets()
        seen, strays = self._sort_out(targets)
        for name, wants in targets.items():
            self.history[name] = learn(self.history.get(name, History()), seen.get(name), wants.spec.restart_policy, moment)
        self._judge(seen, moment)
        if self.targets() != targets:
            targets = self.targets()
            seen, strays = self._sort_out(targets)
        return Situation(
            wanted=targets,
            seen=seen,
            strays=tuple(strays),
            history=dict(self.history),
            images=dict(self.images),
            busy=frozenset(self.busy),
            now_s=self.now_s,
            boot_id=self.boot,
            versions=dict(self.versions),
            before=self.before(),
            unproven=frozenset(n for n, w in self.wanted.items() if trial.needs_proof(w, self.of(n))),
            proofs=dict(self.proofs),
        )

    def begin(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Pull():
                    here = step.image.digest in self.pulled
                    self.images[step.image.digest] = ImageState(ready=here, look_only=not step.fetch)
                case Prove():
                    self.proofs[step.image.digest] = ProofState(None)
                case Wait():
                    pass
                case Start() | Stop() | Remove():
                    if isinstance(step, Stop) and step.module in self.history:
                        self.history[step.module] = ordered(self.history[step.module], step.cause, step.run)
                    assert step.module not in self.busy, f"two actions for {step.module}"
                    self.busy[step.module] = step

    def finish(self, name: str, *, fails: bool = False, own_fault: bool = False) -> None:
        step = self.busy.pop(name)
        match step:
            case Start():
                kind = step.wanted.spec.kind
                others = [k for (k, n), there in self.here.items() if n == name and (k != kind or isinstance(there, Running))]
                assert not others, f"{name} was started while {others} has one"
                if fails:
                    moment = Moment(self.now_s, self.boot, self.version, lambda: 0.5)
                    self.history[name] = start_failed(self.history[name], "no such program", moment)
                    if name in self.wanted and step.wanted.fingerprint == self.wanted[name].fingerprint:
                        self.start_problems[name] = "no such program" if own_fault else ""
                    return
                self.runs += 1
                self.here[kind, name] = running(step.wanted, run=f"run-{self.runs}", health="starting")
            case Stop():
                module = self.here.get((step.kind, name))
                if isinstance(module, Running):
                    self.here[step.kind, name] = ended(module, 143)
            case Remove():
                self.here.pop((step.kind, name), None)

    def arrive(self) -> None:
        """Everything that is being pulled or proven comes to its end."""
        for digest, state in self.images.items():
            if not state.ready:
                self.images[digest] = replace(state, ready=True)
        for digest in self.proofs:
            self.proofs[digest] = ProofState(digest not in self.bad_proofs, "the proof was repeated")

    def become_ready(self) -> None:
        for place, module in self.here.items():
            if isinstance(module, Running) and module.health == "starting":
                self.here[place] = replace(module, health="ready")

    def crash_agent(self, chance: random.Random) -> None:
        """The agent is killed: what it began goes on or not, what it had in memory is gone."""
        for name in list(self.busy):
            if chance.random() < 0.5:
                self.finish(name)
        self.busy, self.proofs, self.start_problems, self.states = {}, {}, {}, {}
        self.images = {}
        moment = Moment(self.now_s, self.boot, self.version, lambda: 0.5)
        self.versions = {name: trial.resumed(known, moment) for name, known in self.versions.items()}

    def reboot(self, chance: random.Random) -> None:
        """A power cut: all modules end with nobody to see it, and monotonic time begins anew."""
        self.crash_agent(chance)
        self.boots, self.now_s = self.boots + 1, 5.0
        for place, module in self.here.items():
            if isinstance(module, Running):
                self.here[place] = replace(ended(module, 0), exit_code=None, reason="the machine restarted")

    def deadline_s(self) -> float | None:
        times = [trial.deadline_s(self.of(name), asked) for name, asked in self.wanted.items()]
        return min((time_s for time_s in times if time_s is not None and time_s > self.now_s), default=None)

    def note_states(self, now: Situation, steps: list[Step]) -> None:
        for name, module in (now.wanted or {}).items():
            state, reason = state_of(module, now, steps)
            assert reason, f"{name} is {state} without a reason"
            before = self.states.get(name, state)
            assert before == state or state in TRANSITIONS[before], f"{name} went from {before} to {state}"
            self.states[name] = state

    def _judge(self, seen: dict[str, Seen], moment: Moment) -> None:
        known: dict[str, Versions] = {}
        for name, asked in self.wanted.items():
            look = Look(
                asked,
                seen.get(name),
                self.history[name],
                moment,
                proof=self.proofs.get(asked.image.digest) if asked.image else None,
                start_problem=self.start_problems.get(name, ""),
                start_tried=name in self.start_problems,
            )
            known[name], event = trial.advance(self.of(name), look)
            if event is not None:
                self.events.append((name, event))
                if known[name].refused is not None:
                    self.history[name] = forgotten(self.history[name])
        self.versions, self.start_problems = known, {}

    def _sort_out(self, targets: dict[str, Wanted]) -> tuple[dict[str, Seen], list[Seen]]:
        seen: dict[str, Seen] = {}
        strays: list[Seen] = []
        for (kind, name), module in self.here.items():
            if name in targets and targets[name].spec.kind == kind:
                seen[name] = module
            else:
                strays.append(module)
        return seen, strays


def ended(module: Running, code: int) -> Exited:
    return Exited(
        module.name, module.kind, module.fingerprint, module.run, code, module.started_at, module.started_at, f"exit code {code}"
    )


@st.composite
def modules(draw: st.DrawFn) -> Wanted:
    return wanted(
        draw(st.sampled_from(NAMES)),
        kind=draw(st.sampled_from(("process", "docker"))),
        image=draw(st.sampled_from((None, pin("a"), pin("b")))),
        status=draw(st.sampled_from(("running", "running", "stopped"))),
        restart_policy=draw(st.sampled_from(POLICIES)),
        startup_order=draw(st.integers(0, 2)),
        command=[draw(st.sampled_from(("one", "two")))],
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    wants = {m.name: m for m in draw(st.lists(modules(), max_size=4))}
    here: dict[tuple[EngineKind, str], Seen] = {}
    for number, module in enumerate(draw(st.lists(modules(), max_size=4))):
        run = f"old-{number}"
        seen: Seen = running(module, run=run)
        if draw(st.booleans()):
            seen = exited(module, run=run, exit_code=draw(st.sampled_from((0, 1, None))))
        here[module.spec.kind, module.name] = seen
    return World(wants, here, pulled=set(draw(st.lists(st.sampled_from((pin("a").digest, pin("b").digest))))))
