"""``hedgerow up --mosquitto-mtls``: devices log in with certificates, beside others with passwords; who is revoked is out."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.checks.readiness import run_checks
from hedgerow.clock import SystemClock
from hedgerow.contracts.broker_login import hub_login
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import DeviceTopics
from hedgerow.sdk.client import Client
from registry.identity.authority import issue_client, issue_server
from registry.workspace import open_workspace
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.certificate_parts import PATIENCE_S, certify, is_refused, new_key, visit, write_certified
from tests.edge_place import POSTER
from tests.fixtures.control_plane import ControlPlane
from tests.integration.test_mosquitto_broker import visit as visit_with_password
from tests.waiting import free_port, wait_for

DAY = timedelta(days=1)
# Of the second control plane: certificates and lists that end while one looks on.
LIFE_S, LIST_S = 15.0, 12.0


def listen() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    listeners = ("--mosquitto", listen(), "--mosquitto-mtls", listen(), "--mosquitto-names", "localhost")
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), *listeners)
    try:
        yield plane.start()
    finally:
        plane.end()


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with plane.client() as connected:
        yield connected


def enroll(client: Client, name: str) -> DeviceConfig:
    config = client.devices.enroll(name).config
    assert config.broker_login == "certificate"
    return config


def test_a_device_with_a_certificate_reaches_its_own_topics_only(client: Client, tmp_path: Path) -> None:
    one, other = enroll(client, "one"), enroll(client, "other")
    visitor, victim = (visit(config, certify(config, tmp_path).context(config)) for config in (one, other))
    mine, theirs = DeviceTopics(one.topic_prefix, one.device_uuid), DeviceTopics(other.topic_prefix, other.device_uuid)
    victim.subscribe(theirs.desired)
    for topic in ("#", theirs.telemetry, theirs.hello, mine.desired):
        visitor.subscribe(topic)
    visitor.publish(theirs.desired, b"from a stranger")
    visitor.publish(theirs.hello, b"in another's name")
    victim.publish(theirs.telemetry, b"private")
    # Only after what was not let through: one connection is served in order.
    visitor.publish(mine.hello, b"mine")
    victim.publish(theirs.hello, b"mine")
    assert victim.heard == visitor.heard == []
    for one_of_them in (visitor, victim):
        one_of_them.close()


def test_without_a_certificate_of_this_workspace_for_a_client_nobody_comes_in(
    client: Client, plane: ControlPlane, tmp_path: Path
) -> None:
    config, now = enroll(client, "two"), SystemClock().now()
    good = certify(config, tmp_path)
    visit(config, good.context(config)).close()
    workspace, key = open_workspace(plane.workspace), new_key()
    server = issue_server(workspace, ["localhost"], now)
    stranger = issue_client(open_workspace(tmp_path / "other"), config.device_uuid, key.public_key(), now, DAY)
    ended = issue_client(workspace, config.device_uuid, key.public_key(), now - 3 * DAY, DAY)
    private = load_pem_private_key(server.key, None)
    assert isinstance(private, type(key))
    assert is_refused(config, ssl.create_default_context(cadata=config.broker_ca))
    for name, made, its_key in (
        ("stranger", stranger.certificate, key),
        ("server", server.certificate, private),
        ("ended", ended.certificate, key),
    ):
        shown = write_certified(tmp_path / f"{name}.pem", its_key, made)
        assert is_refused(config, shown.context(config)), name
    visit(config, good.context(config)).close()


def test_a_clients_certificate_does_not_pass_for_a_server(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "pretender")
    listening, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cadata=config.broker_ca)
    listening.load_cert_chain(certify(config, tmp_path).path)
    trusting.check_hostname = False
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, visitor = listening.wrap_bio(up, down, server_side=True), trusting.wrap_bio(down, up)
    for side in (visitor, server):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        visitor.do_handshake()


class HubSide:
    """The hub's own login, on the loopback port: hears what devices send, speaks to them."""

    def __init__(self, plane: ControlPlane) -> None:
        login = hub_login(open_workspace(plane.workspace).device_master)
        self.heard: list[bytes] = []
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._mqtt.username_pw_set(login.user, login.password)
        self._mqtt.on_message = lambda _c, _d, message: self.heard.append(bytes(message.payload))
        granted: list[int] = []
        self._mqtt.on_subscribe = lambda _c, _d, mid, *_: granted.append(mid)
        self._mqtt.connect("127.0.0.1", json.loads((plane.workspace / "run" / "up.json").read_bytes())["broker_port"])
        self._mqtt.loop_start()
        for topic in DeviceTopics.uplink_filters(open_workspace(plane.workspace).topic_prefix):
            self._mqtt.subscribe(topic, 1)
        wait_for(lambda: granted, timeout_s=PATIENCE_S, what="the hub's subscription")

    def publish(self, topic: str, payload: bytes) -> None:
        self._mqtt.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()


