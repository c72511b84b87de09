"""Requests and models are let go of at once: what waits for the garbage collector makes its pauses and keeps bodies alive."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.exchange import Exchange, Request, Response
from runtime.models.model_control import LoadRequest
from runtime.models.warm_up import Wishes
from runtime.observing.metrics import Board
from runtime.observing.telemetry import NoTelemetry
from runtime.oip.face import OipFace
from runtime.oip.facts import OipFacts
from runtime.scoring import Limits, Scoring
from runtime.serving_plan import plan_serving
from runtime.settings import RuntimeSettings
from tests import scoring_models as models


class Caller:
    """Takes one answer, as front/connection.py does."""

    since = 0.0

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.status = 0

    def send(self, exchange: Exchange, response: Response) -> None:
        self.status = response.status
        exchange.work = None
        self.answered.set()

    def send_head(self, exchange: Exchange, response: Response) -> None:
        raise AssertionError("nothing is streamed here")

    def send_part(self, part: bytes) -> bool:
        raise AssertionError("nothing is streamed here")

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        raise AssertionError("nothing is streamed here")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def scoring(settings: RuntimeSettings) -> tuple[Scoring, Board]:
    board = Board([], rows=1)
    limits = Limits.of(settings, fronts=1)
    made = Scoring(
        plan_serving(settings),
        limits,
        board,
        NoTelemetry(),
        wishes=Wishes.of(settings),
        when_ready=lambda: None,
        give_up=pytest.fail,
    )
    made.install(made.load())
    return made, board


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_request_leaves_nothing_to_the_collector(no_collector: None, rows: int) -> None:
    tensor = {"name": "X", "datatype": "FP32", "shape": [rows, 4], "data": [1.5] * (4 * rows)}
    body = json.dumps({"inputs": [tensor]}).encode()

    async def requests() -> list[bool]:
        made, board = scoring(RuntimeSettings(model=models.iris(), name="iris"))
        face = OipFace(made, board, OipFacts(made, board, "1", lambda: 0))
        seen = []
        for _ in range(5):
            caller = Caller()
            exchange = Exchange(caller, Request("POST", "/v2/models/iris/infer", "", {}, body), keep_alive=True)
            face.infer(exchange, "iris", None)
            await caller.answered.wait()
            assert caller.status == 200
            # An exchange takes no weak references itself; it holds on to its caller.
            seen.append(weakref.ref(caller))
            del exchange, caller
        # The model's thread lets go of its last batch when it takes the next.
        return [one() is None for one in seen[:-1]]

    assert asyncio.run(requests()) == [True] * 4


def test_a_model_that_is_replaced_is_let_go_of(no_collector: None, tmp_path: Path) -> None:
    place = tmp_path / "iris" / "1"
    place.mkdir(parents=True)
    shutil.copy(models.iris(), place / "model.onnx")

    async def load_again() -> bool:
        made, _ = scoring(RuntimeSettings(model_repository=tmp_path, model_control="explicit"))
        before = weakref.ref(made.lane("iris").model)
        loaded: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        made.loads(LoadRequest("iris"), loaded.set_result)
        assert await loaded is None
        return before() is None

    assert asyncio.run(load_again())
