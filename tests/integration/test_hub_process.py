"""Hub and broker as processes, devices with real connections, over the embedded broker and over Mosquitto."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import seal
from registry.store import edge_deployments, fleet, telemetry
from tests.fixtures.brokers import MosquittoFactory
from tests.hub_parts import HubPlace, Tape, hub_place, manifest, say_hello, say_status
from tests.waiting import wait_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path) as made:
        yield made


@pytest.fixture(params=["embedded", "mosquitto"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubPlace]:
    if request.param == "embedded":
        with hub_place(tmp_path) as made:
            yield made
        return
    mosquitto: MosquittoFactory = request.getfixturevalue("mosquitto")
    with mosquitto(config=["message_size_limit 1048576"]) as broker, hub_place(tmp_path, broker_port=broker.port) as made:
        yield made


def stored(place: HubPlace, device_uuid: str) -> list[tuple[int, str]]:
    with place.database.read_series() as connection:
        return [(row.sequence, row.body) for row in telemetry.after(connection, 100_000, 0, device_uuid=device_uuid)]


def test_a_device_through_its_day(any_place: HubPlace) -> None:
    place = any_place
    uuid = place.enroll("pump", site="north")
    place.deploy(manifest("d", "tags.site = 'north'", m=["run"]))
    device = place.device(uuid)
    session = device.greet().session
    assert session is not None
    state = device.desired()
    assert (state.version, state.modules["m"].spec.command) == (1, ["run"])
    tape = Tape(uuid)
    tape.record(*(f'{{"n": {n}}}' for n in range(1, 301)))
    for first in (1, 101, 201):
        assert device.ship(tape.batch(first, first + 99, session)).watermark == first + 99
    assert stored(place, uuid) == [(message.sequence, message.body) for message in tape.messages]
    device.publish("status", say_status(uuid, session, 1, m="running"))

    def reported() -> bool:
        with place.database.read() as connection:
            found = fleet.get(connection, "pump", datetime.now(UTC))
        return found.online and found.reported is not None and found.reported.modules["m"].state == "running"

    wait_for(reported, what="the report in the twin")
    place.deploy(manifest("d", "tags.site = 'north'", m=["run", "faster"]))
    assert device.desired(lambda state: state.version == 2, timeout_s=5.0).modules["m"].spec.command == ["run", "faster"]


def test_a_device_that_comes_later_finds_its_desired_state_retained(place: HubPlace) -> None:
    uuid = place.enroll("pump")
    place.deploy(manifest("d", m=["run"]))
    first = place.device(uuid)
    first.greet()
    first.desired()
    # No hello: only the broker can have kept it.
    assert place.device(uuid).desired(timeout_s=5.0).version == 1


def test_a_restarted_broker_has_forgotten_everything_and_a_hello_brings_it_back(place: HubPlace) -> None:
    uuid = place.enroll("pump")
    place.deploy(manifest("d", m=["run"]))
    device = place.device(uuid)
    session = device.greet().session
    assert session is not None
    assert place.broker is not None
    place.broker.kill()
    tape = Tape(uuid)
    tape.record(*("{}" for _ in range(20)))
    place.deploy(manifest("d", m=["run", "again"]))
    place.start_broker()
    assert device.greet().session == session
    assert device.desired(lambda state: state.version == 2).modules["m"].spec.command == ["run", "again"]
    assert device.ship(tape.batch(1, 20, session)).watermark == 20
    assert len(stored(place, uuid)) == 20


def test_a_hub_waits_for_a_broker_that_is_not_there_yet(tmp_path: Path) -> None:
    place = HubPlace(tmp_path / "workspace")
    try:
        place.start_broker()
        assert place.broker is not None
        place.broker.kill()
        place.start_hub()
        uuid = place.enroll("pump")
        place.start_broker()
        assert place.device(uuid).greet().session
    finally:
        place.end()


def test_strangers_at_the_broker_change_nothing(place: HubPlace) -> None:
    uuid, other = place.enroll("pump"), place.enroll("other")
    device, stranger = place.device(uuid), place.device(other)
    session = device.greet().session
    assert session is not None
    tape = Tape(uuid)
    tape.record("{}", "{}")
    batch = encode(tape.batch(1, 2, session))
    for payload in (b"", b"\xff" * 1000, batch, seal(stranger.key, uuid, "telemetry", batch)):
        for leaf in ("hello", "telemetry", "status"):
            stranger._client.publish(getattr(device.topics, leaf), payload, qos=1)
    stranger._client.publish(f"{place.workspace.topic_prefix}/v1/devices/nobody/hello", b"x", qos=1)
    assert device.ship(tape.batch(1, 2, session)).watermark == 2
    assert len(stored(place, uuid)) == 2
    wait_for(lambda: "forged" in place.events(), what="an event about it")
    assert place.events().count("forged") == 1


def test_a_copied_card_is_told_apart(place: HubPlace) -> None:
    uuid = place.enroll("pump")
    device, copy = place.device(uuid), place.device(uuid)
    session = device.greet().session
    assert session is not None
    refused = copy.greet(say_hello(uuid, instance="copy"))
    assert refused.session is None
    assert refused.refused
    wait_for(lambda: "second-holder" in place.events(), what="an event about the second holder")
    tape, other = Tape(uuid), Tape(uuid)
    tape.record("{}", "{}")
    other.record("[]", "[]")
    device.ship(tape.batch(1, 2, session))
    copy.forget("acks")
    # With the session of the first, which only somebody who read the broker's traffic could know.
    assert copy.ship(other.batch(1, 2, session)).refused == "chain-mismatch"
    assert stored(place, uuid) == [(1, "{}"), (2, "{}")]
    wait_for(lambda: "chain-mismatch" in place.events(), what="an event about the contradiction")


def test_an_agent_that_was_restarted_goes_on_at_once(place: HubPlace) -> None:
    uuid = place.enroll("pump")
    before, now = place.device(uuid), place.device(uuid)
    old = before.greet().session
    assert old is not None
    tape = Tape(uuid)
    tape.record(*("{}" for _ in range(4)))
    before.ship(tape.batch(1, 2, old))
    welcome = now.greet(say_hello(uuid, instance="b", starts=2))
    assert welcome.session not in (None, old)
    assert welcome.watermarks[0].watermark == 2
    before.publish("telemetry", tape.batch(3, 4, old))
    assert now.ship(tape.batch(3, 4, welcome.session or "")).watermark == 4


def test_a_revoked_device_is_heard_no_more(place: HubPlace) -> None:
    uuid, witness = place.enroll("pump"), place.enroll("witness")
    device, other = place.device(uuid), place.device(witness)
    session = device.greet().session
    assert session is not None
    with place.database.write() as connection:
        fleet.revoke(connection, "pump", datetime.now(UTC))
    tape = Tape(uuid)
    tape.record("{}")
    device.publish("telemetry", tape.batch(1, 1, session))
    other.greet(say_hello(witness))
    assert stored(place, uuid) == []
    wait_for(lambda: "revoked-device" in place.events(), what="an event about it")


def test_deleting_a_deployment_reaches_the_device(place: HubPlace) -> None:
    uuid = place.enroll("pump")
    place.deploy(manifest("d", m=["run"]))
    device = place.device(uuid)
    device.greet()
    assert device.desired().modules
    with place.database.write() as connection:
        edge_deployments.remove(connection, "d")
    place.wake()
    assert device.desired(lambda state: state.version == 2, timeout_s=5.0).modules == {}


def test_a_second_hub_is_refused_and_the_first_stops_cleanly(place: HubPlace) -> None:
    assert place.hub is not None
    argv = [sys.executable, "-P", "-m", "registry.hub", "--workspace", str(place.workspace.folder)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"already running as process {place.hub.pid}" in ended.stderr
    assert "Traceback" not in ended.stderr
    place.hub.stop()
    assert not (place.workspace.run / "hub.ready").exists()
    assert "Traceback" not in place.hub.log_text()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "mqtt://", "mqtt://host:none", "127.0.0.1:1883", "mqtt://user:secret@h/x"])
def test_a_wrong_broker_url_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    argv = [sys.executable, "-P", "-m", "registry.hub", "--workspace", str(tmp_path / "workspace"), "--broker-url", url]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "is not the URL of an MQTT broker" in ended.stderr
    assert "secret" not in ended.stderr


def test_a_broker_with_passwords(tmp_path: Path, mosquitto: MosquittoFactory) -> None:
    with mosquitto(users={"hub": "se cret"}) as broker:
        environment = {"HEDGEROW_BROKER_URL": f"mqtt://hub:se%20cret@127.0.0.1:{broker.port}", "HEDGEROW_LOG_FORMAT": "json"}
        argv = [sys.executable, "-P", "-m", "registry.hub", "--workspace", str(tmp_path / "workspace")]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr)
            assert next(line for line in lines if "Connected to the broker" in line["message"])
        finally:
            process.terminate()
            _, rest = process.communicate(timeout=20)
    assert "se cret" not in rest
    assert "se%20cret" not in rest
