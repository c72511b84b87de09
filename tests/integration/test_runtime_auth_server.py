"""Keys at a running server: 401 in both dialects, open pages, rotation under load, nothing of them in logs or scripts."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from tests import scoring_models as models
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]
ONE, TWO, THREE = "first-key-0123456789", "second-key-987654321", "third-key-0123456789"
KEYS = {"HEDGEROW_PRIMARY_KEY": ONE, "HEDGEROW_SECONDARY_KEY": TWO}
INFER = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_nothing_is_scored_in_either_dialect(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=KEYS) as server:
        for headers, says in (({}, "A key is needed"), (bearer("wrong-key-0123456789"), "The key is not valid")):
            refused = server.score([ROW], headers=headers)
            assert refused.status_code == 401
            assert refused.json()["message"].startswith(says)
            assert refused.headers["www-authenticate"] == 'Bearer realm="hedgerow"'
            assert "x-request-id" in refused.headers
            refused = server.client.post(f"{server.url}/v2/models/iris/infer", json=INFER, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"].startswith(says)
            assert refused.headers["www-authenticate"] == 'Bearer realm="hedgerow"'
        for path in ("/v2", "/v2/models/iris", "/swagger.json", "/nowhere"):
            assert server.get(path).status_code == 401, path
        for key in (ONE, TWO):
            assert server.score([ROW], headers=bearer(key)).status_code == 200
            assert server.client.post(f"{server.url}/v2/models/iris/infer", json=INFER, headers=bearer(key)).status_code == 200
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/metrics"):
            assert server.get(path).status_code == 200, path
        assert server.metric("hedgerow_unauthorized_total") == 8
        assert server.metric('hedgerow_requests_total{route="score",status="401"}') == 2
        assert server.metric('nv_inference_count{model="iris",version="1"}') == 4
        log = server.process.log_text()
    assert not [key for key in (ONE, TWO, "wrong-key") if key in log]


def test_health_and_metrics_can_be_closed(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--auth-health", "--auth-metrics", "always", env=KEYS) as server:
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/metrics"):
            assert server.get(path).status_code == 401, path
            assert server.get(path, headers=bearer(ONE)).status_code == 200, path


def test_health_is_closed_on_its_own_port_too(tmp_path: Path) -> None:
    env = {**KEYS, "SEPERATE_HEALTH_ENDPOINT": "true", "HEALTH_PORT": "0"}
    with ScoringServer(tmp_path, "--model", models.iris(), "--auth-health", env=env) as server:
        health = server.ready["health_address"]
        assert server.client.get(f"{health}/").status_code == 401
        assert server.client.get(f"{health}/", headers=bearer(ONE)).status_code == 200


def test_keys_change_under_load_without_a_failed_request(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n{TWO}\n")
    with ScoringServer(tmp_path, "--model", models.iris(), "--auth-key-file", file) as server:
        with httpx.Client(trust_env=False) as client:

            def status(key: str) -> int:
                return client.post(f"{server.url}/score", json=[ROW], headers=bearer(key)).status_code

            assert (status(ONE), status(TWO), status(THREE)) == (200, 200, 401)
            file.write_text(f"{THREE}\n{TWO}\n")

            def taken_over() -> bool:
                assert status(TWO) == 200, "the key that stays works all the time"
                return status(THREE) == 200

            wait_for(taken_over, what="the new key")
            assert status(ONE) == 401, "also where it was remembered"
            file.write_text("x")
            server.wait_for_log("the keys stay as they were")
            assert (status(TWO), status(THREE)) == (200, 200)
        log = server.process.log_text()
    assert not [key for key in (ONE, TWO, THREE) if key in log]


def test_a_large_body_is_not_read_from_a_stranger(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=KEYS) as server:
        for head in ("content-length: 90000000", "transfer-encoding: chunked"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
                caller.sendall(f"POST /score HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
                # Nothing of the body was sent, so an answer means that it was not waited for.
                assert caller.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_kept_connection_goes_on_after_a_refusal(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=KEYS) as server, httpx.Client(trust_env=False) as client:
        assert client.post(f"{server.url}/score", json=[ROW]).status_code == 401
        assert client.post(f"{server.url}/score", json=[ROW], headers=bearer(ONE)).status_code == 200
        assert server.metric("hedgerow_connections_total") == 2, "both over one, and the one that asks"


def test_a_browsers_preflight_needs_no_key_and_runs_nothing(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=KEYS | {"AML_CORS_ORIGINS": "https://a.example"}) as server:
        asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
        answer = server.client.options(f"{server.url}/score", headers=asks)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        refused = server.score([ROW], headers={"origin": "https://a.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")


def test_a_script_never_sees_the_servers_keys(tmp_path: Path) -> None:
    body = "import os\ndef init(): pass\ndef run(data): return sorted(os.environ.values())"
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), env=KEYS) as server:
        seen = server.post("/score", "x", headers=bearer(TWO)).json()
    assert not {ONE, TWO} & set(seen)


@pytest.mark.parametrize(
    ("env", "arguments", "says"),
    [
        ({"HEDGEROW_PRIMARY_KEY": "short"}, [], "key 1 has 5 characters"),
        ({"HEDGEROW_PRIMARY_KEY": ONE, "HEDGEROW_SECONDARY_KEY": ONE}, [], "both are the same"),
        ({}, ["--auth-key-file", "/nowhere/keys"], "No such file"),
        ({"HEDGEROW_PRIMARY_KEY": ONE}, ["--auth-key-file", "/nowhere/keys"], "keys in the environment and a file"),
    ],
)
def test_a_server_does_not_start_with_keys_that_are_no_good(
    tmp_path: Path, env: dict[str, str], arguments: list[str], says: str
) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), *arguments, env=env, wait=False) as server:
        wait_for(lambda: server.exit_code is not None, what="the end of it")
        assert server.exit_code == 3
        assert says in server.process.log_text()
