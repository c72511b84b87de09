"""A device that was revoked knows it: what the hub tells it, how seldom it asks then, and the words for people."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from edge_agent.link.standing import standing, words
from edge_agent.link.uplink import RETRY, REVOKED_RETRY
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import device_key, seal, unseal
from hedgerow.contracts.telemetry import Hello, Welcome
from registry.hub import revoked
from registry.hub.link import Uplink as Arrived
from registry.store.twins import KnownDevice
from tests.agent_builders import DEVICE_UUID
from tests.uplink_line import Line

MASTER = b"m" * 32


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.backlog.db.close()


def refusal(line: Line) -> Welcome:
    """The answer of a hub that revoked this device to the hello that is due now."""
    (hello,) = line.up()
    assert isinstance(hello, Hello)
    return msgspec.structs.replace(line.hub.hello(hello), session=None, refused="this device was revoked", revoked=True)


def test_a_revoked_device_asks_seldom_and_keeps_what_it_has(line: Line) -> None:
    line.backlog.add(3)
    line.uplink.connected(line.now_s)
    line.down(refusal(line))
    assert (line.uplink.phase, line.uplink.revoked, line.uplink.session) == ("refused", True, None)
    assert line.queued() == 3
    wake_s = line.uplink.next_wake_s()
    assert wake_s is not None
    assert wake_s - line.now_s > RETRY.cap_s * (1 + RETRY.jitter)
    assert wake_s - line.now_s <= REVOKED_RETRY.cap_s * (1 + REVOKED_RETRY.jitter)
    # A hub that was restored may grant a session all the same.
    line.now_s = wake_s
    line.exchange()
    assert (line.uplink.revoked, line.uplink.refused, line.queued()) == (False, "", 0)


def hello(**changed: str) -> Hello:
    made = Hello(
        device_uuid=DEVICE_UUID,
        nonce="n",
        instance="i",
        starts=1,
        epoch="e",
        streams=[],
        agent_version="1",
        accepted_desired_version=0,
        time_ms=0,
    )
    return msgspec.structs.replace(made, **changed)


def arrived(said: msgspec.Struct, leaf: str = "hello", generation: int = 1) -> Arrived:
    key = device_key(MASTER, DEVICE_UUID, generation)
    return Arrived(DEVICE_UUID, leaf, seal(key, DEVICE_UUID, leaf, encode(said)))


DEVICE = KnownDevice(uuid=DEVICE_UUID, name="porch", key_generation=1, revoked=True, session=None)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_hello_with_its_seal_is_told_of_the_revocation_and_of_nothing_else(generation: int) -> None:
    (answer,) = revoked.told(arrived(hello(nonce="mine"), generation=generation), DEVICE, MASTER, "incarnation")
    key = device_key(MASTER, DEVICE_UUID, generation)
    welcome = decode(unseal(key, DEVICE_UUID, "welcome", answer.payload), Welcome)
    assert (welcome.nonce, welcome.session, welcome.revoked, welcome.refused) == ("mine", None, True, revoked.REASON)
    assert welcome.watermarks == []
    assert (answer.device_uuid, answer.leaf) == (DEVICE_UUID, "welcome")


def test_nobody_else_learns_anything() -> None:
    forged = Arrived(DEVICE_UUID, "hello", seal(b"x" * 32, DEVICE_UUID, "hello", encode(hello())))
    others = arrived(hello(device_uuid="00000000-0000-0000-0000-000000000000"))
    for sent in (forged, others, arrived(hello(), leaf="status"), Arrived(DEVICE_UUID, "hello", b"")):
        assert list(revoked.told(sent, DEVICE, MASTER, "incarnation")) == []


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({"in_session": True}, "session", "in session with the hub"),
        ({"revoked": True, "refused": "this device was revoked"}, "revoked", "modules run on"),
        ({"revoked": True, "refused": "this device was revoked", "connected": False}, "revoked", "was revoked"),
        ({"refused": "another holds it"}, "refused", "no session: another holds it"),
        ({"refused": "another holds it", "connected": False, "problem": "timed out"}, "offline", "timed out"),
        ({}, "connected", "has not answered yet"),
        ({"connected": False}, "offline", "not reached yet"),
    ],
)
def test_the_standing_is_told_in_words(facts: dict[str, object], state: str, said: str) -> None:
    usual: dict[str, object] = {"in_session": False, "revoked": False, "refused": "", "connected": True, "problem": ""}
    found = standing(**{**usual, **facts})  # type: ignore[arg-type]  # the table's values are of the right kinds
    assert found.state == state
    assert said in words(found)
