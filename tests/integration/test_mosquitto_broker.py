"""``hedgerow up --mosquitto``: devices come by TLS, each with its own login and only to its own topics; revoked ones are off."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.checks.readiness import run_checks
from hedgerow.clock import SystemClock
from hedgerow.contracts.broker_login import Login, device_login
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import DeviceTopics
from hedgerow.contracts.seal import seal
from hedgerow.process import Running, Supervised
from hedgerow.sdk.client import Client
from registry.identity.authority import authority_certificate, issue_server
from registry.workspace import open_workspace
from tests.fixtures.control_plane import ControlPlane, processes_of
from tests.fixtures.real_process import RealProcess
from tests.hub_parts import say_hello
from tests.waiting import free_port, wait_for

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("plane")
    plane = ControlPlane(folder, "--mosquitto", f"127.0.0.1:{free_port()}", "--mosquitto-names", "localhost")
    try:
        yield plane.start()
    finally:
        plane.end()


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with plane.client() as connected:
        yield connected


class Visitor:
    """A client at the device's listener; everything it hears is in ``heard``."""

    def __init__(self, config: DeviceConfig, login: Login | None, client_id: str = "") -> None:
        self.outcome: str | None = None
        self.lost = False
        self.heard: list[tuple[str, bytes]] = []
        self.granted: list[bool] = []
        host, _, port = config.broker_url.removeprefix("mqtts://").rpartition(":")
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
        self._mqtt.tls_set_context(ssl.create_default_context(cadata=config.broker_ca))
        if login is not None:
            self._mqtt.username_pw_set(login.user, login.password)
        self._mqtt.on_connect = lambda _c, _d, _f, reason, _p: self._connected(str(reason))
        self._mqtt.on_disconnect = lambda *_: self._disconnected()
        self._mqtt.on_message = lambda _c, _d, message: self.heard.append((message.topic, bytes(message.payload)))
        self._mqtt.on_subscribe = lambda _c, _d, _m, reasons, _p: self.granted.extend(not one.is_failure for one in reasons)
        self._mqtt.connect(host, int(port))
        self._mqtt.loop_start()
        wait_for(lambda: self.outcome is not None, timeout_s=PATIENCE_S, what="the broker's answer")

    def _connected(self, reason: str) -> None:
        self.outcome = reason

    def _disconnected(self) -> None:
        self.lost = True

    def subscribe(self, *topics: str) -> list[bool]:
        before = len(self.granted)
        self._mqtt.subscribe([(topic, 1) for topic in topics])
        wait_for(lambda: len(self.granted) == before + len(topics), timeout_s=PATIENCE_S, what="the subscriptions' answer")
        return self.granted[before:]

    def publish(self, topic: str, payload: bytes) -> None:
        self._mqtt.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()


def visit(config: DeviceConfig, login: Login | None = None) -> Visitor:
    """As the device itself, once the broker has heard of it."""
    found: list[Visitor] = []

    def try_it() -> bool:
        try:
            visitor = Visitor(config, login or device_login(config.device_uuid, config.key_bytes()))
        except OSError:  # started again a moment ago, it does not listen yet
            return False
        found.append(visitor)
        if visitor.outcome != "Success":
            visitor.close()
        return visitor.outcome == "Success"

    wait_for(try_it, timeout_s=PATIENCE_S, what="a login that is taken")
    return found[-1]


def enroll(client: Client, name: str) -> DeviceConfig:
    return client.devices.enroll(name).config


def test_a_device_reaches_its_own_topics_only(client: Client) -> None:
    one, other = enroll(client, "one"), enroll(client, "other")
    visitor, victim = visit(one), visit(other)
    mine, theirs = DeviceTopics(one.topic_prefix, one.device_uuid), DeviceTopics(other.topic_prefix, other.device_uuid)
    assert victim.subscribe(theirs.desired, theirs.acks) == [True, True]
    # Mosquitto grants subscriptions and filters what is delivered; what counts is that nothing arrives.
    visitor.subscribe(f"{one.topic_prefix}/#", theirs.telemetry, theirs.hello, "#")
    visitor.subscribe(mine.desired)
    visitor.publish(theirs.desired, b"from a stranger")
    visitor.publish(theirs.acks, b"from a stranger")
    visitor.publish(theirs.hello, b"in another's name")
    victim.publish(theirs.telemetry, b"private")
    # Only after what was not let through: one connection is served in order.
    visitor.publish(mine.hello, b"mine")
    victim.publish(theirs.hello, b"mine")
    assert victim.heard == []
    assert visitor.heard == []
    for one_of_them in (visitor, victim):
        one_of_them.close()


def test_a_device_that_calls_itself_as_the_hub_does_not_take_its_place(client: Client) -> None:
    """Mosquitto ends the connection of whoever had the same client identifier, whatever their logins."""
    config = enroll(client, "impostor")
    visit(config).close()
    login = device_login(config.device_uuid, config.key_bytes())
    impostor = Visitor(config, login, f"hedgerow-hub-{config.workspace_id}")
    topics = DeviceTopics(config.topic_prefix, config.device_uuid)
    impostor.subscribe(topics.welcome)
    hello = seal(config.key_bytes(), config.device_uuid, "hello", encode(say_hello(config.device_uuid)))

    def is_answered() -> bool:
        impostor.publish(topics.hello, hello)
        return bool(impostor.heard)

    wait_for(is_answered, timeout_s=PATIENCE_S, what="an answer of the hub, which is still there")
    assert not impostor.lost
    impostor.close()


