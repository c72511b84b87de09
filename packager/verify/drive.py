"""The story of a test, the same for a container and a process: wait until the image is ready, let it score, look at what it took.

What is compared are the parity rows that models bring, over HTTP as any client would ask. A scoring script has none; it is
ready only when its init() ran, and its run() is tried with a sample where there is one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.clock import Clock
from hedgerow.contracts.image import Verification
from hedgerow.contracts.proof import ProofReport
from packager.errors import VerificationFailed, answers_differ
from packager.recipe import ModelFacts
from packager.verify.parity import Difference, Parity, compare_answer, read_parity, request_body
from packager.verify.scoring_client import NoReply, Reply, ScoringClient, TimeUp
from packager.verify.script_words import last_words, script_problem
from packager.verify.started import StartedImage
from packager.verify.subject import Sample, Subject

ROWS_AT_MOST = 64
_POLL_S = 0.02
# A log goes through a pipe: what was written before an answer may be seen a moment after it.
_LOG_WAITS = 25


@dataclass(frozen=True)
class Limits:
    """``ready_s`` until it answers at all, ``whole_s`` for all that follows."""

    ready_s: float
    whole_s: float


@dataclass(frozen=True)
class Scored:
    """What the rows of one model gave."""

    rows: int
    max_abs_error: float | None
    atol: float
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True)
class _Drive:
    """One test under way."""

    started: StartedImage
    subject: Subject
    clock: Clock
    limits: Limits


def drive(started: StartedImage, subject: Subject, clock: Clock, limits: Limits) -> Verification:
    """Test ``started`` and stop it whatever happens. The answer lacks only how it was started: the caller knows.

    Raises VerificationFailed: with the numbers, with the user's own line, or with the last words of the log.
    """
    test = _Drive(started, subject, clock, limits)
    try:
        begun = clock.monotonic_s()
        url = _wait_ready(test, begun + limits.ready_s)
        started_in_s = clock.monotonic_s() - begun
        with ScoringClient(clock, clock.monotonic_s() + limits.whole_s) as client:
            found = _try_script(test, client, url) if subject.has_script else _score_models(test, client, url)
        peak = started.peak_memory_bytes()
        return msgspec.structs.replace(found, started_in_s=round(started_in_s, 3), peak_memory_bytes=peak)
    except TimeUp:
        raise VerificationFailed(problem=f"its test took longer than {limits.whole_s:.0f} s") from None
    finally:
        started.stop()


# Until it is ready ----------------------------------------------------------------------------------------------------


def _wait_ready(test: _Drive, deadline_s: float) -> str:
    pause, url = threading.Event(), ""
    with ScoringClient(test.clock, deadline_s) as client:
        while client.left_s > 0:
            ended = test.started.ended()
            if ended is not None:
                raise VerificationFailed(problem=f"it ended before it was ready ({ended}){_said(test)}")
            address = test.started.address()
            if address is not None:
                url = f"http://{address[0]}:{address[1]}"
                if _is_ready(client, url):
                    return url
            pause.wait(_POLL_S)
    waited = "nobody listens" if not url else f"{url} does not say that it is ready"
    if test.subject.has_script:
        waited += "; its script's init() did not return"
    raise VerificationFailed(problem=f"it was not ready after {test.limits.ready_s:.0f} s: {waited}{_said(test)}")


def _is_ready(client: ScoringClient, url: str) -> bool:
    try:
        return client.get(f"{url}/v2/health/ready").ok
    except (NoReply, TimeUp):
        return False


def _said(test: _Drive) -> str:
    """What a reader needs of the log: the user's own mistake, or else its end."""
    log = test.started.log_tail()
    problem = script_problem(log) if test.subject.has_script else None
    return f": {problem}" if problem else f". It said: {last_words(log)}"


# Models: rows that were recorded --------------------------------------------------------------------------------------


def _score_models(test: _Drive, client: ScoringClient, url: str) -> Verification:
    scored = [_score(test, facts, client, url) for facts in test.subject.models if facts.has_parity]
    reports = test.started.prove()
    check_reports(reports)
    return verdict(scored, reports, [facts.title for facts in test.subject.models if not facts.has_parity])


def _score(test: _Drive, facts: ModelFacts, client: ScoringClient, url: str) -> Scored:
    parity = read_parity(Path(facts.model.folder))
    size = _batch_size(facts)
    rows = min(parity.rows, ROWS_AT_MOST) // size * size
    largest: list[float] = []
    latencies = []
    for row in range(0, rows, size):
        started = test.clock.monotonic_s()
        answered = _infer(test, client, url, facts, parity, row, row + size)
        latencies.append((test.clock.monotonic_s() - started) * 1000)
        if answered.max_abs_error is not None:
            largest.append(answered.max_abs_error)
        if not answered.within:
            raise answers_differ(facts.title, max_abs_error=answered.max_abs_error, tolerance=parity.atol, rows=rows)
    return Scored(rows, max(largest, default=None), parity.atol, tuple(latencies))


def _batch_size(facts: ModelFacts) -> int:
    """How many rows the model takes at a time: its fixed leading length, or 1 where that is free or not known."""
    fixed = [spec.shape[0] for spec in facts.model.inputs if spec.shape and spec.shape[0] > 0]
    return fixed[0] if fixed else 1


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    data: list[object]


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[_Tensor]


