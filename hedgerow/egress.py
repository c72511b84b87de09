"""The one policy for requests that the control plane sends out by itself: webhooks, registries of images.

Public https is allowed; anything else is what the operator named in ``--egress-allow`` (networks, addresses or hosts), and
to those plain http may go too. Addresses where clouds give out credentials to whoever asks from the machine are refused
whatever the operator named. Three steps, of which the first two are pure:

    check_url    what the URL says by itself: scheme, host, port, no credentials. When a record is made, and at every send.
    choose       the addresses that its name has *now*: every one must be allowed, or none is used.
    connect      resolves once and connects to one of those very addresses, so that a name that answers differently the
                 next time (DNS rebinding) changes nothing. TLS is checked against the name of the URL.

A redirect is another URL: webhooks treat it as a failure, what talks to registries passes it through the same steps.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from hedgerow.errors import InvalidSetting, UserError

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

LONGEST_URL = 2000
SETTING = "egress_allow"
_PORTS = {"http": 80, "https": 443}
_HTTPS, _FIRST_FREE_PORT = 443, 1024
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LONGEST_HOST = 253

# What is never a public receiver, besides everything that Python's `is_global` denies (it learns with Python's releases,
# this list says what must be known on the oldest one).
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/3",  # all that lies outside of 2000::/3: loopback, mapped and compatible IPv4, NAT64, …
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4 holds an IPv4 address
        "3fff::/20",
        "4000::/2",
        "8000::/1",  # unique local, link-local, multicast, …
    )
)
# Where clouds tell a machine its secrets (Amazon, Google, Microsoft, Oracle, Alibaba and others): never a receiver of anything.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)
# IPv6 that holds an IPv4 address, and how many bits stand behind that.
_WRAPPED = tuple(
    (ipaddress.IPv6Network(text), bits)
    for text, bits in (
        ("::/96", 0),  # compatible
        ("::ffff:0:0/96", 0),  # mapped
        ("::ffff:0:0:0/96", 0),  # translated
        ("64:ff9b::/96", 0),  # NAT64
        ("64:ff9b:1::/48", 0),  # NAT64 of one's own
        ("2002::/16", 80),  # 6to4
    )
)
# A host that the operator allowed by name may lie in a private network, but is none of these: they are allowed as networks.
_COMPATIBLE, _LOOPBACK = IPv6Network("::/96"), IPv6Address("::1")
_NOT_BY_NAME = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/128",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/32",
        "2001::/32",
        "2002::/16",
        "fe80::/10",
        "ff00::/8",
    )
)


class EgressRefused(UserError):
    """A URL that the control plane must not send requests to."""

    key = "egress_refused"
    message = "{url} cannot be called: {problem}"
    remedy = "Use a public https address; others are allowed by whoever runs the control plane: --egress-allow NETWORK|HOST,…"


@dataclass(frozen=True)
class EgressPolicy:
    """What may be reached besides public https, and there over http and on any port too."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> EgressPolicy:
        """``10.0.0.0/8, 127.0.0.1, receiver.internal``. Raises InvalidSetting."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for part in (piece.strip().lower() for piece in text.split(",")):
            if not part:
                continue
            network = _network(part)
            if network is not None:
                networks.append(network)
            elif _is_host(part) and not _looks_numeric(part):
                hosts.add(part)
            else:
                source = "--egress-allow or the environment variable HEDGEROW_EGRESS_ALLOW"
                problem = f"{part[:80]!r} is neither a network like 10.0.0.0/8 nor a host"
                raise InvalidSetting(name=SETTING, value=text[:200], problem=problem, source=source)
        return cls(tuple(networks), frozenset(hosts))

    def allows_network(self, address: Address) -> bool:
        """Whether the operator named a network that ``address`` lies in."""
        return any(address.version == network.version and address in network for network in self.networks)

    def allows_host(self, host: str, address: Address) -> bool:
        """Whether the operator named ``host``, and ``address`` is one that a name may stand for."""
        compatible = address in _COMPATIBLE and address != _LOOPBACK
        return host in self.hosts and not compatible and not _within(address, _NOT_BY_NAME)


@dataclass(frozen=True)
class Target:
    """A URL that passed :func:`check_url`. ``host`` has no brackets; ``path`` begins with a slash and has the query."""

    url: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, policy: EgressPolicy, *, longest: int = LONGEST_URL) -> Target:
    """What can be said of ``url`` without asking anybody; ``longest`` in characters. Raises EgressRefused."""
    target = _parse(url, longest)
    address = _literal(target.host)
    if address is not None:
        _check_address(target, address, policy)
        return target
    if _is_local_name(target.host) and not policy.allows_host(target.host, IPv4Address("127.0.0.1")):
        _check_address(target, IPv4Address("127.0.0.1"), policy)
    # A name's addresses are known when it is resolved; here, whether any answer could be allowed.
    if target.host in policy.hosts or policy.networks:
        return target
    if target.scheme == "http":
        raise _refused(url, "plain http goes only where the operator allows it")
    _check_port(target)
    return target


def choose(target: Target, found: Sequence[str], policy: EgressPolicy) -> list[str]:
    """``found`` are the addresses of the target's host; they are returned when every one is allowed. Raises EgressRefused."""
    if not found:
        raise _refused(target.url, f"{target.host} has no address")
    for text in found:
        address = _literal(text)
        if address is None:
            raise _refused(target.url, f"{target.host} resolves to {text[:60]!r}, which is no address")
        _check_address(target, address, policy)
    return list(found)


