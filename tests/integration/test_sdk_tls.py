"""Whose certificates the SDK believes: those of the machine's authorities, of the file that is named, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.contracts.work import Activity
from hedgerow.sdk.errors import ApiError, ServerUnreachable
from hedgerow.sdk.transport import Transport
from tests.webhook_receivers import make_ca, receiver


def ask(url: str) -> None:
    transport = Transport(url.removesuffix("/hook"), None)
    try:
        transport.call("POST", "/api/v1/images", Activity)
    finally:
        transport.close()


def test_a_server_that_no_authority_vouches_for_is_not_talked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = make_ca(tmp_path, "127.0.0.1")
    with receiver(tls) as server:
        for scheme in ("https", "HTTPS"):
            with pytest.raises(ServerUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                ask(server.url.replace("https", scheme))
        assert server.asked == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with pytest.raises(ApiError) as answered:
            ask(server.url)
    assert answered.value.problem.code == "foreign_answer", "it answers, though nothing that we know"