def _infer(test: _Drive, client: ScoringClient, url: str, facts: ModelFacts, parity: Parity, row: int, last: int) -> Difference:
    body = msgspec.json.encode(request_body(parity, row, last))
    try:
        reply = client.post(f"{url}/v2/models/{facts.model.ref.name}/infer", body)
    except NoReply as problem:
        raise VerificationFailed(problem=f"row {row} of {facts.title} got no answer ({_why(test, problem)})") from problem
    if not reply.ok:
        raise VerificationFailed(problem=f"row {row} of {facts.title} was answered with {reply.status}: {reply.shown}")
    try:
        answer = msgspec.json.decode(reply.body, type=_Answer)
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise VerificationFailed(
            problem=f"row {row} of {facts.title} got an answer that is none of the protocol ({problem})"
        ) from problem
    return compare_answer(parity, row, last, {tensor.name: tensor.data for tensor in answer.outputs})


def _why(test: _Drive, problem: NoReply) -> str:
    """The end of its process says more than the end of a connection."""
    pause = threading.Event()
    for _ in range(_LOG_WAITS):
        ended = test.started.ended()
        if ended is not None:
            return f"it ended: {ended}"
        pause.wait(_POLL_S)
    return str(problem)


# Scripts --------------------------------------------------------------------------------------------------------------


def _try_script(test: _Drive, client: ScoringClient, url: str) -> Verification:
    sample = test.subject.sample or _own_example(client, url)
    if sample is None:
        reason = "its script's init() ran; no parity rows were compared, and run() was not tried for want of a sample input"
        return Verification(state="passed", reason=reason)
    started = test.clock.monotonic_s()
    try:
        reply = client.post(f"{url}/score", sample.body, _content_type(sample))
    except NoReply as problem:
        raise VerificationFailed(problem=f"its script gave no answer to {sample.origin} ({_why(test, problem)})") from problem
    took_ms = (test.clock.monotonic_s() - started) * 1000
    if not reply.ok:
        raise VerificationFailed(problem=f"its script cannot score {sample.origin}: {_failure(test, reply)}")
    reason = f"its script's init() ran, and run() answered {sample.origin}; what it answered was not compared"
    return Verification(state="passed", reason=reason, latency_ms=took_ms, latency_p99_ms=took_ms)


def _failure(test: _Drive, reply: Reply) -> str:
    pause = threading.Event()
    for _ in range(_LOG_WAITS if reply.status >= 500 else 1):
        problem = script_problem(test.started.log_tail())
        if problem:
            return problem
        pause.wait(_POLL_S)
    return f"it answered {reply.status}: {reply.shown}"


def _own_example(client: ScoringClient, url: str) -> Sample | None:
    """The example that a script declares with `@input_schema`, as its swagger document tells everybody."""
    try:
        reply = client.get(f"{url}/swagger.json")
        document = msgspec.json.decode(reply.body) if reply.ok else None
    except (NoReply, msgspec.DecodeError):
        return None
    example: object = document
    for name in ("definitions", "ServiceInput", "example"):
        example = example.get(name) if isinstance(example, dict) else None
    # Nothing declared is an empty object.
    return Sample(msgspec.json.encode(example), "the example of its own input schema") if example else None


def _content_type(sample: Sample) -> str:
    try:
        msgspec.json.decode(sample.body)
    except msgspec.DecodeError:
        return "application/octet-stream"
    return "application/json"


# What it all means ----------------------------------------------------------------------------------------------------


def check_reports(reports: Iterable[ProofReport]) -> None:
    """Raises VerificationFailed, with the numbers, for the first model that did not pass."""
    for report in reports:
        if report.passed:
            continue
        if report.max_abs_error is None:
            raise VerificationFailed(problem=f"model {report.model}: {report.reason or 'no reason given'}")
        raise answers_differ(report.model, max_abs_error=report.max_abs_error, tolerance=report.tolerance, rows=report.rows)


def verdict(scored: list[Scored], reports: list[ProofReport], without: list[str]) -> Verification:
    """What rows over HTTP and proofs say together; ``without`` names the models that brought no rows."""
    rows = sum(one.rows for one in scored)
    errors = [one.max_abs_error for one in scored if one.max_abs_error is not None]
    latencies = sorted(value for one in scored for value in one.latencies_ms)
    reason = f"{rows} recorded rows were scored over HTTP and compared" if rows else "it became ready"
    if without:
        reason += f"; no parity vectors came with {', '.join(without)}, so no answers of it were compared"
    for report in reports:
        if report.refusals:
            reason += f"; {report.model} ran on {report.provider}: {'; '.join(report.refusals)}"
    return Verification(
        state="passed",
        reason=reason,
        rows=rows,
        max_abs_error=max(errors, default=None),
        tolerance=max((one.atol for one in scored), default=None),
        latency_ms=_share(latencies, 0.5),
        latency_p99_ms=_share(latencies, 0.99),
        batchable=sorted(report.model for report in reports if report.batchable),
    )


def _share(values: list[float], share: float) -> float | None:
    """The value below or at which ``share`` of the sorted ``values`` lie."""
    return round(values[max(0, math.ceil(share * len(values)) - 1)], 3) if values else None
