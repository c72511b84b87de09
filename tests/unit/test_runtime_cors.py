"""Which origins may call, and what they are told."""

from __future__ import annotations

import pytest

from runtime.exchange import Exchange, Request, Response
from runtime.front.cors import Cors


class Caller:
    """A channel that keeps what it is sent."""

    since = 0.0

    def __init__(self) -> None:
        self.heads: list[Response] = []

    def send(self, exchange: Exchange, response: Response) -> None:
        self.heads.append(response)

    send_head = send

    def send_part(self, part: bytes) -> bool:
        return True

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        pass


def answer(origins: str, method: str = "POST", **headers: str) -> dict[str, str]:
    caller = Caller()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = Exchange(caller, Request(method, "/score", headers=named), keep_alive=True)
    Cors(origins, lambda asked: asked.answer(Response(200, b"x", headers={"a": "b"}))).handle(exchange)
    [response] = caller.heads
    assert response.headers["a"] == "b"
    return {name: value for name, value in response.headers.items() if name != "a"}


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ("*", "https://any.example"),
        ("https://a.example", "https://a.example"),
        ("x, HTTPS://A.example ,y", "https://a.EXAMPLE"),
        ("https://*.a.example", "https://b.c.a.example"),
        ("http://localhost:*", "http://localhost:3000"),
        (r"https://.*\.a\.example", "https://B.a.example"),
    ],
)
def test_named_origins_may_read_the_answer(origins: str, origin: str) -> None:
    assert answer(origins, origin=origin)["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ("https://a.example", "https://a.example.evil.com"),
        ("https://a.example", "https://b-a.example"),
        ("https://a.example", "http://a.example"),
        ("https://*.a.example", "https://evil.com/.a.example"),
        ("https://*.a.example", "https://aXexample"),
        ("https://a.example", "null"),
        (r"https://.*\.a\.example", "https://b.a.example.evil.com"),
        (r"https://(.*\.a", "https://b.a"),
        ("", "https://a.example"),
    ],
)
def test_others_may_not(origins: str, origin: str) -> None:
    assert answer(origins, origin=origin) == {}
    assert answer(origins) == {}


def test_a_preflight_is_told_the_methods_and_the_headers_it_asks_for() -> None:
    asked = {"origin": "https://a", "access_control_request_method": "POST", "access_control_request_headers": "x-one, x-two"}
    assert answer("https://a", "OPTIONS", **asked) == {
        "access-control-allow-origin": "https://a",
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "x-one, x-two",
        "vary": "Origin",
    }
    assert answer("*", "POST", **asked) == {"access-control-allow-origin": "https://a", "vary": "Origin"}


def test_what_an_answer_differs_by_already_is_kept() -> None:
    caller = Caller()
    exchange = Exchange(caller, Request("GET", "/score", headers={"origin": "https://a"}), keep_alive=True)
    packed = Response(200, b"x", headers={"vary": "accept-encoding"})
    Cors("*", lambda asked: asked.answer(packed)).handle(exchange)
    assert [response.headers["vary"] for response in caller.heads] == ["accept-encoding, Origin"]


def test_a_preflight_of_another_path_is_answered_here() -> None:
    caller = Caller()
    headers = {"origin": "https://a", "access-control-request-method": "POST"}
    exchange = Exchange(caller, Request("OPTIONS", "/v2/models/m/infer", headers=headers), keep_alive=True)
    Cors("*", lambda asked: asked.answer(Response(405, b""))).handle(exchange)
    assert [response.status for response in caller.heads] == [200]


def test_a_stream_gets_the_headers_too() -> None:
    caller = Caller()
    exchange = Exchange(caller, Request("POST", "/score", headers={"origin": "https://a"}), keep_alive=True)

    def stream(asked: Exchange) -> None:
        asked.begin(Response(200, b""))
        assert asked.part(b"x")
        asked.end()

    Cors("https://a", stream).handle(exchange)
    assert caller.heads[0].headers["access-control-allow-origin"] == "https://a"
