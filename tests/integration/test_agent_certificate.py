"""The agent's keeper of its certificate beside registries that answer as they like, and files that go away."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.link.certificate import FILE_NAME, CertificateKeeper, read_certificate
from hedgerow.clock import SystemClock
from hedgerow.contracts.device import DeviceConfig, TrustedKey
from registry.identity.authority import issue_client
from registry.workspace import Workspace, open_workspace
from tests.certificate_parts import new_key, write_certified
from tests.waiting import wait_for

UUID = "0b0e7a7e-1111-4222-8333-444455556666"
# What the registry answers first; after these, properly.
BAD = ("another key", "another name", "nonsense")


class Registry:
    """Answers requests for certificates; ``requests`` are the paths and bearers that came."""

    def __init__(self, workspace: Workspace, bad: tuple[str, ...] = (), life: timedelta = timedelta(days=30)) -> None:
        self.workspace, self.bad, self.life = workspace, list(bad), life
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    def answer(self, request: str) -> bytes:
        asked = x509.load_pem_x509_csr(request.encode()).public_key()
        bad = self.bad.pop(0) if self.bad else ""
        if bad == "nonsense":
            return b"x" * 1_000_000
        key = new_key().public_key() if bad == "another key" else asked
        now = SystemClock().now()
        made = issue_client(self.workspace, "another" if bad == "another name" else UUID, key, now, self.life)
        document = {"serial": made.serial, "device": "porch", "issued_at": now.isoformat(), "schema_version": 1}
        return json.dumps(
            document | {"expires_at": made.expires_at.isoformat(), "certificate": made.certificate.decode()}
        ).encode()


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            registry.requests.append((self.path, self.headers["Authorization"]))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = registry.answer(body["request"])
            self.send_response(201)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            try:
                self.wfile.write(answer)
            except ConnectionError:  # it was too much for the other side
                return

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_port}/behind/a/proxy"
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "w")


class Kept:
    """A keeper on a folder, started."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        key = base64.b64encode(bytes(32)).decode()
        config = DeviceConfig(
            device_uuid=UUID,
            name="porch",
            workspace_id="w",
            topic_prefix="hedgerow/w",
            broker_url="mqtts://127.0.0.1:9",
            broker_login="certificate",
            registry_url=registry.url,
            device_key=key,
            pull_token="hrw_a_b",
            trusted_keys=[TrustedKey(keyid="k", key=key)],
        )
        self.path = folder / FILE_NAME
        self.told: list[tuple[str, str]] = []
        self.renewals = 0
        self.keeper = CertificateKeeper(config, folder, SystemClock(), lambda action, reason: self.told.append((action, reason)))
        self.keeper.on_new = self._count
        self.keeper.start()

    def _count(self) -> None:
        self.renewals += 1

    def loads(self) -> bool:
        return self.keeper.load_into(ssl.create_default_context())


@contextmanager
def kept(registry: Registry, folder: Path) -> Iterator[Kept]:
    made = Kept(registry, folder)
    try:
        yield made
    finally:
        made.keeper.close()


def test_what_is_no_certificate_for_its_key_is_not_taken(workspace: Workspace, tmp_path: Path) -> None:
    with serving(Registry(workspace, BAD)) as registry, kept(registry, tmp_path) as agent:
        wait_for(lambda: agent.renewals, timeout_s=90, what="a certificate after all")
        assert agent.loads()
        assert read_certificate(agent.path.read_bytes(), UUID)
        assert agent.path.stat().st_mode & 0o777 == 0o600
        assert len(registry.requests) == len(BAD) + 1
        assert set(registry.requests) == {("/behind/a/proxy/api/v1/devices/porch/certificates", "Bearer hrw_a_b")}
        # A failure is told once, not with every try.
        assert [action for action, _ in agent.told] == ["certificate-failed", "certificate"]


def test_one_that_is_good_is_used_again_without_asking(workspace: Workspace, tmp_path: Path) -> None:
    with serving(Registry(workspace)) as registry:
        with kept(registry, tmp_path) as first:
            wait_for(lambda: first.renewals, timeout_s=60, what="a certificate")
        before = first.path.read_bytes()
        with kept(registry, tmp_path) as second:
            assert second.loads()
            assert second.keeper.expires_at == first.keeper.expires_at
        assert second.path.read_bytes() == before
        assert len(registry.requests) == 1


def test_a_file_that_went_away_is_made_anew(workspace: Workspace, tmp_path: Path) -> None:
    with serving(Registry(workspace)) as registry, kept(registry, tmp_path) as agent:
        wait_for(lambda: agent.renewals, timeout_s=60, what="a certificate")
        agent.path.unlink()
        assert not agent.loads()
        wait_for(lambda: agent.renewals == 2 and agent.loads(), timeout_s=60, what="another one")


def test_a_broker_that_hangs_up_again_and_again_brings_one_new_certificate_and_no_flood(
    workspace: Workspace, tmp_path: Path
) -> None:
    with serving(Registry(workspace)) as registry, kept(registry, tmp_path) as agent:
        wait_for(lambda: agent.renewals, timeout_s=60, what="a certificate")
        for _ in range(2):
            agent.keeper.met(answered=False)
        agent.keeper.met(answered=True)
        for _ in range(3):
            agent.keeper.met(answered=False)
        wait_for(lambda: agent.renewals == 2, timeout_s=60, what="another one")
        for _ in range(30):
            agent.keeper.met(answered=False)
        agent.path.unlink()
        assert not agent.loads()
        wait_for(lambda: agent.renewals == 3, timeout_s=60, what="the one for the lost file")
        assert len(registry.requests) == 3


def test_one_that_ended_while_the_device_was_off_is_replaced(workspace: Workspace, tmp_path: Path) -> None:
    key, then = new_key(), SystemClock().now() - timedelta(days=90)
    made = issue_client(workspace, UUID, key.public_key(), then, timedelta(days=30))
    old = write_certified(tmp_path / FILE_NAME, key, made.certificate)
    with serving(Registry(workspace)) as registry, kept(registry, tmp_path) as agent:
        wait_for(lambda: agent.renewals, timeout_s=60, what="another one")
        assert read_certificate(agent.path.read_bytes(), UUID).serial != old.serial
