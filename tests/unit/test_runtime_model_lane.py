"""A model's lane on a real event loop, with real small models: turns, batches, failures, time-outs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.admission import Admission
from runtime.errors import BadBody, Overloaded, ScoringTimeout
from runtime.models.batching import BatchLimits
from runtime.models.jobs import Job, LargeJob
from runtime.models.model_lane import LaneLimits, ModelLane
from runtime.models.onnx_model import OnnxModel
from runtime.models.outputs import Share
from runtime.observing.metrics import Board
from runtime.tensors import Array
from tests import scoring_models as models


class Caller:
    def __init__(self) -> None:
        self.gone = False
        self.started_at = perf_counter()


def values_of(job: Job) -> dict[str, object]:
    assert job.outputs is not None
    return job.outputs.values()


class Scene:
    """One lane and what became of its jobs, in the order in which they ended."""

    def __init__(
        self,
        model: OnnxModel,
        *,
        threads: int = 1,
        inline_rows: int = 0,
        limits: LaneLimits | None = None,
        most_running: int | None = None,
        most_waiting: int = 1000,
    ) -> None:
        self.model = model
        self.done: list[Job] = []
        self.admission = Admission(most_running, most_waiting, lambda: self.lane.dispatch())
        self.lane = ModelLane(
            asyncio.get_running_loop(),
            model,
            limits or LaneLimits(queue_wait_s=5.0, timeout_s=5.0),
            self.admission,
            Board([(model.name, "1")], rows=2).model((model.name, "1")),
            threads=threads,
            inline_rows=inline_rows,
        )

    def job(self, wanted: tuple[str, ...] = (), **feeds: Array) -> Job:
        job = Job(Caller(), self.done.append, Share.values, feeds=feeds, wanted=wanted)
        job.may_share(self.model)
        return job

    def submit(self, wanted: tuple[str, ...] = (), **feeds: Array) -> Job:
        job = self.job(wanted, **feeds)
        self.lane.submit(job)
        return job

    async def all_done(self, count: int, timeout_s: float = 20.0) -> list[Job]:
        """Ticks, as Scoring does, until so many have ended."""
        deadline = perf_counter() + timeout_s
        while len(self.done) < count:
            assert perf_counter() < deadline, f"{len(self.done)} of {count} jobs ended"
            await asyncio.sleep(0.001)
            self.lane.tick(perf_counter())
        return self.done

    async def wait_until(self, predicate: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        deadline = perf_counter() + timeout_s
        while not predicate():
            assert perf_counter() < deadline, f"waited for {what}"
            await asyncio.sleep(0.001)
            self.lane.tick(perf_counter())


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]  # coroutine functions only


def rows(*values: float) -> Array:
    return np.array([[value, -value] for value in values], dtype=np.float32)


def loaded(file: Path) -> OnnxModel:
    return OnnxModel(file.stem, file)


class Gate:
    """Keeps a model's only thread busy until it is opened: a job whose inputs are made by waiting."""

    def __init__(self, scene: Scene, **feeds: Array) -> None:
        self._open = threading.Event()
        self._feeds = feeds or {"x": rows(0)}
        self.job = LargeJob(Caller(), scene.done.append, Share.values, self._prepare)
        scene.lane.submit(self.job)

    def _prepare(self, _job: Job) -> dict[str, Array]:
        assert self._open.wait(20)
        return self._feeds

    def open(self) -> None:
        self._open.set()


def test_an_idle_lane_runs_at_once_and_alone() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()))
        job = stage.submit(x=rows(1, 2))
        assert stage.lane.pending == 0
        await stage.all_done(1)
        assert job.error is None
        assert (job.merged, job.rows) == (1, 2)
        assert np.array_equal(np.asarray(values_of(job)["y"]), rows(1, 2))
        assert 0 <= job.queued_s < 5
        assert job.ran_s > 0
        stage.lane.close()

    play(scene)


def test_what_waits_while_the_model_is_busy_shares_a_run_and_nothing_else_does() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()))
        gate = Gate(stage)
        jobs = [stage.submit(x=rows(number)) for number in range(5)]
        assert stage.lane.pending == 5
        gate.open()
        await stage.all_done(6)
        assert [job.merged for job in jobs] == [5] * 5
        assert len({id(job.run) for job in jobs}) == 1
        assert jobs[0].run.rows == 5
        for number, job in enumerate(jobs):
            assert np.array_equal(np.asarray(values_of(job)["y"]), rows(number))
        stage.lane.close()

    play(scene)


