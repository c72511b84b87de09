"""``/api/v1/devices/NAME/methods``: call a method of a device or of one of its modules, and get what it answers.

The hub speaks with the device: a call is a row that the hub is woken for, and the answer comes in parts into the same table
(``registry/store/device_methods.py``). Whoever waits here takes a thread's share like an event stream, so slow devices use up
what streams may, never the threads of short calls; ``wait=false`` answers at once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.clock import Clock
from hedgerow.contracts.api_methods import CalledMethod, InvokeMethod
from hedgerow.contracts.document import decode
from hedgerow.contracts.methods import METHOD_PATTERN
from hedgerow.contracts.names import HEADER_METHOD_STATUS, check_known_name
from registry.device_errors import (
    DeviceOffline,
    MethodNameInvalid,
    MethodPayloadTooLong,
    MethodUnanswered,
    TooManyCalls,
)
from registry.errors import RecordNotFound
from registry.hub.methods import GRACE_S, OFFLINE
from registry.server import arguments
from registry.server.context import ServerContext
from registry.server.errors import TooManyStreams
from registry.server.followers import FALLBACK_S, Followers, followers
from registry.server.http import answer, context, read_body, tell, write_once
from registry.server.operation import QueryField, operation
from registry.server.threads import budget
from registry.store import device_methods, fleet
from registry.store.database import Database
from registry.store.device_methods import Call
from registry.wakeups import METHODS

_METHOD = re.compile(METHOD_PATTERN)
# The hub's own time for noticing that a call failed.
_HUB_S = 30.0
_HOW = (
    QueryField("wait", "false: answer at once; what became of the call is asked for by its id", "boolean"),
    QueryField("stream", "true: the answer's JSON as it comes, of any length; it is not kept", "boolean"),
)


def add_routes(blueprint: Blueprint) -> None:
    """Called by ``api_fleet``."""
    blueprint.post("/devices/<name>/methods/<method>")(invoke_method)
    blueprint.get("/devices/<name>/methods/calls/<call_id>")(show_call)


@operation(
    "Call a method of a device",
    "contributor",
    scope="devices",
    body=InvokeMethod,
    result=CalledMethod,
    query=_HOW,
    errors=(
        RecordNotFound,
        DeviceOffline,
        MethodUnanswered,
        MethodNameInvalid,
        MethodPayloadTooLong,
        TooManyCalls,
        TooManyStreams,
    ),
    also=((202, CalledMethod),),
)
def invoke_method(name: str, method: str) -> Response:
    """Of the agent, or of `module`. The answer's `status` is the method's own (200 done, 404 unknown, 408 no answer in time).

    A device that is offline is an error at once, unless `connect_timeout_s` lets the call wait for it. With `stream=true` the
    answer has no limit: it is passed on while it comes, its status stands in the header `Hedgerow-Method-Status`.
    """
    here = context()
    wanted = read_body(InvokeMethod)
    _check_method(method)
    wait, streamed = arguments.flag("wait", otherwise=True), arguments.flag("stream")
    release = budget().take_stream() if wait or streamed else None
    try:
        asked = write_once(lambda connection: _ask(connection, here, name, method, wanted, streamed=streamed))
        here.wakeups.wake(METHODS)
        if release is None:
            return asked
        call_id = decode(asked.get_data(), CalledMethod).id
        deadline_s = here.clock.monotonic_s() + wanted.connect_timeout_s + wanted.timeout_s + GRACE_S + _HUB_S
        call = _wait(here, followers(), call_id, deadline_s, begun_will_do=streamed)
        if not streamed:
            return answer(_record(here.database, call))
        if call.read_parts:
            raise MethodUnanswered(method=method, device=name, problem="its answer was streamed before, and is not kept")
        response = Response(_stream(_Reading(here, followers()), call), mimetype="application/json")
        response.headers[HEADER_METHOD_STATUS] = str(call.status)
        response.call_on_close(release)
        release = None
        return response
    finally:
        if release is not None:
            release()


@operation("Show a call of a method", "contributor", scope="devices", result=CalledMethod, errors=(RecordNotFound,))
def show_call(name: str, call_id: str) -> Response:
    """What became of it, with the answer unless that was streamed; kept for an hour after its end."""
    here = context()
    with here.database.read() as connection:
        call = device_methods.get(connection, call_id, here.clock.now(), device=check_known_name(name, "device"))
    return answer(_record(here.database, call))


def _check_method(method: str) -> None:
    if not _METHOD.match(method):
        raise MethodNameInvalid(name=method[:120])


def _ask(
    connection: Connection, here: ServerContext, name: str, method: str, wanted: InvokeMethod, *, streamed: bool
) -> Response:
    now = here.clock.now()
    device = fleet.get(connection, check_known_name(name, "device"), now, lock=True)
    if device.revoked_at is not None or not (device.online or wanted.connect_timeout_s):
        raise DeviceOffline(device=name)
    call_id = device_methods.ask(connection, device, method, wanted, now, streamed=streamed)
    # Never the payload: it may hold an address that is a secret.
    tell(connection, "device.method-called", f"device/{name}", method=method, module=wanted.module or "", call=call_id)
    call = device_methods.get(connection, call_id, now)
    return answer(_without_payload(call), 202)


def _wait(here: ServerContext, news: Followers, call_id: str, deadline_s: float, *, begun_will_do: bool) -> Call:
    """Until the call has ended (or its answer has begun). Raises DeviceOffline, MethodUnanswered."""
    while True:
        turn = news.turn
        with here.database.read() as connection:
            call = device_methods.get(connection, call_id, here.clock.now())
        if call.state == "done" or (begun_will_do and call.parts > 0 and call.state == "answering"):
            return call
        left_s = deadline_s - here.clock.monotonic_s()
        if call.state in ("failed", "cancelled"):
            raise _failure(call)
        if left_s <= 0 or news.closed:
            raise MethodUnanswered(method=call.method, device=call.device, problem="no hub took care of it")
        news.wait(turn, min(left_s, FALLBACK_S))


def _failure(call: Call) -> DeviceOffline | MethodUnanswered:
    if call.problem == OFFLINE:
        return DeviceOffline(device=call.device)
    return MethodUnanswered(method=call.method, device=call.device, problem=call.problem)


class _Reading:
    """What a stream needs after its request's context has gone."""

    def __init__(self, here: ServerContext, news: Followers) -> None:
        self.database: Database = here.database
        self.clock: Clock = here.clock
        self.wakeups, self.news = here.wakeups, news

    def take(self, call_id: str, first: int) -> tuple[Call, list[bytes]]:
        """The call as it is, and the parts from ``first`` on; those before are not needed any more."""
        now = self.clock.now()
        with self.database.write() as connection:
            call = device_methods.get(connection, call_id, now, lock=True)
            if first > call.read_parts:
                device_methods.note_read(connection, call_id, first, now)
            parts = device_methods.parts_from(connection, call, first)
        if first > call.read_parts:
            self.wakeups.wake(METHODS)
        return call, parts

    def give_up(self, call_id: str) -> None:
        with contextlib.suppress(RecordNotFound), self.database.write() as connection:
            device_methods.cancel(connection, call_id, "nobody reads the answer any more", self.clock.now())
        self.wakeups.wake(METHODS)