def test_without_a_login_or_with_a_wrong_one_nobody_comes_in(client: Client) -> None:
    config, other = enroll(client, "two"), enroll(client, "three")
    visit(config).close()
    right = device_login(config.device_uuid, config.key_bytes())
    for login in (None, Login(right.user, "x"), Login("hub", right.password), Login(other.device_uuid, right.password)):
        visitor = Visitor(config, login)
        assert visitor.outcome == "Not authorized"
        visitor.close()


def test_a_broker_of_another_authority_or_name_is_not_trusted(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "four")
    stranger = authority_certificate(open_workspace(tmp_path / "other"), SystemClock().now()).decode()
    port = int(config.broker_url.rpartition(":")[2])
    for authority, name in ((stranger, "localhost"), (config.broker_ca, "elsewhere.example")):
        context = ssl.create_default_context(cadata=authority)
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname=name)


def test_the_check_of_a_device_trusts_the_authority_that_its_agent_trusts(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "checked")
    stranger = authority_certificate(open_workspace(tmp_path / "other"), SystemClock().now()).decode()
    for authority, passes in ((config.broker_ca, True), (stranger, False)):
        path = tmp_path / "device.toml"
        path.write_text(to_toml(msgspec.structs.replace(config, broker_ca=authority)))
        found = {one.name: one.ok for one in run_checks(path, tmp_path / "state", SystemClock().now())}
        assert found["broker"] is passes
        assert found["certificate of the broker"] is passes


def test_a_revoked_device_is_off_at_once_and_others_stay(client: Client) -> None:
    kept, gone = enroll(client, "kept"), enroll(client, "gone")
    staying, leaving = visit(kept), visit(gone)
    client.devices.revoke("gone")
    wait_for(lambda: leaving.lost, timeout_s=PATIENCE_S, what="the end of the revoked device's connection")
    again = Visitor(gone, device_login(gone.device_uuid, gone.key_bytes()))
    assert again.outcome == "Not authorized"
    assert not staying.lost
    for visitor in (staying, leaving, again):
        visitor.close()


def test_an_agent_runs_modules_and_its_telemetry_arrives(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "press")
    path = tmp_path / "device.toml"
    path.write_text(to_toml(config))
    path.chmod(0o600)
    code = (
        "import os, urllib.request as u\n"
        "r = u.Request(os.environ['HEDGEROW_TELEMETRY_URL'], b'{\"n\": 1}', {'Authorization':"
        " 'Bearer ' + os.environ['HEDGEROW_TELEMETRY_TOKEN']})\n"
        "u.urlopen(r, timeout=20).read()\n"
    )
    module = ModuleSpec(command=[sys.executable, "-c", code], restart_policy="on-failure")
    client.edge.deploy(EdgeDeployment(name="press", target="deviceId = 'press'", modules={"sender": module}))
    argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(path), "--stop-modules-on-exit"]
    agent = RealProcess(argv, log=tmp_path / "agent.log", env={"HOME": str(tmp_path)}).start()
    try:
        wait_for(lambda: client.telemetry.list(device="press").items, timeout_s=60, what="telemetry through Mosquitto")
    finally:
        agent.stop(grace_s=20)


def test_it_runs_as_its_own_user_and_leaves_nothing_behind(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, "--mosquitto", f"127.0.0.1:{free_port()}")
    try:
        plane.start()
        folder = Path((plane.workspace / "run" / "mosquitto.folder").read_text())
        seen = Supervised(plane.workspace / "run" / "processes" / "mosquitto").observe()
        assert isinstance(seen, Running)
        expected = pwd.getpwnam("mosquitto").pw_uid if os.geteuid() == 0 else os.geteuid()
        assert Path(f"/proc/{seen.pid}").stat().st_uid == expected == folder.stat().st_uid
        assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
    finally:
        plane.end()
    assert not folder.exists()
    assert processes_of(folder) == []


def test_killed_it_is_started_again_with_the_same_logins(plane: ControlPlane, client: Client) -> None:
    config = enroll(client, "five")
    visit(config).close()
    before = Supervised(plane.workspace / "run" / "processes" / "mosquitto").observe()
    assert isinstance(before, Running)
    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        seen = Supervised(plane.workspace / "run" / "processes" / "mosquitto").observe()
        return isinstance(seen, Running) and seen.pid != before.pid and (plane.workspace / "run" / "broker.json").exists()

    wait_for(is_back, timeout_s=60, what="another Mosquitto")
    visit(config).close()


def test_a_new_certificate_is_served_without_disturbing_anybody(client: Client, plane: ControlPlane, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    workspace = open_workspace(plane.workspace)
    authority = authority_certificate(workspace, SystemClock().now()).decode()
    first, second = (issue_server(workspace, ["localhost"], SystemClock().now()) for _ in range(2))
    (own / "cert.pem").write_bytes(first.certificate)
    (own / "key.pem").write_bytes(first.key)
    port = free_port()
    files = ("--mosquitto-cert", str(own / "cert.pem"), "--mosquitto-key", str(own / "key.pem"))
    other = ControlPlane(tmp_path, "--mosquitto", f"127.0.0.1:{port}", "--mosquitto-names", "localhost", *files)

    def served() -> bytes:
        context = ssl.create_default_context(cadata=authority)
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"").encode()

    try:
        other.start()
        with other.client() as connected:
            config = enroll(connected, "six")
            assert config.broker_ca == ""  # its certificate is the operator's affair
            staying = visit(msgspec.structs.replace(config, broker_ca=authority))
            assert served() == first.certificate
            (own / "key.pem").write_bytes(second.key)
            (own / "cert.pem").write_bytes(second.certificate)
            # A change is looked for with every wake-up, and every half minute.
            connected.devices.enroll("seven")
            wait_for(lambda: served() == second.certificate, timeout_s=60, what="the new certificate")
            assert not staying.lost
            staying.close()
    finally:
        other.end()