def test_merging_can_be_switched_off_and_limited_by_rows_and_bytes() -> None:
    async def scene(batch: BatchLimits, expected: list[int]) -> None:
        stage = Scene(loaded(models.echo()), limits=LaneLimits(5.0, 5.0, batch=batch))
        gate = Gate(stage)
        jobs = [stage.submit(x=rows(number)) for number in range(5)]
        gate.open()
        await stage.all_done(6)
        assert [job.merged for job in jobs] == expected
        stage.lane.close()

    play(lambda: scene(BatchLimits(requests=1), [1, 1, 1, 1, 1]))
    play(lambda: scene(BatchLimits(rows=2), [2, 2, 2, 2, 1]))
    play(lambda: scene(BatchLimits(size_bytes=24), [3, 3, 3, 2, 2]))


def test_other_lengths_and_other_outputs_do_not_share_a_run() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.iris()))
        gate = Gate(stage, X=np.zeros((1, 4), np.float32))
        all_outputs = stage.submit(X=np.ones((1, 4), np.float32))
        one = stage.submit(("label",), X=np.ones((1, 4), np.float32))
        again = stage.submit(("label",), X=np.ones((2, 4), np.float32))
        nothing = stage.submit(X=np.ones((0, 4), np.float32))
        gate.open()
        await stage.all_done(5)
        assert [job.merged for job in (all_outputs, one, again, nothing)] == [1, 2, 2, 1]
        assert set(values_of(one)) == {"label"}
        assert len(np.asarray(values_of(again)["label"])) == 2
        stage.lane.close()

    play(scene)


def test_one_bad_request_in_a_batch_fails_alone() -> None:
    async def scene(bad_at: int) -> None:
        stage = Scene(loaded(models.fails_on_negative()))
        gate = Gate(stage, i=np.zeros(1, np.int64))
        jobs = [stage.submit(i=np.array([-9 if number == bad_at else number % 4], np.int64)) for number in range(9)]
        gate.open()
        await stage.all_done(10)
        failed = [number for number, job in enumerate(jobs) if job.error is not None]
        assert failed == [bad_at]
        assert isinstance(jobs[bad_at].error, BadBody)
        for number, job in enumerate(jobs):
            if number != bad_at:
                assert np.asarray(values_of(job)["y"]).tolist() == [10.0 * (number % 4)]
        # Halves: the good ones still shared their runs.
        assert max(job.merged for job in jobs) >= 2
        stage.lane.close()

    for bad_at in (0, 4, 8):
        play(partial(scene, bad_at))


def test_a_run_whose_answer_cannot_be_cut_is_done_again_one_by_one_and_never_merged_again() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.total()))
        for _ in range(2):
            gate = Gate(stage)
            jobs = [stage.submit(x=rows(number)[:, :1]) for number in range(4)]
            before = len(stage.done)
            gate.open()
            await stage.all_done(before + 5)
            assert [job.merged for job in jobs] == [1] * 4
            assert [float(np.asarray(values_of(job)["y"])[0]) for job in jobs] == [0, 1, 2, 3]
        assert stage.lane.most_rows == 0
        stage.lane.close()

    play(scene)


def test_a_full_queue_refuses_and_whoever_waits_too_long_is_told() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()), limits=LaneLimits(queue_wait_s=0.05, timeout_s=30.0), most_waiting=2)
        gate = Gate(stage)
        late = [stage.submit(x=rows(number)) for number in range(2)]
        with pytest.raises(Overloaded):
            stage.submit(x=rows(9))
        await stage.all_done(2)
        assert all(isinstance(job.error, Overloaded) for job in late)
        assert stage.admission.waiting == 0
        gate.open()
        await stage.all_done(3)
        stage.lane.close()

    play(scene)