def test_a_revoked_device_is_out_and_others_notice_nothing(client: Client, plane: ControlPlane, tmp_path: Path) -> None:
    kept, gone = enroll(client, "kept"), enroll(client, "gone")
    staying, leaving = certify(kept, tmp_path), certify(gone, tmp_path)
    one, two = visit(kept, staying.context(kept)), visit(gone, leaving.context(gone))
    one_topics = DeviceTopics(kept.topic_prefix, kept.device_uuid)
    two_topics = DeviceTopics(gone.topic_prefix, gone.device_uuid)
    one.subscribe(one_topics.desired)
    two.subscribe(two_topics.desired)
    hub = HubSide(plane)
    two.publish(two_topics.hello, b"before")
    wait_for(lambda: b"before" in hub.heard, timeout_s=PATIENCE_S, what="a message of the device")
    client.devices.revoke("gone")
    wait_for(lambda: is_refused(gone, leaving.context(gone)), timeout_s=PATIENCE_S, what="the revoked certificate being refused")
    # Who was connected has no rights any more, in either direction.
    two.publish(two_topics.hello, b"from beyond")
    one.publish(one_topics.hello, b"after")
    hub.publish(two_topics.desired, b"to beyond")
    hub.publish(one_topics.desired, b"to the other")
    wait_for(lambda: b"after" in hub.heard and one.heard, timeout_s=PATIENCE_S, what="messages of and to the other device")
    assert b"from beyond" not in hub.heard
    assert two.heard == []
    assert not one.lost
    for visitor in (one, two, hub):
        visitor.close()


