"""Hosts and origins: pure decisions."""

from __future__ import annotations

import dataclasses

import pytest

from registry.errors import OriginRefused
from registry.server.guard import allowed_hosts, check_origin, is_loopback
from registry.settings import ServerSettings

SETTINGS = ServerSettings()
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def hosts(**changes: object) -> frozenset[str] | None:
    return allowed_hosts(dataclasses.replace(SETTINGS, **changes))  # type: ignore[arg-type]  # test data


def test_which_hosts_are_ours() -> None:
    assert hosts() == LOCAL
    assert hosts(host="10.1.2.3", allowed_hosts=" Box.Lan , ,other ") == LOCAL | {"10.1.2.3", "box.lan", "other"}
    assert hosts(behind_proxy=True) is None
    assert hosts(behind_proxy=True, public_url="https://Hedgerow.example:8443/") == LOCAL | {"hedgerow.example"}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", None),
        ("LocalHost:8080", None),
        ("[::1]:8080", None),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost:8080", "HTTP://LOCALHOST:8080"),
    ],
)
def test_our_own_pages_pass(host: str, origin: str | None) -> None:
    check_origin(host, origin, "http", LOCAL, None)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("", None),
        ("evil.example", None),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example:8080", None),
        ("evil.example:127.0.0.1", None),
        ("localhost@evil.example", None),
        ("localhost", "http://evil.example"),
        ("localhost:8080", "http://localhost"),
        ("localhost:8080", "https://localhost:8080"),
        ("localhost", "null"),
        ("localhost", ""),
        ("localhost", "http://localhost.evil.example"),
    ],
)
def test_strangers_do_not(host: str, origin: str | None) -> None:
    with pytest.raises(OriginRefused):
        check_origin(host, origin, "http", LOCAL, None)


def test_the_public_address_is_ours_too() -> None:
    check_origin("10.0.0.1", "https://hedgerow.example", "http", None, "https://hedgerow.example/")
    with pytest.raises(OriginRefused):
        check_origin("10.0.0.1", "https://hedgerow.example.evil", "http", None, "https://hedgerow.example/")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("box", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"host": "::1", "port": 9}, "http://[::1]:9"),
        ({"public_url": "https://h.example/"}, "https://h.example"),
    ],
)
def test_the_address_that_others_are_told(changes: dict[str, object], url: str) -> None:
    assert dataclasses.replace(SETTINGS, **changes).url == url  # type: ignore[arg-type]  # test data
