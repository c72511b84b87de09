"""How a new version of a module becomes the one to keep, or is taken back. Pure: values in, values out.

Theory of operation. The first version of a module has nothing to go back to; it is kept once it was well for its time. Every
later one is on *trial* while the version before it is kept: it is *committed* when it was well for ``commit_after_s``, and
*rolled back* for its own failures only: ends and findings of unhealthiness above ``max_failures``, no readiness in time, a start
that its engine refuses, a rate or latency above its bounds. After that the device aims at the version before, and the refused one
gets no other trial, not even when the hub wanted something else meanwhile, until it is judged by other bounds or an operator
says so.

A restart of the machine is no failure: the clocks begin anew. Only a version under which the machine restarts again and again
is suspected. What nobody can see (an engine that does not answer) stops the clocks too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge_agent.reconcile.restart_policy import Moment, verdict
from edge_agent.reconcile.situation import Exited, History, ProofState, Running, Seen, Wanted, fingerprint
from edge_agent.reconcile.versions import REFUSED_MAX, Refused, Trial, Versions
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, UpdatePolicy
from hedgerow.contracts.service import ImagePin

# A power cut is no fault of a module; three of them within one trial are too many to be chance.
REBOOTS_MAX = 2
# Fewer answers than this say nothing about a rate.
REQUESTS_MIN = 20


@dataclass(frozen=True)
class Signals:
    """What a run's own metrics say since it was first looked at; ``p95_s`` is None when there was nothing to time."""

    requests: int
    errors: int
    p95_s: float | None


@dataclass(frozen=True)
class Look:
    """One look at one module: ``asked`` is what the hub wants, ``seen`` what runs or ran of it (of ``asked``'s kind).

    ``start_problem``: why a start of it failed by its own fault; ``start_tried``: a start failed by whatever fault.
    """

    asked: Wanted
    seen: Seen | None
    past: History
    moment: Moment
    proof: ProofState | None = None
    signals: Signals | None = None
    start_problem: str = ""
    start_tried: bool = False


@dataclass(frozen=True)
class Event:
    """A decision about a version."""

    action: Literal["trial", "commit", "rollback", "refuse-update"]
    reason: str


def target(asked: Wanted, versions: Versions) -> Wanted:
    """What the device aims at: what the hub wants, or the version before it when that one was refused."""
    return before(asked, versions) or asked if is_refused(asked, versions) else asked


def before(asked: Wanted, versions: Versions) -> Wanted | None:
    """The version to go back to, None when there is none. Whether it runs is still the hub's decision."""
    if versions.good is None:
        return None
    spec = msgspec.structs.replace(versions.good.spec, status=asked.spec.status)
    way_back = Wanted(asked.name, spec, versions.good.image, fingerprint(versions.good))
    return None if way_back.fingerprint == asked.fingerprint else way_back


def has_way_back(asked: Wanted, versions: Versions) -> bool:
    """True while ``asked`` is on trial, or about to be, and something is kept to go back to."""
    return asked.spec.update.rollback and versions.trial is not None and before(asked, versions) is not None


def is_refused(asked: Wanted, versions: Versions) -> bool:
    """True when this very version was refused by the bounds it has now."""
    refused = versions.refused
    return refused is not None and _is(refused, asked)


def judged_by(asked: Wanted) -> str:
    """Digest of everything that decides about a trial."""
    bounds = {"update": asked.spec.update, "probe": asked.spec.probe, "restart_policy": asked.spec.restart_policy}
    return digest_of(msgspec.json.encode(bounds, order="deterministic"))


def needs_proof(asked: Wanted, versions: Versions) -> bool:
    """True when the image of ``asked`` carries a proof that has to come out before the version before it is stopped."""
    trial = versions.trial
    if trial is None or trial.proven or trial.begun or not has_way_back(asked, versions):
        return False
    return asked.spec.kind == "process" and asked.image is not None and asked.image.kind == "onnx"


def advance(known: Versions, look: Look) -> tuple[Versions, Event | None]:
    """What is known of a module's versions after one look at it. Equal to ``known`` when nothing happened."""
    was, known = known, _follow(known, look.asked)
    if known.trial is None:
        again = known.refused if known.refused != was.refused else None
        return known, Event("refuse-update", f"it was taken back before: {again.reason}") if again else None
    trial = _observe(known.trial, look)
    tried = msgspec.structs.replace(known, trial=trial)
    if not has_way_back(look.asked, tried):
        # The first version, or one that is not to be taken back: its restart policy is all there is.
        return (_committed(tried) if _stood_the_test(trial, look) else tried), None
    if not trial.begun and look.proof is not None and look.proof.passed is False:
        return _refused(tried, look, look.proof.detail), Event("refuse-update", look.proof.detail)
    problem = _problem(trial, look)
    if problem:
        return _refused(tried, look, problem), Event("rollback", f"back to the version before: {problem}")
    if _stood_the_test(trial, look):
        return _committed(tried), Event("commit", _commit_reason(trial, look))
    if trial.begun and not known.trial.begun:
        return tried, Event(
            "trial", f"its new version is kept once it has been well for {look.asked.spec.update.commit_after_s:g} s"
        )
    return tried, None