def test_a_run_over_its_time_is_answered_and_the_lane_goes_on() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.endless()), limits=LaneLimits(queue_wait_s=5.0, timeout_s=0.1))
        stage.submit(rounds=np.array(10**12))
        await stage.all_done(1)
        assert isinstance(stage.done[0].error, ScoringTimeout)
        assert not stage.lane.stuck
        quick = stage.submit(rounds=np.array(1))
        await stage.all_done(2)
        assert quick.error is None
        stage.lane.close()

    play(scene)


def test_a_run_that_does_not_end_makes_the_lane_stuck() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()), limits=LaneLimits(5.0, timeout_s=0.05, patience_s=0.05))
        gate = Gate(stage)
        await stage.all_done(1)
        assert isinstance(stage.done[0].error, ScoringTimeout)
        await stage.wait_until(lambda: stage.lane.stuck, "the lane to say that it is stuck")
        gate.open()
        await stage.wait_until(lambda: not stage.lane.busy, "the thread to come back")
        # Answered once only.
        assert len(stage.done) == 1
        stage.lane.close()

    play(scene)


def test_callers_that_went_away_are_not_scored() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()))
        gate = Gate(stage)
        gone, there = stage.job(x=rows(1)), stage.job(x=rows(2))
        gone.caller.gone = True
        stage.lane.submit(gone)
        stage.lane.submit(there)
        gate.open()
        await stage.all_done(3)
        assert isinstance(gone.error, Overloaded)
        assert gone.outputs is None
        assert there.error is None
        assert there.merged == 1
        stage.lane.close()

    play(scene)


def test_small_requests_of_a_tiny_model_run_on_the_loop_and_large_ones_do_not() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.echo()), inline_rows=64)
        small = [stage.submit(x=rows(number)) for number in range(100)]
        # Nobody's turn on a thread was taken.
        assert (stage.admission.running, stage.lane.pending) == (0, 0)
        await stage.all_done(100)
        # As many rows together as one request may bring: the loop must get its turn.
        assert [job.merged for job in small] == [64] * 64 + [36] * 36
        for number, job in enumerate(small):
            assert np.array_equal(np.asarray(values_of(job)["y"]), rows(number))
        large = stage.submit(x=rows(*range(65)))
        assert stage.admission.running == 1
        await stage.all_done(101)
        assert large.error is None
        stage.lane.close()

    play(scene)


def test_a_model_that_turns_out_slow_on_the_loop_gets_threads() -> None:
    async def scene() -> None:
        stage = Scene(loaded(models.endless()), inline_rows=1)
        rounds = 200_000
        for number in range(40):
            job = stage.job(rounds=np.array(rounds))
            # As if trying it out had called it tiny and steady.
            job.key = "rounds"
            stage.lane.submit(job)
            on_a_thread = stage.admission.running == 1
            await stage.all_done(number + 1)
            if on_a_thread:
                break
        assert on_a_thread, "it still runs on the loop"
        stage.lane.close()

    play(scene)


@pytest.fixture(scope="module")
def tolerant() -> OnnxModel:
    return loaded(models.digits()[0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.integers(1, 3),
    st.sampled_from([0, 2, 16]),
    st.integers(1, 40),
)
def test_whatever_comes_together_every_answer_is_the_requests_own(
    tolerant: OnnxModel, counts: list[int], threads: int, inline_rows: int, most_rows: int
) -> None:
    images = models.digits()[2]

    async def scene() -> None:
        limits = LaneLimits(20.0, 20.0, batch=replace(BatchLimits(), rows=most_rows))
        stage = Scene(tolerant, threads=threads, inline_rows=inline_rows, limits=limits)
        start = 0
        asked: list[tuple[Job, Array]] = []
        for count in counts:
            part = images[start : start + count]
            start += count
            asked.append((stage.submit(X=part), part))
        await stage.all_done(len(counts))
        for job, part in asked:
            if not len(part):
                # onnxruntime takes no empty batch for this model: that is the request's own affair.
                assert isinstance(job.error, BadBody)
                continue
            assert job.error is None
            alone = tolerant.run({"X": part})
            for name, value in alone.items():
                np.testing.assert_allclose(np.asarray(values_of(job)[name]), np.asarray(value), rtol=1e-3, atol=1e-4)
        assert stage.admission.running == stage.admission.waiting == 0
        stage.lane.close()

    play(scene)
