"""What stands for an engine that is not there says why, once."""

from __future__ import annotations

import pytest

from edge_agent.engines.in_use import MissingEngine
from edge_agent.errors import ConfigMissing, EngineBlind
from hedgerow.errors import HedgerowError


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (EngineBlind(engine="docker", problem="no socket"), "The docker engine does not answer: no socket"),
        (ConfigMissing(path="x", problem="gone"), "The docker engine does not answer: Cannot read the device configuration x"),
    ],
)
def test_the_reason_is_told_once(problem: HedgerowError, words: str) -> None:
    with pytest.raises(EngineBlind) as told:
        MissingEngine("docker", problem).look()
    assert str(told.value).startswith(words)
    assert str(told.value).count("does not answer") == 1