def unseen(known: Versions) -> Versions:
    """The same while nobody can see the module: time to become ready does not run."""
    trial = known.trial
    if trial is None or not trial.begun or trial.well:
        return known
    return msgspec.structs.replace(known, trial=msgspec.structs.replace(trial, begun=False))


def resumed(known: Versions, moment: Moment) -> Versions:
    """The same as the next agent finds it: a run that was not ready gets its time anew, for nobody has watched it."""
    trial = known.trial
    if trial is None or trial.well or trial.boot_id != moment.boot_id:
        return known
    return msgspec.structs.replace(known, trial=msgspec.structs.replace(trial, since_s=moment.now_s))


def deadline_s(known: Versions, asked: Wanted) -> float | None:
    """Monotonic time at which a look is due although nothing may have happened."""
    trial = known.trial
    if trial is None or not trial.begun or asked.spec.status == "stopped":
        return None
    update = asked.spec.update
    return trial.since_s + (update.commit_after_s if trial.well else update.ready_within_s)


def images_kept(targets: Mapping[str, Wanted], versions: Mapping[str, Versions]) -> set[str]:
    """All images that are needed or may be, those to go back to included: digests, or references where nothing was resolved."""
    images = [_image_of(wanted.spec, wanted.image) for wanted in targets.values()]
    images += [_image_of(kept.good.spec, kept.good.image) for kept in versions.values() if kept.good is not None]
    return {image for image in images if image is not None}


def _image_of(spec: ModuleSpec, image: ImagePin | None) -> str | None:
    return image.digest if image else spec.image


def _follow(known: Versions, asked: Wanted) -> Versions:
    """Take up what the hub wants now."""
    module = DesiredModule(spec=asked.spec, image=asked.image)
    if is_refused(asked, known):
        return known
    earlier = _earlier(known, asked)
    if known.good is not None and fingerprint(known.good) == asked.fingerprint:
        return Versions(good=module, earlier=earlier)
    again = next((refused for refused in known.earlier if _is(refused, asked)), None)
    if again is not None and known.good is not None:
        return Versions(good=known.good, refused=again, earlier=earlier)
    trial = known.trial
    if trial is not None and fingerprint(trial.module) == asked.fingerprint:
        if trial.module == module:
            return known
        return msgspec.structs.replace(known, trial=msgspec.structs.replace(trial, module=module))
    good = known.good
    if good is None and trial is not None and trial.well and trial.failures == 0:
        # Replaced before its time was over, but nothing speaks against it: better than no way back.
        good = trial.module
    return Versions(good=good, trial=Trial(module=module), earlier=earlier)


def _is(refused: Refused, asked: Wanted) -> bool:
    return (refused.fingerprint, refused.judged_by) == (asked.fingerprint, judged_by(asked))


def _earlier(known: Versions, asked: Wanted) -> tuple[Refused, ...]:
    """What stays refused while ``asked`` is wanted: all others."""
    everything = [*known.earlier, *([known.refused] if known.refused is not None else [])]
    return tuple(refused for refused in everything if refused.fingerprint != asked.fingerprint)[-REFUSED_MAX:]


def _observe(trial: Trial, look: Look) -> Trial:
    """The trial with what this look shows: runs, ends, readiness, restarts of the machine."""
    moment = look.moment
    if trial.boot_id != moment.boot_id:
        rebooted = bool(trial.boot_id) and trial.begun
        ended = look.seen.run if isinstance(look.seen, Exited) else trial.counted_run
        trial = msgspec.structs.replace(
            trial,
            boot_id=moment.boot_id,
            reboots=trial.reboots + int(rebooted),
            counted_run=ended if rebooted else trial.counted_run,
            well=False,
            since_s=moment.now_s,
        )
    if look.asked.spec.status == "stopped":
        return msgspec.structs.replace(trial, begun=False, well=False) if trial.begun else trial
    if look.start_tried and not trial.begun:
        trial = msgspec.structs.replace(trial, begun=True, since_s=moment.now_s)
    if look.proof is not None and look.proof.passed and not trial.proven:
        trial = msgspec.structs.replace(trial, proven=True)
    if look.seen is None or look.seen.fingerprint != look.asked.fingerprint:
        return trial
    if isinstance(look.seen, Running):
        return _observe_running(trial, look.seen, moment)
    return _observe_end(trial, look.seen, look)


