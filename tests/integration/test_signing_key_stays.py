"""Who gets the private half of a signing key: an owner on the workspace's own machine, and nobody else, whatever their token."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.registry_server import problem_of, running_server


def test_a_stolen_token_does_not_get_the_key_through_a_proxy(tmp_path: Path) -> None:
    with running_server(tmp_path, "--behind-proxy") as server:
        bearer = {"authorization": f"Bearer {server.owner_token}"}
        socket = str(server.workspace / "run" / "server.sock")
        with httpx.Client(base_url=f"http://127.0.0.1:{server.listening_port()}", headers=bearer, timeout=30) as through_proxy:
            (key,) = through_proxy.get("/api/v1/signing-keys").json()["keys"]
            path = f"/api/v1/signing-keys/{key['keyid']}/private"
            refused = through_proxy.post(path)
            assert (refused.status_code, problem_of(refused)["code"]) == (403, "signing_key_stays")
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://localhost", headers=bearer) as here:
            # Some proxies reach their server like this, and say that they are one.
            assert here.post(path, headers={"x-forwarded-for": "192.0.2.7"}).status_code == 403
            shown = here.post(path)
            assert (shown.status_code, shown.json()["keyid"]) == (200, key["keyid"])


def test_without_a_proxy_there_is_only_this_machine(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as api:
        (key,) = api.get("/api/v1/signing-keys").json()["keys"]
        assert api.post(f"/api/v1/signing-keys/{key['keyid']}/private", headers={"via": "1.1 edge"}).status_code == 403
        assert api.post(f"/api/v1/signing-keys/{key['keyid']}/private").status_code == 200
