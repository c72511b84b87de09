"""What callers ask to be loaded and what becomes of it, failures that nobody foresaw included."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runtime.models.ledger import Ledger
from runtime.models.model_control import LoadRequest, ModelControl
from runtime.models.model_lane import ModelLane
from runtime.models.model_repository import Wanted
from runtime.serving_plan import PlannedModel, Repository


def broken(_planned: PlannedModel) -> ModelLane:
    raise RuntimeError("nobody thought of this")


def as_it_is(lane: ModelLane) -> ModelLane:
    return lane


def repository(root: Path, *models: str) -> Repository:
    for model in models:
        (root / model / "1").mkdir(parents=True)
        (root / model / "1" / "model.onnx").write_bytes(b"")
    return Repository(root, "explicit")


def test_a_load_that_fails_in_a_way_of_its_own_does_not_stay_under_way(tmp_path: Path) -> None:
    async def load() -> tuple[Exception | None, list[str]]:
        control = ModelControl(repository(tmp_path, "a"), (), Ledger(), None, broken, as_it_is)
        told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        control.load(LoadRequest("a"), told.set_result)
        problem = await told
        return problem, [one.state for one in control.models.standings()]

    problem, states = asyncio.run(load())
    assert isinstance(problem, RuntimeError)
    assert states == ["UNAVAILABLE"]


def test_a_worker_comes_up_without_a_sent_model_that_was_tidied_away(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.write([Wanted("sent", folder=str(tmp_path / "gone"))])

    async def come_up() -> list[ModelLane]:
        return ModelControl(repository(tmp_path / "models"), (), ledger, None, broken, as_it_is).load_all()

    assert asyncio.run(come_up()) == []