def resolve(host: str, port: int) -> list[str]:
    """Every address of ``host``, as the machine's resolver orders them. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as problem:
        raise OSError(f"{host!r} is no name that can be looked up") from problem
    # A dictionary keeps the order and drops repetitions.
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def connect(
    target: Target,
    policy: EgressPolicy,
    *,
    timeout_s: float,
    tls: Callable[[], ssl.SSLContext],
    look_up: Resolve = resolve,
) -> socket.socket:
    """A connection to ``target``, encrypted for https; ``tls`` is only asked then. Each attempt has ``timeout_s``.

    Raises EgressRefused, OSError (with ssl.SSLError among them).
    """
    addresses = choose(target, look_up(target.host, target.port), policy)
    plain = _connect_first(addresses, target.port, timeout_s)
    if target.scheme == "http":
        return plain
    try:
        return tls().wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the certificates of the machine and those in ``ca_file`` (PEM). Raises OSError when that cannot be read."""
    # Megabytes that a process without https does not pay for.
    import ssl

    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        made.load_verify_locations(ca_file)
    return made


def _connect_first(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    """Two addresses at most: a machine without IPv6 still reaches a name that has both."""
    problem: OSError | None = None
    for address in addresses[:2]:
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError as failed:
            problem = failed
    assert problem is not None  # noqa: S101 - `choose` gives at least one address
    raise problem


def _parse(url: str, longest: int) -> Target:
    if len(url) > longest:
        raise _refused(url, f"it has more than {longest} characters")
    if not (url.isascii() and url.isprintable()) or set(url) & set(' \\"<>^`{|}'):
        raise _refused(url, "it holds characters that belong into no URL; write them as %XX, and host names in their xn-- form")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise _refused(url, "its host or port cannot be read") from None
    scheme: Literal["http", "https"] = "http" if parts.scheme == "http" else "https"
    if parts.scheme != scheme:
        raise _refused(url, "only https (and http, where the operator allows it) is sent to")
    if "@" in parts.netloc:
        raise _refused(url, "it holds a user or a password; what is called knows Hedgerow in other ways")
    if parts.fragment or url.endswith("#"):
        raise _refused(url, "it has a fragment (#), which is never sent")
    if _literal(host) is None and (not _is_host(host) or _looks_numeric(host)):
        raise _refused(url, f"{host[:80]!r} is neither a host name nor an IP address")
    if port == 0:
        raise _refused(url, "there is no port 0")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(url, scheme, host, port or _PORTS[scheme], path)


def _check_address(target: Target, address: Address, policy: EgressPolicy) -> None:
    if is_metadata(address):
        raise _refused(target.url, f"{target.host} is {address}, where a cloud keeps the secrets of its machines")
    if policy.allows_network(address) or policy.allows_host(target.host, address):
        return
    if not is_public(address):
        by_name = str(address) != target.host
        problem = f"{target.host} is {address}, which is no public address" if by_name else "it is no public address"
        raise _refused(target.url, problem)
    if target.scheme == "http":
        raise _refused(target.url, "plain http goes only where the operator allows it")
    _check_port(target)


def _check_port(target: Target) -> None:
    """Low ports belong to services that are no receivers of anything over https."""
    if target.port != _HTTPS and target.port < _FIRST_FREE_PORT:
        raise _refused(target.url, f"port {target.port} is not for https")


def is_public(address: Address) -> bool:
    """Whether ``address`` is one of the internet's own: no special use, and no other address wrapped in it."""
    return address.is_global and not address.is_multicast and not _within(address, _NOT_PUBLIC)


def is_metadata(address: Address) -> bool:
    """Whether a cloud's metadata service is at ``address``, as it is or wrapped in an IPv6 address."""
    if isinstance(address, IPv4Address):
        return address in _METADATA
    plain = IPv6Address(int(address))  # without a zone (%eth0), which makes addresses unequal
    if plain in _METADATA or (plain.teredo is not None and plain.teredo[1] in _METADATA):
        return True
    held = (IPv4Address(int(plain) >> bits & 0xFFFFFFFF) for network, bits in _WRAPPED if plain in network)
    return any(one in _METADATA for one in held)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_host(host: str) -> bool:
    return len(host) <= _LONGEST_HOST and all(_LABEL.fullmatch(label) for label in host.split("."))


def _looks_numeric(host: str) -> bool:
    """``127.1``, ``2130706433``, ``0x7f.1``: resolvers take these for IPv4 addresses, so they are no names."""
    return re.fullmatch(r"\d+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _refused(url: str, problem: str) -> EgressRefused:
    # Paths and queries of webhooks are secrets as often as not, and this is logged and kept with the delivery.
    return EgressRefused(url=_host_shown(url), problem=problem)


def _host_shown(url: str) -> str:
    """The host that ``url`` names, as far as it names one; nothing else of it."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    known = _literal(host) is not None or _is_host(host)
    return host[:120] if known else "The URL"
