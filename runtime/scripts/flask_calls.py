"""Flask's objects for scripts that use them: the request that @rawhttp hands over, and the responses that run() makes itself.

Imported only in the process of a script that imported Flask (or a shim that does). A call runs inside a request context, so
``flask.request``, ``jsonify`` and ``stream_with_context`` work as they do under azmlinfsrv.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from time import perf_counter
from types import TracebackType
from typing import Any

import flask

from runtime.scripts.frames import Answer, Call
from runtime.scripts.script import user_traceback
from runtime.scripts.shims.raw_http import AMLRequest

_log = logging.getLogger("hedgerow.runtime.scripts")

# What belongs to a connection and not to an answer; lengths are counted anew.
_OURS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-type",
    }
)
_FAILED = "x-ms-run-function-failed"
_WITHOUT_BODY = (204, 304)


class FlaskCalls:
    """Makes request contexts. One per process."""

    def __init__(self) -> None:
        self._app = flask.Flask("azmlinfsrv", root_path="/", static_folder=None)
        self._app.request_class = AMLRequest
        self._app.add_url_rule("/score", "main.handle_score", methods=["GET", "POST", "OPTIONS"])

    def context(self, call: Call) -> CallContext:
        """The context of one call; its ``request`` is what run() gets under @rawhttp."""
        return CallContext(self._app.request_context(_environ(call)))


class StreamedResponse:
    """A response whose body comes from a generator; implements runtime.scripts.script.Streamed."""

    def __init__(self, response: flask.Response, ran_s: float, name: str, end: Callable[[], None]) -> None:
        self._response, self._name, self._end = response, name, end
        self._started = perf_counter()
        self.ran_until_head_s = ran_s
        self.status = response.status_code
        self.content_type, self.headers = _head(response)

    def parts(self) -> Iterator[bytes | None]:
        """Ends the call's context when the last part was taken; None instead of what a failing generator owes."""
        try:
            for part in self._response.iter_encoded():
                if part:
                    yield part
        except BaseException as problem:  # noqa: BLE001 - foreign code
            _log.error("%s: the answer that run() streams broke off", self._name, extra={"traceback": user_traceback(problem)})
            yield None
        finally:
            self._close()

    def ran_s(self) -> float:
        return self.ran_until_head_s + perf_counter() - self._started

    def _close(self) -> None:
        try:
            self._response.close()
        except BaseException as problem:  # noqa: BLE001 - foreign code: call_on_close
            _log.error(
                "%s: what run() left for the end of its answer failed", self._name, extra={"traceback": user_traceback(problem)}
            )
        self._end()


def comes_in_parts(response: flask.Response) -> bool:
    """Whether its body is a generator that is sent as it comes. Raises ValueError for a status that cannot be an answer."""
    if not 200 <= response.status_code <= 599:
        raise ValueError(f"run() answered with status {response.status_code}, which is none of an answer")
    return response.is_streamed and response.status_code not in _WITHOUT_BODY


def answer_from(response: flask.Response, call_id: int, ran_s: float) -> Answer:
    """A response with its whole body. Raises what the user's own code in it raises."""
    content_type, headers = _head(response)
    body = b"" if response.status_code in _WITHOUT_BODY else response.get_data()
    response.close()
    return Answer(call_id, ran_s, body, response.status_code, content_type, headers, made_by_script=True)


class CallContext:
    """A request context that is left exactly once, whoever comes last: the call or the stream that it began."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - Flask's class for it changes its name with 3.2
        self._context = context
        self._kept = False

    def __enter__(self) -> CallContext:
        self._context.push()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if not self._kept:
            self._context.pop(None)

    def keep(self) -> Callable[[], None]:
        """The context stays until the returned function is called."""
        self._kept = True
        return lambda: self._context.pop(None)

    @property
    def request(self) -> flask.Request:
        request: flask.Request = self._context.request
        return request


def _head(response: flask.Response) -> tuple[str, list[tuple[str, str]]]:
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _OURS]
    if response.status_code >= 500:
        # The contract: an answer of the server's kind counts as a failure of run(), whatever it says itself.
        headers = [(name, value) for name, value in headers if name.lower() != _FAILED]
        headers.append((_FAILED, "True"))
    return response.headers.get("content-type", ""), headers


def _environ(call: Call) -> dict[str, Any]:
    """A WSGI environment, as PEP 3333 wants it."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": call.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": call.path or "/score",
        "QUERY_STRING": call.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": call.caller,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(call.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        # The body is whole, whether it came with a length or in chunks.
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": str(len(call.body)),
    }
    for name, value in call.headers.items():
        if name == "content-type":
            environ["CONTENT_TYPE"] = value
        # A name with an underscore would pass for the same with a dash.
        elif name not in ("content-length", "transfer-encoding") and "_" not in name:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
