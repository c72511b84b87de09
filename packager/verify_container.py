"""Tests a finished docker image in a container engine: its own entry point is started and answers its parity rows over HTTP."""

from __future__ import annotations

import contextlib
import logging
import statistics
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from hedgerow.clock import Clock
from hedgerow.contracts.image import Verification
from packager.engine import Container, ContainerEngine
from packager.errors import VerificationFailed, answers_differ
from packager.parity import Difference, Parity, compare_answer, read_parity, request_body
from packager.recipe import ModelFacts
from packager.settings import SCORING_PORT

log = logging.getLogger(__name__)
ROWS_AT_MOST = 64
_POLL_S = 0.05
_LABELS = {"hedgerow.verify": "1"}


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    data: list[object]


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[_Tensor]


@dataclass(frozen=True)
class _Scored:
    """What the rows of one model gave."""

    rows: int
    max_abs_error: float | None
    atol: float
    latencies_ms: tuple[float, ...]


def verify_in_container(
    archive: Iterable[bytes],
    models: Iterable[ModelFacts],
    has_script: bool,
    engine: ContainerEngine,
    clock: Clock,
    ready_timeout_s: float,
) -> Verification:
    """Load ``archive``, start it, wait until it is ready, score. Container and image are removed again.

    Raises VerificationFailed (with the container's last words or the numbers), EngineFailed.
    """
    loaded = engine.load(archive)
    try:
        with _running(engine, loaded.image_id) as container, httpx.Client(trust_env=False, timeout=ready_timeout_s) as client:
            url = _wait_ready(container, client, clock, ready_timeout_s)
            # What a script takes is its own affair: recorded rows are those of the models.
            scored = [] if has_script else [_score(facts, client, url, clock) for facts in models if facts.has_parity]
    finally:
        if not loaded.was_there:
            engine.remove_image(loaded.image_id)
    return _verdict(scored, has_script)


@contextlib.contextmanager
def _running(engine: ContainerEngine, image_id: str) -> Iterator[Container]:
    container = engine.start(image_id, SCORING_PORT, _LABELS)
    try:
        yield container
    finally:
        container.remove()


def _wait_ready(container: Container, client: httpx.Client, clock: Clock, timeout_s: float) -> str:
    pause, deadline = threading.Event(), clock.monotonic_s() + timeout_s
    while clock.monotonic_s() < deadline:
        address = container.address()
        if address is None:
            raise VerificationFailed(problem=f"its container ended before it was ready. It said: {container.log_tail()[-1500:]}")
        url = f"http://{address[0]}:{address[1]}"
        with contextlib.suppress(httpx.TransportError):
            if client.get(f"{url}/v2/health/ready").status_code == httpx.codes.OK:
                return url
        pause.wait(_POLL_S)
    raise VerificationFailed(problem=f"it was not ready after {timeout_s:.0f} s. It said: {container.log_tail()[-1500:]}")


def _score(facts: ModelFacts, client: httpx.Client, url: str, clock: Clock) -> _Scored:
    parity = read_parity(Path(facts.model.folder))
    size = _batch_size(facts)
    rows = min(parity.rows, ROWS_AT_MOST) // size * size
    largest: list[float] = []
    latencies = []
    for row in range(0, rows, size):
        started = clock.monotonic_s()
        difference = _score_rows(parity, row, row + size, client, f"{url}/v2/models/{facts.model.ref.name}/infer")
        latencies.append((clock.monotonic_s() - started) * 1000)
        if difference.max_abs_error is not None:
            largest.append(difference.max_abs_error)
        if not difference.within:
            raise answers_differ(facts.title, max_abs_error=difference.max_abs_error, tolerance=parity.atol, rows=rows)
    return _Scored(rows, max(largest, default=None), parity.atol, tuple(latencies))


def _batch_size(facts: ModelFacts) -> int:
    """How many rows the model takes at a time: its fixed leading length, or 1 where that is free or not known."""
    fixed = [spec.shape[0] for spec in facts.model.inputs if spec.shape and spec.shape[0] > 0]
    return fixed[0] if fixed else 1


def _score_rows(parity: Parity, row: int, last: int, client: httpx.Client, url: str) -> Difference:
    try:
        response = client.post(url, json=request_body(parity, row, last))
        if response.status_code != httpx.codes.OK:
            raise VerificationFailed(problem=f"row {row} was answered with {response.status_code}: {response.text[:500]}")
        answer = msgspec.json.decode(response.content, type=_Answer)
    except httpx.TransportError as problem:
        raise VerificationFailed(problem=f"row {row} got no answer ({problem})") from problem
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise VerificationFailed(problem=f"row {row} got an answer that is none of the protocol ({problem})") from problem
    return compare_answer(parity, row, last, {tensor.name: tensor.data for tensor in answer.outputs})


def _verdict(scored: list[_Scored], has_script: bool) -> Verification:
    rows = sum(one.rows for one in scored)
    errors = [one.max_abs_error for one in scored if one.max_abs_error is not None]
    latencies = [value for one in scored for value in one.latencies_ms]
    compared = f"{rows} recorded rows were scored over HTTP in a container and compared"
    idle = "a scoring script has none of its own" if has_script else "the models brought none"
    return Verification(
        state="passed",
        reason=compared if rows else f"its container became ready; no parity rows were compared, {idle}",
        rows=rows,
        max_abs_error=max(errors, default=None),
        tolerance=max((one.atol for one in scored), default=None),
        latency_ms=statistics.median(latencies) if latencies else None,
    )
