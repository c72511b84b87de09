"""Which addresses the control plane may call by itself: tables of what is refused, and properties that no address escapes."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hedgerow.egress import EgressPolicy, EgressRefused, check_url, choose, connect, is_public
from hedgerow.errors import InvalidSetting

CLOSED = EgressPolicy()
LOCAL = EgressPolicy.parse("127.0.0.0/8, ::1")

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "3fff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_special_addresses_are_not_called(text: str) -> None:
    target = check_url("https://receiver.example/hook", CLOSED)
    with pytest.raises(EgressRefused):
        choose(target, ["8.8.8.8", text], CLOSED)
    if "%" not in text:
        host = f"[{text}]" if ":" in text else text
        with pytest.raises(EgressRefused):
            check_url(f"https://{host}/hook", CLOSED)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_called(text: str) -> None:
    target = check_url("https://receiver.example/hook", CLOSED)
    assert choose(target, [text], CLOSED) == [text]
    host = f"[{text}]" if ":" in text else text
    assert check_url(f"https://{host}/", CLOSED).host == text


@given(st.ip_addresses(v=4))
@example(IPv4Address("100.64.0.0"))
def test_no_private_ipv4_address_is_public(address: IPv4Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved:
        assert not is_public(address)
    assert not is_public(IPv6Address(f"::ffff:{address}"))
    assert not is_public(IPv6Address(f"64:ff9b::{address}"))
    assert not is_public(IPv6Address((0x2002 << 112) | (int(address) << 80)))


@given(st.ip_addresses(v=6))
def test_no_special_ipv6_address_is_public(address: IPv6Address) -> None:
    if is_public(address):
        assert address in ipaddress.ip_network("2000::/3")
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None
        assert not address.is_private


@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=4))
def test_one_refused_address_refuses_all(found: list[str]) -> None:
    target = check_url("https://receiver.example/hook", CLOSED)
    allowed = all(is_public(ipaddress.ip_address(text)) for text in found)
    if allowed:
        assert choose(target, found, CLOSED) == found
    else:
        with pytest.raises(EgressRefused):
            choose(target, found, CLOSED)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "only https"),
        ("receiver.example", "only https"),
        ("//receiver.example/x", "only https"),
        ("ftp://receiver.example/x", "only https"),
        ("file:///etc/passwd", "only https"),
        ("javascript:alert(1)", "only https"),
        ("http://receiver.example/x", "plain http"),
        ("http://8.8.8.8/x", "plain http"),
        ("https://user:secret@receiver.example/x", "user or a password"),
        ("https://user@receiver.example/x", "user or a password"),
        ("https://@receiver.example/x", "user or a password"),
        ("https:///x", "neither a host name"),
        ("https://./x", "neither a host name"),
        ("https://a..b/x", "neither a host name"),
        ("https://-a.example/x", "neither a host name"),
        ("https://" + "a" * 64 + ".example/x", "neither a host name"),
        ("https://" + "a." * 130 + "example/x", "neither a host name"),
        ("https://127.1/x", "neither a host name"),
        ("https://2130706433/x", "neither a host name"),
        ("https://0x7f000001/x", "neither a host name"),
        ("https://0x7f.1/x", "neither a host name"),
        ("https://0177.0.0.1/x", "neither a host name"),
        ("https://127.0.0.1./x", "no public address"),
        ("https://localhost/x", "no public address"),
        ("https://a.localhost:8443/x", "no public address"),
        ("https://[fe80::1%25eth0]/x", "host or port|no public address|neither a host name"),
        ("https://[::1", "host or port"),
        ("https://receiver.example:99999/x", "host or port"),
        ("https://receiver.example:x/x", "host or port"),
        ("https://receiver.example:0/x", "port 0"),
        ("https://receiver.example:22/x", "port 22"),
        ("https://receiver.example:80/x", "port 80"),
        ("https://8.8.8.8:25/x", "port 25"),
        ("https://receiver.example/x#y", "fragment"),
        ("https://receiver.example/x#", "fragment"),
        ("https://receiver.example/a b", "characters"),
        ("https://receiver.example/a\r\nX: y", "characters"),
        ("https://receiver.example\\@127.0.0.1/", "characters"),
        ("https://receiver.exämple/", "characters"),
        ("https://receiver.example/" + "x" * 2000, "2000"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(EgressRefused, match=why) as refused:
        check_url(url, CLOSED)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://Receiver.Example", "receiver.example", 443, "/", "receiver.example"),
        ("https://receiver.example.:8443/a/b?c=d&e", "receiver.example", 8443, "/a/b?c=d&e", "receiver.example:8443"),
        ("https://[2606:4700::1111]/x", "2606:4700::1111", 443, "/x", "[2606:4700::1111]"),
        ("HTTPS://xn--bcher-kva.example/?q", "xn--bcher-kva.example", 443, "/?q", "xn--bcher-kva.example"),
    ],
)
def test_urls_that_pass(url: str, host: str, port: int, path: str, authority: str) -> None:
    target = check_url(url, CLOSED)
    assert (target.scheme, target.host, target.port, target.path, target.authority) == ("https", host, port, path, authority)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_a_refusal(text: str) -> None:
    for url in (text, f"https://{text}", f"https://receiver.example/{text}"):
        try:
            target = check_url(url, CLOSED)
        except EgressRefused:
            continue
        assert target.scheme == "https"
        assert "@" not in target.authority
        assert not set("\r\n ") & set(target.path + target.authority)


@pytest.mark.parametrize(
    ("allow", "url", "found", "good"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8000/x", ["10.1.2.3"], True),
        ("10.0.0.0/8", "http://inside.example/x", ["10.1.2.3"], True),
        ("10.0.0.0/8", "https://inside.example:22/x", ["10.1.2.3"], True),
        ("10.0.0.0/8", "http://inside.example/x", ["10.1.2.3", "11.0.0.1"], False),
        ("10.0.0.0/8", "http://inside.example/x", ["8.8.8.8"], False),
        ("10.0.0.0/8", "https://inside.example:25/x", ["8.8.8.8"], False),
        ("10.0.0.0/8", "https://outside.example/x", ["8.8.8.8"], True),
        ("10.0.0.0/8", "https://inside.example/x", ["192.168.0.1"], False),
        ("10.0.0.0/8", "https://inside.example/x", ["::ffff:10.0.0.1"], False),
        ("inside.example", "http://inside.example/x", ["192.168.0.1"], True),
        ("inside.example", "http://inside.example/x", ["fd00::1"], True),
        ("inside.example", "http://inside.example/x", ["169.254.169.254"], False),
        ("inside.example", "http://inside.example/x", ["0.0.0.0"], False),
        ("inside.example", "http://inside.example/x", ["fe80::1"], False),
        ("inside.example", "http://inside.example/x", ["::ffff:10.0.0.1"], False),
        ("inside.example", "https://sub.inside.example/x", ["192.168.0.1"], False),
        ("169.254.0.0/16", "http://inside.example/x", ["169.254.1.1"], True),
        ("169.254.0.0/16", "http://metadata.example/x", ["169.254.169.254"], False),
        ("inside.example", "http://inside.example/x", ["::7f00:1"], False),
        ("inside.example", "http://inside.example/x", ["::ffff:0:10.0.0.1"], False),
        ("64:ff9b::/96", "https://outside.example/x", ["64:ff9b::808:808"], True),
        ("localhost", "http://localhost:5000/x", ["127.0.0.1", "::1"], True),
        ("127.0.0.1", "http://127.0.0.1:5000/x", ["127.0.0.1"], True),
        ("127.0.0.1", "http://127.0.0.2:5000/x", ["127.0.0.2"], False),
        ("", "https://outside.example/x", [], False),
        ("", "https://outside.example/x", ["nonsense"], False),
    ],
)
def test_what_the_operator_allows(allow: str, url: str, found: list[str], good: bool) -> None:
    policy = EgressPolicy.parse(allow)

    def decide() -> list[str]:
        return choose(check_url(url, policy), found, policy)

    if good:
        assert decide() == found
    else:
        with pytest.raises(EgressRefused):
            decide()


METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"]


@pytest.mark.parametrize("allow", ["", "inside.example", "0.0.0.0/0, ::/0"])
@pytest.mark.parametrize(
    "text",
    [
        *METADATA,
        *(f"{prefix}{address}" for address in METADATA for prefix in ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::")),
        "2002:a9fe:a9fe::1",
        "2001:0:c000:204:0:0:5601:5601",  # Teredo
        "fd00:ec2::254",
        "fd00:ec2:0:0:0:0:0:254",
        "fd00:ec2::254%1",
        "fd20:ce::254",
    ],
)
def test_where_clouds_keep_secrets_nobody_is_sent(allow: str, text: str) -> None:
    policy = EgressPolicy.parse(allow)
    target = check_url("https://inside.example/x", policy)
    with pytest.raises(EgressRefused):
        choose(target, [text], policy)
    if "%" not in text:
        host = f"[{text}]" if ":" in text else text
        with pytest.raises(EgressRefused):
            check_url(f"https://{host}/x", policy)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/services/T0/secret?key=secret",
        "https://user:secret@hooks.example/x",
        "https://hooks.example:22/secret",
        "http://hooks.example/secret#secret",
        "https://169.254.169.254/secret",
        "https://a b/secret",
        "secret",
        "https://[secret/x",
        "https://hooks.example/" + "secret" * 500,
    ],
)
def test_a_refusal_shows_the_host_only(url: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        choose(check_url(url, CLOSED), ["10.0.0.1"], CLOSED)
    assert "secret" not in refused.value.sentence().replace("keeps the secrets", "")
    assert "secret" not in str(refused.value.fields).replace("the secrets", "")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "a b", "http://x", "*", "1.2.3", "ü.example"])
def test_a_policy_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidSetting):
        EgressPolicy.parse(text)


def test_the_name_is_looked_up_once_and_that_address_is_used() -> None:
    """A name that answers with an allowed address first and another one later never gets the second look."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        policy = EgressPolicy.parse("127.0.0.1")
        target = check_url(f"http://receiver.example:{listener.getsockname()[1]}/", policy)
        stream = connect(target, policy, timeout_s=5, tls=_no_tls, look_up=rebinding)
        with stream:
            assert stream.getpeername()[0] == "127.0.0.1"
    assert asked == ["receiver.example"]


def test_nothing_is_connected_to_when_one_address_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        target = check_url(f"http://receiver.example:{listener.getsockname()[1]}/", LOCAL)
        with pytest.raises(EgressRefused, match="no public address"):
            connect(target, LOCAL, timeout_s=5, tls=_no_tls, look_up=lambda *_: ["127.0.0.1", "10.0.0.1"])
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_second_address_is_tried_when_the_first_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = check_url(f"http://receiver.example:{listener.getsockname()[1]}/", LOCAL)
        with connect(target, LOCAL, timeout_s=5, tls=_no_tls, look_up=lambda *_: ["127.0.0.2", "127.0.0.1"]) as stream:
            assert stream.getpeername()[0] == "127.0.0.1"


def _no_tls() -> NoReturn:
    raise AssertionError("plain http asks for no TLS")