def _observe_running(trial: Trial, seen: Running, moment: Moment) -> Trial:
    if seen.run != trial.run or not trial.begun:
        same = seen.run == trial.run
        trial = msgspec.structs.replace(
            trial, begun=True, run=seen.run, well=trial.well and same, sick=trial.sick and same, since_s=moment.now_s
        )
    if seen.health == "ready" and not trial.well:
        return msgspec.structs.replace(trial, well=True, sick=False, since_s=moment.now_s)
    if seen.health == "unhealthy" and not trial.sick:
        failed = msgspec.structs.replace(trial, failures=trial.failures + 1, problem=seen.detail or "it is unhealthy")
        return msgspec.structs.replace(failed, sick=True, well=False, since_s=moment.now_s)
    # A run that was well and is asked anew (by the next agent) is `starting` to it: it is well until it is not.
    return trial


def _observe_end(trial: Trial, seen: Exited, look: Look) -> Trial:
    if seen.run == trial.counted_run:
        return trial
    expected = look.past.ordered_run == seen.run and look.past.ordered_stop is not None
    clean = seen.exit_code == 0 and not verdict(look.asked.spec.restart_policy, seen, look.past).restart
    return msgspec.structs.replace(
        trial,
        begun=True,
        run=seen.run,
        counted_run=seen.run,
        well=False,
        sick=False,
        since_s=look.moment.now_s,
        # Unhealthiness that it was stopped for has been counted already.
        failures=trial.failures if expected or clean else trial.failures + 1,
        problem=trial.problem if expected or clean else f"it ended with {seen.reason}",
    )


def _problem(trial: Trial, look: Look) -> str:
    """Why the version has to go back, "" when it may go on."""
    update = look.asked.spec.update
    if look.start_problem:
        return f"it could not be started: {look.start_problem}"
    if trial.failures > update.max_failures:
        return f"{trial.problem} (failure {trial.failures} on trial, {update.max_failures} allowed)"
    if trial.reboots > REBOOTS_MAX:
        return f"the machine restarted {trial.reboots} times while it was on trial"
    other_runs = look.seen is not None and look.seen.fingerprint != look.asked.fingerprint
    if look.asked.spec.status == "stopped" or not trial.begun or other_runs:
        return ""
    if _left_down(look):
        # Ended well, or by a power cut: nothing speaks against it, and nothing more will be seen of it.
        return f"{trial.problem}, and its policy {look.asked.spec.restart_policy} leaves it down" if trial.failures else ""
    if not trial.well and look.moment.now_s >= trial.since_s + update.ready_within_s:
        detail = look.seen.detail if isinstance(look.seen, Running) else ""
        return f"it was not ready within {update.ready_within_s:g} s{': ' if detail else ''}{detail}"
    return _out_of_bounds(update, look.signals) if trial.well else ""


def _out_of_bounds(update: UpdatePolicy, signals: Signals | None) -> str:
    if signals is None or signals.requests < REQUESTS_MIN:
        return ""
    rate = signals.errors / signals.requests
    if update.max_error_rate is not None and rate > update.max_error_rate:
        return f"{signals.errors} of {signals.requests} answers were errors, {update.max_error_rate:.2%} are allowed"
    if update.max_latency_p95_s is not None and signals.p95_s is not None and signals.p95_s > update.max_latency_p95_s:
        return f"its p95 latency is {signals.p95_s:g} s, {update.max_latency_p95_s:g} s are allowed"
    return ""


def _stood_the_test(trial: Trial, look: Look) -> bool:
    if look.asked.spec.status == "stopped" or not trial.begun:
        return False
    if _ended_well(look):
        return True
    runs = isinstance(look.seen, Running) and look.seen.run == trial.run
    return runs and trial.well and look.moment.now_s >= trial.since_s + look.asked.spec.update.commit_after_s


def _ended_well(look: Look) -> bool:
    """A module that does its work and ends, as its policy has it."""
    return _left_down(look) and isinstance(look.seen, Exited) and look.seen.exit_code == 0


def _left_down(look: Look) -> bool:
    seen = look.seen
    if not isinstance(seen, Exited) or seen.fingerprint != look.asked.fingerprint:
        return False
    return not verdict(look.asked.spec.restart_policy, seen, look.past).restart


def _commit_reason(trial: Trial, look: Look) -> str:
    update = look.asked.spec.update
    if not trial.well:
        return "it did its work and ended well"
    reason = f"it was well for {update.commit_after_s:g} s"
    bounded = update.max_error_rate is not None or update.max_latency_p95_s is not None
    few = look.signals is None or look.signals.requests < REQUESTS_MIN
    return f"{reason}; too few of its answers were seen to judge them" if bounded and few else reason


def _committed(known: Versions) -> Versions:
    return Versions(good=known.trial.module if known.trial else known.good, earlier=known.earlier)


def _refused(known: Versions, look: Look, reason: str) -> Versions:
    asked = look.asked
    version = asked.image.digest if asked.image else asked.fingerprint
    refused = Refused(fingerprint=asked.fingerprint, judged_by=judged_by(asked), version=version, reason=reason)
    return Versions(good=known.good, refused=refused, earlier=known.earlier)
