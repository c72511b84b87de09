"""What is planned for a module whose new version is on trial, and what is reported of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_agent.reconcile import trial
from edge_agent.reconcile.outcome import desired_outcome, module_statuses
from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.situation import History, ImageState, ProofState, Seen, Situation, Wanted
from edge_agent.reconcile.steps import Prove, Pull, Start, Stop, Wait
from edge_agent.reconcile.trial import Look
from hedgerow.contracts.edge import DesiredModule
from tests.agent_builders import BOOT, desired, exited, pin, running, wanted
from tests.agent_trials import GOOD, NEW, OLD, Watched


def on_trial(asked: Wanted, seen: Seen, *, images: dict[str, ImageState] | None = None, **fields: Any) -> Situation:
    known, _ = trial.advance(GOOD, Look(asked, seen, History(), Moment(0.0, BOOT, 1, lambda: 0.5)))
    before = trial.before(asked, known)
    values: dict[str, Any] = {
        "wanted": {"m": trial.target(asked, known)},
        "seen": {"m": seen},
        "now_s": 0.0,
        "boot_id": BOOT,
        "versions": {"m": known},
        "before": {"m": before} if before else {},
        "images": images or {},
        "unproven": frozenset({"m"}) if trial.needs_proof(asked, known) else frozenset(),
    }
    return Situation(**(values | fields))


def test_what_runs_is_kept_alive_while_the_next_image_is_on_its_way() -> None:
    new = wanted(image=pin("b"), command=[])
    pulling = {pin("b").digest: ImageState(ready=False)}
    (step,) = plan(on_trial(new, exited(OLD)))
    assert isinstance(step, Pull)
    (step,) = plan(on_trial(new, exited(OLD), images=pulling))
    assert isinstance(step, Start)
    assert step.wanted.spec.command == ["old"]
    (step,) = plan(on_trial(new, running(OLD, health="unhealthy", detail="hung"), images=pulling))
    assert isinstance(step, Stop)
    assert step.cause == "unhealthy"


def test_an_onnx_image_is_proven_before_the_stop() -> None:
    new = wanted(image=pin("b"), command=[])
    here = {pin("b").digest: ImageState(ready=True)}
    (step,) = plan(on_trial(new, running(OLD), images=here))
    assert isinstance(step, Prove)
    (step,) = plan(on_trial(new, running(OLD), images=here, proofs={pin("b").digest: ProofState(None)}))
    assert isinstance(step, Wait)
    (step,) = plan(on_trial(new, running(OLD), images=here, unproven=frozenset()))
    assert isinstance(step, Stop)


def test_an_image_that_may_not_be_pulled_is_only_looked_for() -> None:
    new = wanted(image=pin("b"), command=[], pull_policy="never")
    (step,) = plan(on_trial(new, running(OLD)))
    assert isinstance(step, Pull)
    assert not step.fetch
    absent = {pin("b").digest: ImageState(ready=False, failures=1, detail="it is not on this device", look_only=True)}
    (step,) = plan(on_trial(new, running(OLD), images=absent))
    assert isinstance(step, Wait)
    # The policy has changed.
    (step,) = plan(on_trial(wanted(image=pin("b"), command=[]), running(OLD), images=absent))
    assert isinstance(step, Pull)
    assert step.fetch


def test_a_restart_that_somebody_wants_is_a_stop_of_its_own_kind() -> None:
    (step,) = plan(on_trial(OLD, running(OLD), restart={"m": "a person"}))
    assert isinstance(step, Stop)
    assert (step.cause, step.reason) == ("restarted", "a person")


def test_the_report_tells_trial_and_rollback() -> None:
    state = desired({"m": DesiredModule(spec=NEW.spec)})
    now = on_trial(NEW, running(NEW))
    modules = module_statuses(now, plan(now))
    assert modules["m"].trial
    assert desired_outcome(state, now, modules, []).code == 202
    watched = Watched()
    watched.look(0.0, running(NEW))
    watched.look(1.0, exited(NEW))
    now = replace(now, wanted={"m": trial.target(NEW, watched.known)}, seen={"m": running(OLD)}, versions={"m": watched.known})
    modules = module_statuses(now, plan(now))
    assert modules["m"].state == "running"
    assert not modules["m"].trial
    assert modules["m"].rolled_back_from == NEW.fingerprint
    outcome = desired_outcome(state, now, modules, [])
    assert outcome.code == 500
    assert outcome.message.startswith("m: rolled back: it ended with exit code 1")
