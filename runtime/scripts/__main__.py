"""``python -P -m runtime.scripts PLACE CALLS PARENT now|waits FD``: one process that holds a user's script.

It loads the script (one that ``waits`` imports it, and calls init() when it hears GO), says Ready or Failed, and answers
calls until its socket ends. Calls run on the main thread, one at a time, so that signals, ``os.chdir`` and libraries with a
home thread work as in a script of one's own; a script that sets ``thread_safe = True`` gets as many threads as its server says.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hedgerow.errors import HedgerowError
from hedgerow.logs import LogFormat
from runtime.errors import ScriptFailedAtStart, ScriptUnusable
from runtime.scripts.frames import (
    GO,
    LENGTH_BYTES,
    Answer,
    Call,
    End,
    Failed,
    FromHost,
    Head,
    Part,
    Ready,
    call_from,
    length_of,
    packed,
)
from runtime.scripts.model_folder import log_model_folder
from runtime.scripts.place import ScriptPlace
from runtime.scripts.script import Script, Streamed
from runtime.scripts.script_log import set_up_script_log
from runtime.scripts.shims.finder import install_shims
from runtime.scripts.swagger_parts import swagger_parts

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Serve one script until the socket ends."""
    place, calls, parent, when, descriptor = arguments
    _die_with(int(parent))
    # A crash in native code says in which line of the script it happened.
    faulthandler.enable()
    # The server ends us; a Ctrl-C or a SIGTERM to everything at once must not cut the calls that it still waits for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_sigterm_to_the_server()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # TextIOWrapper in a process of ours
    with socket.socket(fileno=int(descriptor)) as connection:
        connection.set_inheritable(False)
        speaker = _Speaker(connection)
        try:
            loaded, swagger = _load(ScriptPlace.parse(place), lambda: _its_turn(connection, when))
        except HedgerowError as problem:
            # Another may have failed first; then nobody listens any more.
            with contextlib.suppress(OSError):
                speaker.say(Failed(problem.sentence()))
            return 3
        at_once = int(calls) if loaded.thread_safe else 1
        speaker.say(Ready(loaded.mode, loaded.wants_head, at_once, swagger))
        _answer_calls(connection, speaker, loaded, at_once)
    return 0


def _its_turn(connection: socket.socket, when: str) -> None:
    """Returns when init() may be called; ends the process when the server has no use for it any more."""
    if when == "waits":
        try:
            heard = connection.recv(len(GO))
        except OSError:
            heard = b""
        if not heard:
            sys.exit(0)


def _load(place: ScriptPlace, its_turn: Callable[[], None]) -> tuple[Script, str]:
    """The script, and what it says about itself for swagger. Raises the errors of a script that cannot be served."""
    log_format: LogFormat = "json" if os.environ.get("HEDGEROW_LOG_FORMAT") == "json" else "text"
    # A user's logging.json may name classes of azmlinfsrv.
    install_shims()
    set_up_script_log(os.environ.get("AZUREML_LOG_LEVEL") or "info", log_format, place.folders)
    try:
        # Relative paths of a script count from its app's root, as under azmlinfsrv.
        os.chdir(place.root)
    except OSError as problem:
        raise ScriptUnusable(script=place.file.name, problem=f"its folder {place.root}: {problem.strerror}") from None
    script = Script(place.file, place.folders)
    try:
        script.load(its_turn)
    except ScriptFailedAtStart:
        if model_dir := os.environ.get("AZUREML_MODEL_DIR"):
            log_model_folder(Path(model_dir))
        raise
    if debug_port := os.environ.get("AZUREML_DEBUG_PORT"):
        logging.getLogger("azmlinfsrv").warning(
            "AZUREML_DEBUG_PORT=%s has no effect here: call debugpy.connect() in init() instead", debug_port
        )
    return script, swagger_parts(script.schemas, place.folders)


def _leave_sigterm_to_the_server() -> None:
    """Ignore SIGTERM here, and only here: what a script forks or starts ends by it, as multiprocessing's pools expect.

    A handler and not SIG_IGN, which programs that are started would inherit. The signal waits while a child is made: Python
    forgets in a new child what came before the child's first line, and a parent that asked it to end would wait for ever.
    """
    masks = threading.local()

    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def release_in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        release()

    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release_in_child)


def _die_with(parent: int) -> None:
    """A server that is killed leaves no process behind, not even one that is stuck in run(). Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before we could ask for that.
        os._exit(1)


class _Speaker:
    """Writes frames, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, frame: FromHost) -> None:
        text = packed(frame)
        try:
            with self._lock:
                self._connection.sendall(text)
        except (BrokenPipeError, ConnectionResetError):
            # The server is gone, and with it everybody who wanted to hear; its end is no failure of this process.
            sys.exit(0)


def _answer_calls(connection: socket.socket, speaker: _Speaker, script: Script, at_once: int) -> None:
    read = _reader(connection)
    if at_once == 1:
        while (call := read()) is not None:
            if call.traceparent or "TRACEPARENT" in os.environ:
                _set_trace(call)
            _answer(speaker, script, call)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(at_once, "run") as threads:
        while (call := read()) is not None:
            threads.submit(_answer, speaker, script, call)


def _set_trace(call: Call) -> None:
    """The call's trace context where programs that it starts look for it. Calls side by side have but their headers."""
    for name, value in (("TRACEPARENT", call.traceparent), ("TRACESTATE", call.tracestate)):
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def _answer(speaker: _Speaker, script: Script, call: Call) -> None:
    answer = script.answer(call)
    if isinstance(answer, Answer):
        try:
            speaker.say(answer)
        except ValueError:
            speaker.say(Answer(call.id, answer.ran_s, failed=True))
        return
    _stream(speaker, call, answer)


def _stream(speaker: _Speaker, call: Call, answer: Streamed) -> None:
    speaker.say(Head(call.id, answer.status, answer.content_type, answer.headers, answer.ran_until_head_s))
    whole = True
    for part in answer.parts():
        if part is None:
            whole = False
        else:
            speaker.say(Part(call.id, part))
    speaker.say(End(call.id, answer.ran_s(), whole))


def _reader(connection: socket.socket) -> Callable[[], Call | None]:
    """Reads the next call; None at the end of the socket."""
    buffer = bytearray()

    def more() -> bool:
        data = connection.recv(262_144)
        buffer.extend(data)
        return bool(data)

    def read() -> Call | None:
        while len(buffer) < LENGTH_BYTES:
            if not more():
                return None
        end = LENGTH_BYTES + length_of(buffer)
        while len(buffer) < end:
            if not more():
                return None
        frame = bytes(memoryview(buffer)[LENGTH_BYTES:end])
        del buffer[:end]
        return call_from(frame)

    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