def mqtt_answer(
    config: DeviceConfig, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bytes, ssl.SSLSession | None]:
    """The broker's first bytes after a CONNECT (none: it hung up), and the TLS session."""
    url = urlsplit(config.broker_url)
    body = b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x03tls"
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=PATIENCE_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=url.hostname, session=session) as tls:
                tls.sendall(b"\x10" + bytes([len(body)]) + body)
                return tls.recv(16), tls.session
        except (ssl.SSLError, ConnectionError):
            return b"", None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_of_before_does_not_outlive_its_certificate(
    client: Client, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A session that is taken up again brings no certificate to be looked at."""
    config = enroll(client, f"resumes-{version.name.lower().replace('_', '-')}")
    shown = certify(config, tmp_path)
    context = shown.context(config)
    context.maximum_version = version
    welcome, session = mqtt_answer(config, context, None)
    assert (welcome, session is not None) == (b"\x20\x02\x00\x00", True)
    assert mqtt_answer(config, context, session)[0] == welcome
    client.devices.revoke(config.name)
    wait_for(
        lambda: is_refused(config, shown.context(config)), timeout_s=PATIENCE_S, what="the revoked certificate being refused"
    )
    assert mqtt_answer(config, context, session)[0] == b""


def test_of_a_revoked_certificate_the_connection_ends_and_the_device_comes_with_another(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "stolen")
    old, new = certify(config, tmp_path), certify(config, tmp_path)
    thief = visit(config, old.context(config))
    client.devices.revoke_certificate("stolen", old.serial)
    wait_for(lambda: thief.lost, timeout_s=PATIENCE_S, what="the end of the connection")
    visit(config, new.context(config)).close()
    assert is_refused(config, old.context(config))
    thief.close()


def test_devices_with_passwords_come_beside_those_with_certificates(client: Client, plane: ControlPlane) -> None:
    config = enroll(client, "older")
    words = plane.process.argv
    port = words[words.index("--mosquitto") + 1].rpartition(":")[2]
    before = msgspec.structs.replace(config, broker_url=f"mqtts://localhost:{port}", broker_login="device")
    visit_with_password(before).close()
    # A password is worth nothing where certificates are wanted.
    assert is_refused(config, ssl.create_default_context(cadata=config.broker_ca))


def facts_of(pem: Path) -> tuple[str, str]:
    """Serial and key of what an agent keeps."""
    whole = pem.read_bytes()
    return f"{x509.load_pem_x509_certificate(whole).serial_number:x}", whole.split(b"-----BEGIN CERTIFICATE")[0].decode()


class Device:
    """device.toml for an AgentProcess."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self._config))
        path.chmod(0o600)
        return path


@pytest.fixture(scope="module")
def hasty_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Its certificates and lists end while one looks on; passwords are not taken at all."""
    env = {"HEDGEROW_DEVICE_CERTIFICATE_S": str(LIFE_S), "HEDGEROW_MOSQUITTO_REVOCATIONS_S": str(LIST_S)}
    plane = ControlPlane(tmp_path_factory.mktemp("hasty"), "--mosquitto-mtls", listen(), env=env)
    try:
        yield plane.start()
    finally:
        plane.end()


def test_an_agent_renews_under_traffic_and_nothing_is_lost_or_restarted(hasty_plane: ControlPlane, tmp_path: Path) -> None:
    """At least three certificates and the end of the first revocation list go by; then one is revoked."""
    with hasty_plane.client() as client:
        config = enroll(client, "porch")
        module = ModuleSpec(command=[sys.executable, "-c", POSTER, "0.05", str(tmp_path / "rest")])
        client.edge.deploy(EdgeDeployment(name="posting", target="*", modules={"poster": module}))
        with AgentProcess(Device(config), tmp_path / "device", "--stop-modules-on-exit") as agent:
            pem = agent.state / "certificate.pem"
            pid = agent.wait_pid("poster", timeout_s=60)
            first_list = revocations(hasty_plane)
            seen: dict[str, str] = {}

            def three_certificates() -> bool:
                seen.update([facts_of(pem)])
                return len(seen) >= 3

            wait_for_or_show(agent, three_certificates, 90, "three certificates")
            assert len(set(seen.values())) == len(seen), "each has a key of its own"
            assert pem.stat().st_mode & 0o077 == 0
            until = first_list.next_update_utc
            assert until is not None
            wait_for_or_show(agent, lambda: SystemClock().now() > until, 60, "the end of the first revocation list")
            latest = facts_of(pem)[0]
            client.devices.revoke_certificate("porch", latest)
            wait_for_or_show(agent, lambda: facts_of(pem)[0] != latest, 90, "another certificate")
            before = len(bodies(client))
            wait_for_or_show(agent, lambda: len(bodies(client)) > before, 90, "messages after all of that")
            assert agent.metric("hedgerow_agent_certificate_expiry_seconds") < LIFE_S + 1
            assert agent.pid_of("poster") == pid, "its module was restarted"
            told = agent.state / "modules" / "poster" / "work" / "told"
            safe = set(told.read_text().split("\n")[:-1])
            wait_for_or_show(agent, lambda: safe <= set(bodies(client)), 90, "everything that was acknowledged")
            found = bodies(client)
            assert len(found) == len(set(found)), "stored more than once"


def bodies(client: Client) -> list[str]:
    return [message.body for message in client.telemetry.iterate(device="porch")]


def revocations(plane: ControlPlane) -> x509.CertificateRevocationList:
    """As Mosquitto reads it now."""
    folder = Path((plane.workspace / "run" / "mosquitto.folder").read_text())
    return x509.load_pem_x509_crl((folder / "revoked.pem").read_bytes())


def test_the_check_of_a_device_tells_of_its_certificate(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "checked")
    path, state = Device(config).write_toml(tmp_path / "device.toml"), tmp_path / "state"
    state.mkdir()

    def told(days: int = 0) -> tuple[bool, bool, str]:
        found = run_checks(path, state, SystemClock().now() + days * DAY)
        return next((one.ok, one.warning, one.detail) for one in found if one.name == "certificate of this device")

    assert told() == (True, True, "there is none yet")
    kept = state / "certificate.pem"
    kept.write_bytes(certify(config, tmp_path).path.read_bytes())
    kept.chmod(0o600)
    assert told()[:2] == (True, False)
    assert told(days=28)[:2] == (True, True)
    assert told(days=31)[0] is False
    kept.chmod(0o640)
    assert "other users" in told()[2]
    kept.write_bytes(kept.read_bytes()[:300])
    assert told()[0] is False


def test_an_agent_without_its_registry_boots_and_one_with_a_damaged_key_asks_for_another(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "offline")
    dead = msgspec.structs.replace(config, registry_url="http://127.0.0.1:9")
    folder = tmp_path / "device"
    with AgentProcess(Device(dead), folder) as agent:
        # Its local port answers (or this would not have begun), and it says what it waits for.
        wait_for_or_show(
            agent, lambda: any(one.action == "certificate-failed" for one in agent.decisions()), 60, "the failure being told"
        )
        assert not (agent.state / "certificate.pem").exists()
    damaged = folder / "state" / "certificate.pem"
    damaged.write_bytes(certify(config, tmp_path).path.read_bytes()[:300])
    with AgentProcess(Device(config), folder) as agent:
        wait_for_or_show(agent, lambda: agent.metric("hedgerow_agent_session") == 1, 60, "a session")
        assert facts_of(damaged)[0] in {found.serial for found in client.devices.certificates("offline").items}
        assert damaged.with_name("certificate.pem.damaged").exists()
