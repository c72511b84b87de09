"""Who is this device? A cloned card, a card written again from an old image, two agents with one credential, on a real hub.

Whatever was acknowledged to a module of either copy is in the hub's database exactly once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.telemetry.tokens import Tokens
from registry.store import telemetry
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.edge_place import DeviceFile
from tests.hub_parts import HubPlace, hub_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


class Card:
    """A device on a folder that can be copied like a memory card."""

    def __init__(self, place: HubPlace, folder: Path) -> None:
        self.place = place
        self.enrolled = DeviceFile(place, "pump")
        self.token = Tokens(self.enrolled.config.key_bytes()).of("m")
        self.folder = folder

    def agent(self, folder: Path | None = None) -> AgentProcess:
        return AgentProcess(self.enrolled, folder or self.folder)

    def copy(self, name: str) -> Path:
        """Of a card at rest."""
        return Path(shutil.copytree(self.folder, self.folder.with_name(name)))

    def post(self, agent: AgentProcess, *bodies: str) -> None:
        for body in bodies:
            assert agent.post(body, token=self.token)[0] == 201

    def bodies(self) -> list[str]:
        with self.place.database.read_series() as connection:
            return sorted(row.body.strip('"') for row in telemetry.after(connection, 1_000_000, 0))

    def wait_for(self, agent: AgentProcess, *bodies: str) -> None:
        wait_for_or_show(agent, lambda: set(bodies) <= set(self.bodies()), 60, f"{bodies} in the hub's database")

    def delivered(self, agent: AgentProcess) -> None:
        """The hub has acknowledged everything."""
        wait_for_or_show(agent, lambda: agent.metric("edgehub_queue_length") == 0, 60, "the acknowledgements")


@pytest.fixture
def card(place: HubPlace, tmp_path: Path) -> Card:
    return Card(place, tmp_path / "card")


def test_a_cloned_card_gets_keys_of_its_own(card: Card) -> None:
    with card.agent() as original:
        card.post(original, "s1", "s2", "s3")
        card.wait_for(original, "s1", "s2", "s3")
        card.delivered(original)
    clone_folder = card.copy("clone")
    with card.agent() as original:
        card.post(original, "o1", "o2")
        card.wait_for(original, "o1", "o2")
        card.delivered(original)
    clone = card.agent(clone_folder)
    with clone:  # started as often as the original: that takes the session over once more only
        pass
    with clone:
        card.post(clone, "c1", "c2", "c3")
        card.wait_for(clone, "c1", "c2", "c3")
        card.delivered(clone)
    assert card.bodies() == ["c1", "c2", "c3", "o1", "o2", "s1", "s2", "s3"]
    with card.place.database.read_series() as connection:
        rows = telemetry.after(connection, 1000, 0)
        assert telemetry.recorded_gaps(connection, 10) == []
    epochs = {body: {row.epoch for row in rows if row.body.startswith(f'"{body}')} for body in "soc"}
    assert epochs["s"] == epochs["o"]
    assert len(epochs["c"] | epochs["o"]) == 2


def test_a_card_written_again_from_an_old_image_loses_and_doubles_nothing(card: Card) -> None:
    with card.agent() as agent:
        card.post(agent, "a1", "a2")
        card.delivered(agent)
    image = card.copy("image")
    with card.agent() as agent:
        card.post(agent, "b1", "b2", "b3")
        card.delivered(agent)
    shutil.rmtree(card.folder)
    image.rename(card.folder)
    agent = card.agent()
    with agent:
        pass
    with agent:
        card.post(agent, "c1", "c2", "c3", "c4")
        card.wait_for(agent, "c1", "c2", "c3", "c4")
        card.delivered(agent)
    assert card.bodies() == ["a1", "a2", "b1", "b2", "b3", "c1", "c2", "c3", "c4"]


def test_a_second_agent_with_the_same_credential_is_refused_and_told(card: Card, place: HubPlace) -> None:
    with card.agent():
        pass
    copy = card.copy("second")
    with card.agent() as first:
        wait_for_or_show(first, lambda: first.metric("hedgerow_agent_session") == 1, 60, "the first agent's session")
        with card.agent(copy) as second:
            wait_for_or_show(
                second, lambda: any(d.action == "session-refused" for d in second.decisions()), 60, "the second being refused"
            )
            card.post(second, "kept")
            card.post(first, "f1", "f2")
            card.wait_for(first, "f1", "f2")
            assert second.metric("edgehub_queue_length") == 1
            assert card.bodies() == ["f1", "f2"]
    assert "second-holder" in place.events()
