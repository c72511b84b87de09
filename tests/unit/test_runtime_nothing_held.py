"""What a request brought goes with its answer: nothing of it waits for the garbage collector, a next request or a next run."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from hedgerow.errors import Bug
from runtime.admission import Admission
from runtime.errors import BadBody
from runtime.exchange import Request
from runtime.front.known_heads import KnownHeads
from runtime.front.limits import SLICE_BYTES, SMALL_BODY_BYTES, Buffered
from runtime.front.receiving import Receiving
from runtime.models.batching import BatchLimits
from runtime.models.jobs import Job, LargeJob, without_frames
from runtime.models.model_lane import LaneLimits, ModelLane
from runtime.models.onnx_model import OnnxModel
from runtime.models.outputs import Share
from runtime.observing.metrics import Board
from runtime.tensors import Array
from tests import scoring_models as models
from tests.waiting import wait_for


class Caller:
    gone = False
    started_at = 0.0


class Sent:
    """A body that tells when it is gone."""


class Requests(list[Request]):
    """Takes what one connection receives."""

    def has_room(self) -> bool:
        return True

    def came(self, request: Request, keep_alive: bool, old: bool) -> None:
        self.append(request)

    def refuse(self, status: int, problem: str) -> None:
        raise AssertionError((status, problem))


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("size", [SMALL_BODY_BYTES + 1, SLICE_BYTES, 10 * SLICE_BYTES])
def test_a_silent_connection_does_not_hold_the_large_body_of_its_last_request(size: int) -> None:
    came = Requests()
    receiving = Receiving(came, 1_000_000, Buffered(2**30), None, KnownHeads())
    receiving.feed(b"POST /score HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    request = came.pop()
    assert len(request.body) == size
    # Ours, and the question's.
    assert sys.getrefcount(request) == 2


def check_gone(begin: Callable[[ModelLane, Callable[[Job], None]], weakref.ref[object]]) -> None:
    """Run what ``begin`` submits; what it watches must go while the lane is open and idle."""

    async def scene() -> None:
        ended: list[str] = []
        model = OnnxModel("echo", models.echo())
        limits = LaneLimits(queue_wait_s=5.0, timeout_s=5.0, batch=BatchLimits())
        counters = Board([("echo", "1")], rows=2).model(("echo", "1"))
        loop, admission = asyncio.get_running_loop(), Admission(None, 10, lambda: None)
        lane = ModelLane(loop, model, limits, admission, counters, threads=1)
        watched = begin(lane, lambda job: ended.append(str(job.error)))
        for _ in range(2000):
            if ended:
                break
            await asyncio.sleep(0.005)
        assert ended, "the job did not end"
        wait_for(lambda: watched() is None, what="what was sent to go")
        lane.close()

    asyncio.run(scene())


@pytest.mark.usefixtures("collector_off")
def test_a_refused_body_goes_with_its_answer() -> None:
    """An error knows its frames, they know the job, and the job knows its error."""

    def begin(lane: ModelLane, done: Callable[[Job], None]) -> weakref.ref[object]:
        sent = Sent()

        def prepare(_job: Job, body: Sent = sent) -> dict[str, Array]:
            try:
                msgspec.json.decode(b"{")
            except msgspec.DecodeError as problem:
                raise BadBody(problem=problem, hint=repr(body)) from None
            return {}

        lane.submit(LargeJob(Caller(), done, Share.values, prepare))
        return weakref.ref(sent)

    check_gone(begin)


@pytest.mark.usefixtures("collector_off")
def test_a_thread_without_work_does_not_hold_what_it_ran_last() -> None:
    def begin(lane: ModelLane, done: Callable[[Job], None]) -> weakref.ref[object]:
        rows = np.ones((3, 2), np.float32)
        lane.submit(Job(Caller(), done, Share.values, feeds={"x": rows}))
        return weakref.ref(rows)

    check_gone(begin)


@pytest.mark.parametrize("problem", [RuntimeError("?"), Bug(what="?")])
def test_what_nobody_foresaw_keeps_its_frames_for_the_log(problem: Exception) -> None:
    with pytest.raises(type(problem)) as raised:
        raise problem
    assert without_frames(raised.value).__traceback__ is not None
