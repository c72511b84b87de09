"""A user's scoring script: check it, load it, call it. Its failures are the user's and never ours.

azmlinfsrv's contract in *string mode*: ``init()`` once, then ``run(text)`` for every request; a parameter called
``request_headers`` gets the headers; ``driver_module.run`` replaces ``run``. The modes asked for by decorators are refused
before anything of the script runs. The traceback goes to the log, cut down to the user's own frames.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, Protocol

from hedgerow.errors import Bug
from runtime.errors import (
    ReservedModule,
    ScriptFailedAtStart,
    ScriptModeUnsupported,
    ScriptRaised,
    ScriptUnusable,
)
from runtime.scripts.frames import Answer, Call

_log = logging.getLogger("hedgerow.runtime.script")

RESERVED = ("hedgerow", "runtime")
HEADERS_PARAMETER = "request_headers"
_MODE_DECORATORS = frozenset({"rawhttp", "input_schema", "output_schema"})
_OURS = Path(__file__).parent.parent


def check_source(script: Path, source: Path) -> None:
    """What can be judged without running it.

    Raises ReservedModule, ScriptUnusable (no Python, no init or run) or ScriptModeUnsupported.
    """
    for name in RESERVED:
        for place in (source / name, source / f"{name}.py"):
            if place.exists():
                raise ReservedModule(path=place)
    try:
        tree = ast.parse(script.read_bytes(), str(script))
    except (OSError, SyntaxError, ValueError) as problem:
        raise ScriptUnusable(script=script.name, problem=f"it is not Python ({problem})") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            for decorator in node.decorator_list:
                if (name := _decorator_name(decorator)) in _MODE_DECORATORS:
                    raise ScriptModeUnsupported(script=script.name, decorator=name)


class Streamed(Protocol):
    """An answer that comes in parts; ``None`` among them says that the script failed on the way."""

    status: int
    content_type: str
    headers: list[tuple[str, str]]

    def parts(self) -> Iterator[bytes | None]: ...

    def ran_s(self) -> float: ...


class Script:
    """A loaded script. :meth:`load` and :meth:`call` belong on the same thread: libraries keep state per thread."""

    def __init__(self, file: Path, source: Path) -> None:
        check_source(file, source)
        self.name = file.name
        self._file, self._source = file, source
        self._run: Callable[..., object] | None = None
        self._payload_parameter = ""
        self._takes_headers = False
        self.thread_safe = False
        self.mode = "string"

    def load(self) -> None:
        """Import it, check run(), call init(). Ours is imported by now, so the user's folder may come first.

        Raises ScriptUnusable or ScriptFailedAtStart.
        """
        sys.path.insert(0, str(self._source))
        module = self._import()
        init = getattr(module, "init", None)
        run = getattr(getattr(module, "driver_module", module), "run", None)
        for name, function in (("init", init), ("run", run)):
            if not callable(function):
                raise ScriptUnusable(script=self.name, problem=f"it has no function {name}()")
        self._analyse(run)
        self._guarded("init()", init)
        self.thread_safe = getattr(module, "thread_safe", False) is True
        self._run = run

    @property
    def wants_head(self) -> bool:
        """Whether the script looks at more of a request than its body."""
        return self._takes_headers

    def swagger(self) -> dict[str, Any]:
        """The schemas that the script declares."""
        return {}

    def answer(self, call: Call) -> Answer | Streamed:
        """run(), and what became of it; never raises."""
        started = perf_counter()
        try:
            text = self.call(call.body.decode(), call.headers)
        except ScriptRaised as problem:
            body = json.dumps({"message": str(problem)}).encode()
            return Answer(call.id, perf_counter() - started, body, 500, failed=True)
        return Answer(call.id, perf_counter() - started, text.encode())

    def call(self, text: str, headers: Mapping[str, str]) -> str:
        """``run(text)`` and its answer as JSON text. Raises ScriptRaised for anything that goes wrong in it."""
        if self._run is None:
            raise Bug(what="a script is called before it is loaded")
        arguments: dict[str, object] = {self._payload_parameter: text}
        if self._takes_headers:
            arguments[HEADERS_PARAMETER] = {name.title(): value for name, value in headers.items()}
        try:
            answer = self._run(**arguments)
            # As upstream: nothing returned is an empty object. An answer that is no JSON is the script's fault too.
            return json.dumps({} if answer is None else answer)
        # SystemExit as well: a script that calls exit() fails its own request, not the server.
        except BaseException as problem:  # noqa: BLE001 - foreign code
            _log.error("%s: run() raised %s", self.name, user_traceback(problem))
            raise ScriptRaised from None

    def _import(self) -> ModuleType:
        # azmlinfsrv's module name; the file's own could hide a library of the same name.
        spec = importlib.util.spec_from_file_location("entry_module", self._file)
        if spec is None or spec.loader is None:
            raise ScriptUnusable(script=self.name, problem="its name does not end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["entry_module"] = module
        loader = spec.loader
        self._guarded("its import", lambda: loader.exec_module(module))
        return module

    def _analyse(self, run: Any) -> None:  # noqa: ANN401 - whatever the user calls run
        try:
            parameters = inspect.signature(run).parameters
        except (TypeError, ValueError):
            raise ScriptUnusable(script=self.name, problem="the parameters of run() cannot be read") from None
        for name, parameter in parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ScriptUnusable(script=self.name, problem=f"run() has {parameter.kind.description} parameter {name!r}")
        payload = [name for name in parameters if name != HEADERS_PARAMETER]
        if not payload:
            raise ScriptUnusable(script=self.name, problem="run() has no parameter for the request's body")
        self._payload_parameter = payload[0]
        self._takes_headers = HEADERS_PARAMETER in parameters

    def _guarded(self, where: str, step: Any) -> None:  # noqa: ANN401 - the user's function
        try:
            step()
        except BaseException as problem:  # noqa: BLE001 - foreign code
            _log.error("%s: %s raised %s", self.name, where, user_traceback(problem))
            summary = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
            raise ScriptFailedAtStart(script=self.name, where=where, problem=summary) from None


def user_traceback(problem: BaseException) -> str:
    """The traceback of ``problem`` and its causes without our frames and the import machinery's."""
    text = traceback.TracebackException.from_exception(problem)
    seen: traceback.TracebackException | None = text
    while seen is not None:
        kept = [frame for frame in seen.stack if not _is_ours(frame.filename)]
        seen.stack = traceback.StackSummary.from_list(kept)
        seen = seen.__cause__ or seen.__context__
    return "".join(text.format()).rstrip()


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or Path(filename).is_relative_to(_OURS)


def _decorator_name(node: ast.expr) -> str:
    """``rawhttp`` of ``@rawhttp``, ``@a.b.rawhttp`` and ``@rawhttp(…)``."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
