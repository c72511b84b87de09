"""Two network namespaces and a cable between them that a test can cut, slow down, let lose packets or forget connections.

The cable is a thread that carries IP packets from one TUN device to the other, so everything above it is the kernel's own TCP.
It needs root, but neither kernel modules for traffic control nor routes of the machine's own network.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import secrets
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fixtures.parts import program
from tests.process_folders import need_root

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x1, 0x1000, 0x40000000
_TCP, _LONGEST_PACKET, _LOOK_S = 6, 65_536, 0.05
_libc = ctypes.CDLL(None, use_errno=True)
Flow = frozenset[tuple[bytes, int]]


class Namespace:
    """``address`` is its end of the cable; ``inside`` begins the command line of a program that is to run in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.path = Path("/run/netns", name)
        self.inside = [program("nsenter"), f"--net={self.path}", "--"]
        _ip("netns", "add", name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread connects or opens inside the block lies in the namespace."""
        with Path("/proc/thread-self/ns/net").open() as before, self.path.open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    def plug_in(self) -> int:
        """Descriptor of a new network device in it, up and with the address."""
        with self.entered():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", b"cable0", _IFF_TUN | _IFF_NO_PI))
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{self.address}/24", "dev", "cable0"],
            ["link", "set", "cable0", "up"],
        ):
            subprocess.run([*self.inside, program("ip"), *words], check=True, timeout=20)
        return fd

    def delete(self) -> None:
        _ip("netns", "delete", self.name)


class Cable:
    """Between ``device`` and ``site``. Its properties may be changed at any time, by any thread."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        with contextlib.ExitStack() as undo:
            self.device = Namespace(f"hw-{tag}-d", "10.99.0.1")
            undo.callback(self.device.delete)
            self.site = Namespace(f"hw-{tag}-s", "10.99.0.2")
            undo.callback(self.site.delete)
            self._ends = [self.device.plug_in(), self.site.plug_in()]
            undo.pop_all()
        self.loss, self.delay_s, self.is_cut = 0.0, 0.0, False
        self._seen: set[Flow] = set()
        self._forgotten: set[Flow] = set()
        self._chance = random.Random(1)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="cable", daemon=True)
        self._thread.start()

    def forget_connections(self) -> None:
        """Like a router that was switched off and on: packets of connections there are now vanish, new ones are carried."""
        self._forgotten |= set(self._seen)

    def close(self) -> None:
        self._done.set()
        self._thread.join(10)
        for fd in self._ends:
            os.close(fd)
        for namespace in (self.device, self.site):
            namespace.delete()

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        number = 0
        while not self._done.is_set():
            patience_s = min(_LOOK_S, max(0.0, under_way[0][0] - time.monotonic())) if under_way else _LOOK_S
            ready, _, _ = select.select(self._ends, [], [], patience_s)
            for source in ready:
                target = self._ends[1 - self._ends.index(source)]
                for packet in _packets(source):
                    if self._passes(packet):
                        number += 1
                        heapq.heappush(under_way, (time.monotonic() + self.delay_s, number, target, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(under_way)
                with contextlib.suppress(OSError):  # a full queue loses packets, as everywhere
                    os.write(target, packet)

    def _passes(self, packet: bytes) -> bool:
        flow = _flow(packet)
        if flow is not None:
            self._seen.add(flow)
        return not self.is_cut and flow not in self._forgotten and self._chance.random() >= self.loss


def _packets(source: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(source, _LONGEST_PACKET)


def _flow(packet: bytes) -> Flow | None:
    """Both ends of a TCP connection over IPv4."""
    if packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    start = (packet[0] & 0x0F) * 4
    here, there = struct.unpack_from("!HH", packet, start)
    return frozenset({(packet[12:16], here), (packet[16:20], there)})


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run([program("ip"), *words], check=True, timeout=20)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Plugged in; namespaces and devices go at the end."""
    need_root()
    made = Cable()
    try:
        yield made
    finally:
        made.close()
