"""HAProxy's configuration as text, from a routing table. Pure; the golden file of its test shows what it looks like.

What needs a reload (pools, limits, numbers of slots, the port) is the *structure*; its digest stands in the configuration as
``description``, so that the running process can be asked which structure it has. Addresses and states of slots and the
traffic map are written too, but change at run time: :func:`commands` says how.

A reload starts a new process beside the old one, which keeps what is inside and its idle callers. Those it may not close: their
next request may be on its way. It answers that one with ``connection: close``, but by then knows nothing of replicas any more
(commands go to the new process), so it hands the request on to whoever has the port (``successor``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hedgerow.contracts.document import digest_of
from registry.controller.balancer.port import Pool, RoutingTable, Slot

SOCKET_FILE, MASTER_FILE, CONFIG_FILE, MAP_FILE = "haproxy.sock", "master.sock", "haproxy.cfg", "traffic.map"
# Where a slot without a replica points; nothing is ever sent there.
_NOWHERE_PORT = 1
_BUCKETS = 100
_KEEP_ALIVE_S = 75
# From the last moment at which an idle caller asks to the end of the process that it asked.
_END_SLACK_S = 15
_BUSY = "The service is busy or has no ready replica; try again in a moment"
_BROKEN = "The replica ended while it worked on the request"
_LATE = "Scoring took longer than the deployment allows"
_UNKNOWN = "There is no such service, or nothing is deployed under it"


@dataclass(frozen=True)
class HaproxyOptions:
    """What does not come from the table. ``uid``: whom the process that meets requests becomes, when started by root."""

    port: int
    threads: int
    max_connections: int
    uid: int | None = None


@dataclass(frozen=True)
class HaproxyFiles:
    """``structure`` is the digest that stands in ``config``."""

    config: str
    traffic_map: str
    structure: str


def render(table: RoutingTable, options: HaproxyOptions) -> HaproxyFiles:
    """The files of a table."""
    structure = digest_of(_config(table, options, "", structure_only=True).encode())
    config = _config(table, options, structure, structure_only=False)
    return HaproxyFiles(config, "".join(f"{line}\n" for line in map_lines(table)), structure)


def map_lines(table: RoutingTable) -> list[str]:
    """``ENDPOINT:BUCKET BACKEND`` for each of 100 buckets; a request draws one. Buckets of absent pools lead nowhere."""
    known = {(pool.endpoint, pool.deployment) for pool in table.pools}
    lines: list[str] = []
    for endpoint, shares in sorted(table.traffic.items()):
        bucket = 0
        for deployment, percent in sorted(shares.items()):
            if (endpoint, deployment) in known:
                lines += [f"{endpoint}:{number} {_backend(endpoint, deployment)}" for number in range(bucket, bucket + percent)]
            bucket += percent
    return lines


def slots_of(table: RoutingTable) -> dict[str, Slot]:
    """Every slot of a table by the name that its server has in HAProxy (``BACKEND/slotN``)."""
    return {
        f"{_backend(pool.endpoint, pool.deployment)}/{_slot_name(number)}": slot
        for pool in table.pools
        for number, slot in enumerate(pool.slots)
    }


def commands(old: Mapping[str, Slot], new: RoutingTable) -> list[str]:
    """Commands for the runtime socket that lead from the slots ``old`` to ``new``; both have one structure.

    First those that bring replicas in, then those that take some out: in between there is never none.
    """
    wanted = slots_of(new)
    found: list[str] = []
    for server in sorted(wanted, key=lambda server: wanted[server].state != "ready"):
        found += _slot_commands(server, old.get(server), wanted[server])
    return found


def _slot_commands(server: str, was: Slot | None, slot: Slot) -> list[str]:
    if slot.state == "off":
        return [] if was is not None and was.state == "off" else [f"set server {server} state maint"]
    if was == slot:
        return []
    if was is not None and was.port == slot.port:
        return [f"set server {server} state {slot.state}"]
    # Out of use while it moves: a request must not be sent to the new port as if it were the old replica.
    away = [] if was is not None and was.state == "off" else [f"set server {server} state maint"]
    return [*away, f"set server {server} addr 127.0.0.1 port {slot.port}", f"set server {server} state {slot.state}"]


def _config(table: RoutingTable, options: HaproxyOptions, structure: str, *, structure_only: bool) -> str:
    last_s = _longest_s(table)
    parts = [
        _global(options, structure, last_s),
        _defaults(),
        _frontend(options.port),
        _successor(options.port, last_s),
        _nowhere(),
    ]
    parts += [_pool(pool, structure_only=structure_only) for pool in table.pools]
    return "\n".join(parts)


def _longest_s(table: RoutingTable) -> int:
    """How long a request may take, waiting included; whole seconds, rounded up."""
    return -(-max((pool.queue_wait_ms + pool.timeout_ms for pool in table.pools), default=0) // 1000)


def _global(options: HaproxyOptions, structure: str, longest_s: int) -> str:
    drop = f"    uid {options.uid}\n    gid {options.uid}\n" if options.uid is not None else ""
    return f"""\