def _stream(reading: _Reading, call: Call) -> Iterator[bytes]:
    """The answer's parts as they come. What cannot be completed is cut off: the connection ends without its proper end."""
    read = 0
    try:
        while True:
            turn = reading.news.turn
            call, parts = reading.take(call.id, read)
            yield from parts
            read += len(parts)
            if parts:
                continue
            if call.state == "done" and read >= call.parts:
                if call.status is not None and call.status >= 500:
                    raise MethodUnanswered(method=call.method, device=call.device, problem="it failed on the way")
                return
            if call.ended or call.state == "cancelled":
                raise _failure(call)
            if reading.news.closed:
                raise MethodUnanswered(method=call.method, device=call.device, problem="the server stops")
            reading.news.wait(turn, FALLBACK_S)
    finally:
        if call.state != "done":
            reading.give_up(call.id)


def _record(database: Database, call: Call) -> CalledMethod:
    record = _without_payload(call)
    if call.state != "done" or call.streamed:
        return record
    with database.read() as connection:
        text = b"".join(device_methods.parts_from(connection, call, 0))
    try:
        return msgspec.structs.replace(record, payload=msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.structs.replace(record, problem="the device's answer is no JSON")


def _without_payload(call: Call) -> CalledMethod:
    return CalledMethod(
        id=call.id,
        device=call.device,
        module=call.module,
        method=call.method,
        state="failed" if call.state == "cancelled" else call.state,  # type: ignore[arg-type]  # the column takes these words only
        status=call.status,
        problem=call.problem,
        asked_at=call.asked_at,
        ended_at=call.ended_at,
    )
