"""Messages from one module to the local hub by MQTT, QoS 1, acknowledged after the commit; Mosquitto in the same run.

    python -m loadtests.bench_edge_mqtt [--messages 30000] [--bytes 1024] [--rounds 3]

Both are spoken to by the same client: one connection, so many messages on their way at once. Mosquitto has persistence off and
nobody subscribed: it parses, acknowledges and forgets. The local hub has stored each message (fsync) before it says PUBACK.
"""

from __future__ import annotations

import argparse
import json
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOWS = (20, 200, 2000)
_HUB = """
import resource, sys
from pathlib import Path
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.tokens import Tokens
from edge_agent.telemetry.mqtt.clients import Surroundings
from edge_agent.telemetry.mqtt.inputs import InputFeeder
from edge_agent.telemetry.mqtt.local_hub import LocalHub
from edge_agent.telemetry.outbox import Limits, Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import Router
from hedgerow.clock import SystemClock

folder = Path(sys.argv[1])
metrics, tokens = Metrics(), Tokens(b"k" * 32)
outbox = Outbox(folder / "outbox.sqlite", Limits(2**40, 32_000_000), lambda: None, print)
around = Surroundings("bench", frozenset({"bench"}), lambda _m: frozenset(), lambda _m: {}, lambda _m: None, lambda _m, _t: None)
feeder = InputFeeder(outbox, lambda _stream: None)
hub = LocalHub(
    Reception(outbox, Router({}, {}, "bench"), metrics), feeder, tokens, SystemClock(), metrics, around, max_message_bytes=65536
)
print(hub.start(0), tokens.of("m"), flush=True)
sys.stdin.read()
hub.close()
outbox.close()
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss, outbox.totals.queued_messages, used.ru_utime + used.ru_stime, flush=True)
"""


def framed(first: int, body: bytes) -> bytes:
    length, size = b"", len(body)
    while True:
        size, byte = size >> 7, size & 0x7F
        length += bytes([byte | 0x80 if size else byte])
        if not size:
            return bytes([first]) + length + body


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def messages_per_s(port: int, user: str, password: str, count: int, size: int, window: int) -> float:
    """Publish ``count`` messages with at most ``window`` unacknowledged."""
    body = json.dumps({"v": "x" * (size - 9)}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags = b"\xc2" if user else b"\x02"
        login = text(user) + text(password) if user else b""
        sock.sendall(framed(0x10, text("MQTT") + b"\x04" + flags + b"\0\0" + text("bench") + login))
        assert sock.recv(4, socket.MSG_WAITALL) == b"\x20\x02\x00\x00", "not let in"
        packets = [framed(0x32, text("telemetry") + struct.pack(">H", number % 60_000 + 1) + body) for number in range(window)]
        started = time.perf_counter()
        _exchange(sock, packets, count, window)
        return count / (time.perf_counter() - started)


def _exchange(sock: socket.socket, packets: list[bytes], count: int, window: int) -> None:
    sock.setblocking(False)
    sent = answered = 0
    waiting = memoryview(b"")
    while answered < 4 * count:
        if not waiting and sent < count and (room := min(window - (sent - answered // 4), count - sent)) > 0:
            room = min(room, 64)
            waiting = memoryview(b"".join(packets[(sent + ahead) % window] for ahead in range(room)))
            sent += room
        readable, writable, _ = select.select([sock], [sock] if waiting else [], [], 60)
        if not readable and not writable:
            raise TimeoutError(f"nothing happened for a minute after {answered // 4} of {count}")
        if writable:
            waiting = waiting[sock.send(waiting) :]
        if readable:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError(f"the connection ended after {answered // 4} of {count}")
            answered += len(data)


@contextmanager
def local_hub(facts: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen([sys.executable, "-c", _HUB, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            port, token = child.stdout.readline().split()
            yield int(port), "m", token
            child.stdin.close()
            peak_kb, stored, cpu_s = child.stdout.readline().split()
            each_us = 1e6 * float(cpu_s) / int(stored)
            facts["local hub"] = (
                f"{int(peak_kb) // 1024} MB at most, {stored} messages in its buffer, {each_us:.0f} µs of CPU each"
            )
        finally:
            child.kill()
            child.wait()


@contextmanager
def mosquitto() -> Iterator[tuple[int, str, str]]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise SystemExit("mosquitto is not installed (Debian: mosquitto)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence false",
            "user root",
            "max_inflight_messages 0",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        child = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port, "", ""
        finally:
            child.terminate()
            child.wait()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments or [])
    facts: dict[str, str] = {}
    found: dict[tuple[str, int], list[float]] = {}
    with local_hub(facts) as ours, mosquitto() as theirs:
        for _ in range(options.rounds):
            for window in WINDOWS:
                for name, place in (("local hub", ours), ("mosquitto", theirs)):
                    count = min(options.messages, window * 200)
                    found.setdefault((name, window), []).append(messages_per_s(*place, count, options.bytes, window))
    print(f"\nMQTT from one module, QoS 1, {options.bytes} bytes each, one connection; messages/s, median of {options.rounds}\n")
    print("| on their way at once | local hub (on the disk before PUBACK) | mosquitto (memory only) |\n|---|---|---|")
    for window in WINDOWS:
        ours_s, theirs_s = (statistics.median(found[name, window]) for name in ("local hub", "mosquitto"))
        print(f"| {window} | {ours_s:,.0f} | {theirs_s:,.0f} |")
    print(f"\nlocal hub: {facts['local hub']}")


if __name__ == "__main__":
    main(sys.argv[1:])
