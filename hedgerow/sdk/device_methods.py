"""Direct methods of devices: call one, read a module's logs as they come."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from hedgerow.contracts.api_methods import CalledMethod, InvokeMethod
from hedgerow.contracts.work import Problem
from hedgerow.sdk.addresses import address
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.transport import Transport

# What the server may take beyond the method's own time.
_BESIDE_S = 60.0
FOLLOW_EVERY_S = 2.0


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of module ``id``; ``position`` is where to go on after it."""

    id: str
    position: str
    text: str


class DeviceMethods:
    """The part of ``client.devices`` that speaks with devices."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def invoke(
        self,
        device: str,
        method: str,
        payload: object = None,
        *,
        module: str | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 0.0,
    ) -> CalledMethod:
        """Call a method of the agent, or of ``module``, and wait for its answer: ``status`` and ``payload`` are the method's own.

        ``connect_timeout_s`` is how long to wait for a device that is offline. Raises ApiError: ``device_offline``,
        ``method_unanswered``.
        """
        body = InvokeMethod(module=module, payload=payload, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
        wait_s = timeout_s + connect_timeout_s + _BESIDE_S
        return self._transport.call("POST", self._address(device, method), CalledMethod, body=body, timeout_s=wait_s)

    def method_call(self, device: str, call_id: str) -> CalledMethod:
        """What became of a call; it is kept for an hour after its end."""
        return self._transport.call("GET", address("/api/v1/devices", device, "methods", "calls", call_id), CalledMethod)

    def stream(self, device: str, method: str, payload: object = None, *, timeout_s: float = 30.0) -> Iterator[bytes]:
        """The answer's JSON as it comes, of any length. Raises ApiError as :meth:`invoke`, and when the method refuses."""
        body = InvokeMethod(payload=payload, timeout_s=timeout_s)
        status, chunks = self._transport.stream_post(
            self._address(device, method), body, query={"stream": True}, timeout_s=timeout_s + _BESIDE_S
        )
        if status is not None and not 200 <= int(status) < 300:
            raise refusal(int(status), b"".join(chunks))
        yield from chunks

    def logs(
        self,
        device: str,
        module: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        until: str | None = None,
        regex: str | None = None,
        levels: Sequence[int] | None = None,
        after: str = "",
        unfinished: bool = True,
    ) -> Iterator[LogLine]:
        """Lines of a module, filtered on the device. Times are RFC 3339, unix seconds or ``2h``; ``after`` a line's position.

        >>> for line in client.devices.logs("press-1", "pump", tail=100, regex="error"):  # doctest: +SKIP
        ...     print(line.text)
        """
        given = {"tail": tail, "since": since, "until": until, "regex": regex, "after": after or None}
        wanted: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        if levels is not None:
            wanted["loglevel"] = list(levels)
        if not unfinished:
            wanted["unfinished"] = False
        payload = {"schemaVersion": "1.0", "items": [{"id": _exactly(module), "filter": wanted}], "contentType": "lines"}
        yield from read_lines(self.stream(device, "GetModuleLogs", payload))

    def follow_logs(
        self,
        device: str,
        module: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        regex: str | None = None,
        levels: Sequence[int] | None = None,
        every_s: float = FOLLOW_EVERY_S,
    ) -> Iterator[LogLine]:
        """Like :meth:`logs`, without end: asks again behind the last line every ``every_s`` seconds."""
        pause = threading.Event()
        # A line that passes no filter still tells where to go on: the first look remembers the end without one.
        after = ""
        while True:
            for line in self.logs(
                device, module, tail=tail, since=since, regex=regex, levels=levels, after=after, unfinished=False
            ):
                after = line.position
                yield line
            tail, since = (tail, since) if not after else (None, None)
            pause.wait(every_s)

    def restart_module(self, device: str, module: str, *, timeout_s: float = 30.0) -> CalledMethod:
        """Stop and start a module now. Raises ApiError when the device refuses."""
        return done(self.invoke(device, "RestartModule", {"schemaVersion": "1.0", "id": module}, timeout_s=timeout_s))

    def support_bundle(self, device: str, path: Path, *, with_logs: bool = True) -> int:
        """Write a device's support bundle (tar.gz) to ``path``; returns its size. It holds no keys, tokens or passwords.

        Raises ApiError as :meth:`stream`, FileExistsError.
        """
        chunks = self.stream(
            device, "GetSupportBundle", {"schemaVersion": "1.0", "edgeRuntimeOnly": not with_logs}, timeout_s=120
        )
        with path.open("xb") as file:
            try:
                for piece in _from_base64(chunks):
                    file.write(piece)
            except BaseException:
                path.unlink()
                raise
            return file.tell()

    @staticmethod
    def _address(device: str, method: str) -> str:
        return address("/api/v1/devices", device, "methods", method)


def done(called: CalledMethod) -> CalledMethod:
    """``called`` if its status says so. Raises ApiError with the device's own words otherwise."""
    if called.status is None or not 200 <= called.status < 300:
        raise refusal(called.status or 500, msgspec.json.encode(called.payload))
    return called


def refusal(status: int, payload: bytes) -> ApiError:
    """What a device answered instead of what was asked for."""
    try:
        problem = msgspec.json.decode(payload, type=Problem)
    except msgspec.DecodeError:
        problem = Problem(code="method_failed", message=f"The method answered {status}", remedy="See the log of the agent.")
    return ApiError(problem, status)


def read_lines(chunks: Iterable[bytes]) -> Iterator[LogLine]:
    """The answer of ``GetModuleLogs`` with ``contentType`` lines: a JSON list, one element a line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.startswith(b"{"):
                yield msgspec.json.decode(line.removesuffix(b","), type=LogLine)


def _from_base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a JSON string that holds base64."""
    rest = b""
    for chunk in chunks:
        rest += chunk.replace(b'"', b"")
        cut = len(rest) - len(rest) % 4
        yield base64.b64decode(rest[:cut], validate=True)
        rest = rest[cut:]


def _exactly(module: str) -> str:
    """As a regular expression, which the method's ``id`` is."""
    return "^" + module.replace(".", r"\.") + "$"
