"""Who may do what, from where, and what every answer carries: asked of a real server."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registry.server.app import create_app
from registry.server.context import ServerContext
from registry.server.followers import Followers
from tests.fixtures.parts import search_path
from tests.registry_contexts import server_context
from tests.registry_server import Api, RunningServer, problem_of, running_server, server_command
from tests.registry_stores import digest_of_text
from tests.waiting import wait_for

SOME_DIGEST = digest_of_text("some")
FILLED = {"digest": SOME_DIGEST, "number": "1"}
# Takes enrolment keys and no tokens.
BY_KEY = "/api/v1/enroll"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerContext]:
    with server_context(tmp_path_factory.mktemp("app")) as made:
        yield made


def every_route(here: ServerContext) -> list[tuple[str, str]]:
    """(method, path with placeholders filled) of everything the server answers, but for what is open to all."""
    open_to_all = {"/healthz", "/login", "/metrics", "/openapi.json", "/api", "/api/<noun>"}
    open_to_all |= {"/authority.pem", "/authority.crl", "/authority.crl.pem"}
    routes = []
    for rule in create_app(here, Followers()).url_map.iter_rules():
        if rule.rule in open_to_all or rule.endpoint == "static":
            continue
        path = re.sub(r"<(?:[^:>]+:)?([^>]+)>", lambda found: FILLED.get(found[1], "thing"), rule.rule)
        routes += [(method, path) for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})]
    return routes


def test_every_route_asks_for_a_token_in_the_one_shape(server: RunningServer, here: ServerContext) -> None:
    routes = every_route(here)
    assert len(routes) > 25
    with server.client("") as nobody:
        for method, path in routes:
            answered = nobody.request(method, path)
            assert answered.status_code == 401, f"{method} {path}: {answered.status_code} {answered.text}"
            if path.startswith("/v2/"):
                assert answered.json()["errors"][0]["code"] == "UNAUTHORIZED"
                assert answered.headers["www-authenticate"].startswith("Basic " if path == "/v2/token" else "Bearer realm=")
            else:
                assert problem_of(answered)["code"] == ("enrollment_key_refused" if path == BY_KEY else "token_missing")


def test_every_route_answers_a_wrong_method_in_the_one_shape(api: Api, here: ServerContext) -> None:
    for path in {path for _, path in every_route(here)}:
        assert api.request("OPTIONS", path).status_code == 405
        answered = api.request("PROPFIND", path)
        assert answered.status_code == 405, f"{path}: {answered.status_code}"
        if path.startswith("/v2/"):
            assert answered.json()["errors"][0]["code"] == "UNSUPPORTED"
        else:
            assert problem_of(answered)["code"] == "method_not_allowed"
            assert answered.headers["allow"]


def test_every_write_refuses_what_is_not_json(api: Api, here: ServerContext) -> None:
    for method, path in every_route(here):
        if method == "GET":
            continue
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answered = api.request(method, path, content=b'{"a": 1}', headers={"content-type": kind})
            assert answered.status_code == 415, f"{method} {path} with {kind}: {answered.status_code}"
            if path.startswith("/v2/"):
                assert answered.json()["errors"][0]["code"] == "UNSUPPORTED"
            else:
                assert problem_of(answered)["code"] == "content_type_refused"


def test_a_reader_writes_nowhere(server: RunningServer, api: Api, here: ServerContext) -> None:
    with server.client(api.token("reader")) as reader:
        assert reader.get("/api/v1/models").status_code == 200
        for method, path in every_route(here):
            if method == "GET":
                continue
            answered = reader.request(method, path, json={})
            if path == BY_KEY:
                assert problem_of(answered)["code"] == "enrollment_key_refused"
                continue
            assert answered.status_code == 403, f"{method} {path}: {answered.status_code}"
            if path.startswith("/v2/"):
                assert answered.json()["errors"][0]["code"] == "DENIED"
            else:
                assert problem_of(answered)["code"] == "role_forbids"


@pytest.mark.parametrize(
    ("role", "allowed", "forbidden"),
    [
        ("contributor", ["/api/v1/models", "/"], ["/api/v1/tokens"]),
        ("reader", ["/api/v1/models", "/v2/", "/"], ["/api/v1/tokens"]),
        ("puller", ["/v2/"], ["/api/v1/models", "/", "/api/v1/tokens"]),
    ],
)
def test_roles_reach_what_is_theirs(server: RunningServer, api: Api, role: str, allowed: list[str], forbidden: list[str]) -> None:
    with server.client(api.token(role)) as client:
        assert [client.get(path).status_code for path in allowed] == [200] * len(allowed)
        assert [client.get(path).status_code for path in forbidden] == [403] * len(forbidden)


@pytest.mark.parametrize("base", ["oci:/etc", "docker-archive:/etc/passwd"])
def test_paths_of_the_server_are_for_its_owner(server: RunningServer, api: Api, base: str) -> None:
    model = api.register("based", api.upload(b"weights"))
    asked = {"name": "based-image", "models": [f"based:{model['version']}"], "kind": "docker", "base": base}
    with server.client(api.token("contributor")) as client:
        answered = client.post("/api/v1/images", json=asked)
        assert (answered.status_code, problem_of(answered)["code"]) == (403, "role_forbids")
    assert api.post("/api/v1/images", json=asked).status_code == 202


def test_wrong_tokens(server: RunningServer, api: Api) -> None:
    brief = api.token("reader", expires_in_s=1)
    with server.client(brief) as client:
        wait_for(lambda: client.get("/api/v1/models").status_code == 401, what="the token to expire")
        assert "expired" in problem_of(client.get("/api/v1/models"))["message"]
    for text in ("x", "hrw_0_0", server.owner_token + "x", server.owner_token.upper(), "hrw__"):
        with server.client(text) as client:
            answered = client.get("/api/v1/models")
            assert (answered.status_code, problem_of(answered)["code"]) == (401, "token_refused")
            assert answered.headers["www-authenticate"] == "Bearer"
    with server.client("") as client:
        basic = client.get("/api/v1/models", auth=("user", server.owner_token))
        assert basic.status_code == 401, "Basic credentials, which browsers send by themselves, are for OCI tools only"


def test_a_foreign_host_or_origin_is_refused(server: RunningServer, api: Api) -> None:
    port = urlsplit(server.url).port
    for headers in (
        {"host": "evil.example"},
        {"host": f"evil.example:{port}"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://127.0.0.1:{port}"},
        {"origin": f"http://127.0.0.1:{(port or 0) + 1}"},
        {"origin": ""},
    ):
        answered = api.get("/api/v1/models", headers=headers)
        assert (answered.status_code, problem_of(answered)["code"]) == (403, "origin_refused"), headers
    for headers in ({"origin": server.url}, {"host": f"localhost:{port}"}, {"host": "LOCALHOST"}, {"host": f"[::1]:{port}"}):
        assert api.get("/api/v1/models", headers=headers).status_code == 200, headers
    # Not even what is open to all on loopback.
    assert api.get("/metrics", headers={"host": "evil.example"}).status_code == 403
    assert api.get("/login", headers={"host": "evil.example"}).status_code == 403


def test_headers_of_every_answer(api: Api) -> None:
    for path in ("/api/v1/models", "/nope", "/", "/healthz", "/login"):
        headers = api.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"


def test_forwarded_headers_mean_nothing_without_a_proxy(api: Api) -> None:
    headers = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "script_name": "/x",
        "x-forwarded-for": "8.8.8.8",
    }
    assert api.get("/api/v1/models", headers=headers).status_code == 200


def test_a_body_without_end_is_cut(api: Api) -> None:
    big = b'{"name": "' + b"a" * (2 * 1024 * 1024) + b'"}'
    answered = api.post("/api/v1/tokens", content=big, headers={"content-type": "application/json"})
    assert (answered.status_code, problem_of(answered)["code"]) == (413, "document_too_large")
    chunks = (b" " * 65_536 for _ in range(40))
    chunked = api.post("/api/v1/tokens", content=chunks, headers={"content-type": "application/json"})
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"name": 1}', b"\xff", b'{"name": "x", "role": "reader", "role2": 1}']
)
def test_bodies_that_are_none(api: Api, body: bytes) -> None:
    answered = api.post("/api/v1/tokens", content=body, headers={"content-type": "application/json"})
    assert (answered.status_code, problem_of(answered)["code"]) == (400, "invalid_document")


@pytest.mark.parametrize(
    "raw",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /api/v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /static/../../../workspace.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /static/%2e%2e/%2e%2e/app.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/api/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_raw_rubbish_is_answered_and_the_server_goes_on(server: RunningServer, api: Api, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10) as connection:
        connection.sendall(raw)
        answered = http.client.HTTPResponse(connection)
        answered.begin()
        assert 400 <= answered.status < 500 or answered.status == 501
        assert b"import" not in answered.read()
    assert api.get("/healthz").status_code == 200


def test_secrets_stay_out_of_the_log(server: RunningServer, api: Api) -> None:
    secret = api.token("reader")
    with server.client(secret) as client:
        client.get("/api/v1/models", headers={"host": "evil.example"})
        client.get("/login", params={"token": secret})
        client.get("/login", params={"token": secret + "x"})
    log = server.process.log_text()
    assert secret not in log
    assert server.owner_token not in log


def test_refusals_are_counted_and_logged_now_and_then(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as api, server.client("hrw_0_" + "x" * 43) as stranger:
        limited = api.token("contributor", scopes=["models:mine"])
        for _ in range(30):
            assert stranger.get("/api/v1/models").status_code == 401
        with server.client("") as nobody, server.client(limited) as other:
            nobody.get("/api/v1/models")
            other.get("/api/v1/models/theirs")
            other.get("/api/v1/tokens")
        counted = dict(re.findall(r'hedgerow_refused_requests_total\{reason="(\w+)"\} ([0-9.]+)', api.get("/metrics").text))
        assert counted == {"token_refused": "30.0", "token_missing": "1.0", "scope_forbids": "1.0", "role_forbids": "1.0"}
        lines = [line for line in server.process.log_text().splitlines() if "Refused" in line]
        assert len(lines) == 1, "somebody who guesses must not fill the log"
        assert "/api/v1/models" in lines[0]
        assert "x" * 43 not in server.process.log_text()


def refused_start(folder: Path, *options: str) -> str:
    """The one line that a server which cannot start writes."""
    ended = subprocess.run(
        server_command(folder / "workspace", *options),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=folder,
        env={"PATH": search_path(), "HOME": str(folder)},
    )
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    return ended.stderr.strip()


def test_tokens_never_cross_the_network_in_the_clear(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.com"):
        assert "--behind-proxy" in refused_start(tmp_path, "--host", host)


def test_behind_a_proxy(tmp_path: Path) -> None:
    with running_server(tmp_path, "--behind-proxy", "--host", "0.0.0.0", "--public-url", "https://hedgerow.example/") as server:
        port = server.listening_port()
        assert server.url == "https://hedgerow.example"
        forwarded = {"x-forwarded-host": "hedgerow.example", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
        with Api(f"http://127.0.0.1:{port}", server.owner_token) as api:
            assert api.get("/api/v1/models", headers=forwarded | {"origin": "https://hedgerow.example"}).status_code == 200
            assert api.get("/api/v1/models", headers=forwarded | {"origin": "https://other.example"}).status_code == 403
            assert api.get("/api/v1/models", headers=forwarded | {"x-forwarded-host": "evil.example"}).status_code == 403
            api.headers.pop("authorization")
            # Everybody comes from the proxy's address here, so that nobody is "this machine".
            assert api.get("/metrics").status_code == 401


def cookie_of(api: Api, token: str) -> str:
    answered = api.get("/login", params={"token": token}, follow_redirects=False)
    assert answered.status_code == 303, answered.text
    return answered.headers["set-cookie"].partition("=")[2].partition(";")[0]


def test_a_pages_session_opens_pages_only_and_ends_with_its_token(server: RunningServer, api: Api) -> None:
    made = api.post("/api/v1/tokens", json={"name": "link", "role": "reader"}).json()
    with server.client("") as browser:
        session = cookie_of(browser, made["secret"])
        browser.cookies.clear()
        assert browser.get("/", headers={"cookie": f"hedgerow_page={session}"}).status_code == 200
        as_bearer = browser.get("/api/v1/models", headers={"authorization": f"Bearer {session}"})
        assert (as_bearer.status_code, problem_of(as_bearer)["code"]) == (401, "token_refused")
        assert browser.get("/login", params={"token": session}, follow_redirects=False).status_code == 403
        as_cookie = browser.get("/api/v1/models", headers={"cookie": f"hedgerow_page={made['secret']}"})
        assert as_cookie.status_code == 401, "a real token is no cookie"
        assert api.delete(f"/api/v1/tokens/{made['id']}").status_code < 300
        revoked = browser.get("/api/v1/models", headers={"cookie": f"hedgerow_page={session}"})
        assert revoked.status_code == 401


@pytest.mark.parametrize("limit", ["0000001009999999", "000000100" + "9" * 30, "9" * 5000, "0", "1001", "-1", "²"])
def test_a_page_has_its_limit_however_it_is_written(api: Api, limit: str) -> None:
    answered = api.get("/api/v1/models", params={"limit": limit})
    assert answered.status_code == 400


def test_half_sent_requests_keep_nobody_out(server: RunningServer, api: Api) -> None:
    address = urlsplit(server.url)
    silent = [socket.create_connection((str(address.hostname), int(address.port or 0))) for _ in range(40)]
    try:
        for one in silent:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")
        assert wait_for(lambda: api.get("/healthz").status_code == 200, timeout_s=20, what="an answer beside 40 silent callers")
    finally:
        for one in silent:
            one.close()