# Written by the Hedgerow controller; changes are overwritten.
global
    description {structure or "none"}
    maxconn {options.max_connections}
    nbthread {options.threads}
    hard-stop-after {_KEEP_ALIVE_S + longest_s + _END_SLACK_S}s
{drop}    log stderr format short daemon notice
    stats socket unix@{SOCKET_FILE} mode 600 level admin
"""


def _defaults() -> str:
    return f"""\
defaults
    mode http
    log global
    option dontlog-normal
    option redispatch 1
    retries 3
    timeout connect 2s
    timeout client {_KEEP_ALIVE_S}s
    timeout server 60s
    timeout queue 500ms
    timeout check 5s
    timeout http-request 10s
    timeout http-keep-alive {_KEEP_ALIVE_S}s
    {_http_error(502, _BROKEN)}
    {_http_error(503, _BUSY)} hdr Retry-After 1
    {_http_error(504, _LATE)}
"""


def _http_error(status: int, text: str) -> str:
    return f"http-error status {status} content-type application/json string '{_body(text)}'"


def _body(text: str) -> str:
    # One body for the two contracts that are spoken here: azmlinfsrv reads `message`, the Open Inference Protocol `error`.
    return f'{{"message":"{text}","error":"{text}"}}'


def _frontend(port: int) -> str:
    return f"""\
frontend services
    bind 127.0.0.1:{port}
    option idle-close-on-response
    http-request set-var(txn.endpoint) path,field(3,/) if {{ path_beg /services/ }}
    http-request set-var(txn.bucket) rand({_BUCKETS})
    http-request set-var(txn.backend) var(txn.endpoint),concat(:,txn.bucket,),map({MAP_FILE},nowhere)
    use_backend successor if {{ stopping }}
    use_backend %[var(txn.backend)] if {{ var(txn.endpoint) -m found }}
    default_backend nowhere
"""


def _successor(port: int, longest_s: int) -> str:
    # A connection for each request: one that is kept would lead to a process that a later reload makes an old one, too.
    return f"""\
backend successor
    option http-server-close
    http-reuse never
    retries 1
    timeout server {longest_s + _END_SLACK_S}s
    server next 127.0.0.1:{port}
"""


def _nowhere() -> str:
    return f"""\
backend nowhere
    http-request return status 404 content-type application/json string '{_body(_UNKNOWN)}'
"""


def _pool(pool: Pool, *, structure_only: bool) -> str:
    slots = enumerate(pool.slots)
    servers = "".join(f"    {_server(number, Slot() if structure_only else slot)}\n" for number, slot in slots)
    return f"""\
backend {_backend(pool.endpoint, pool.deployment)}
    balance leastconn
    timeout queue {max(1, pool.queue_wait_ms)}ms
    timeout server {pool.timeout_ms}ms
    # A browser sends a host's cookies to every port of it; those of the control plane's pages are no business of a model.
    http-request del-header Cookie
    http-request replace-path ^/services/[^/]+/?(.*)$ /\\1
    option httpchk
    http-check send meth GET uri /v2/health/ready
    http-check expect status 200
    default-server maxconn {pool.max_concurrent} check inter 2s fastinter 250ms downinter 250ms fall 3 rise 1
{servers}"""


def _server(number: int, slot: Slot) -> str:
    # One that drains when the configuration is read has nothing to finish: its requests are in the process before.
    use = "" if slot.state == "ready" else " disabled"
    return f"server {_slot_name(number)} 127.0.0.1:{slot.port or _NOWHERE_PORT}{use}"


def _backend(endpoint: str, deployment: str) -> str:
    """Unambiguous: names have no colon."""
    return f"d:{endpoint}:{deployment}"


def _slot_name(number: int) -> str:
    return f"slot{number + 1}"
