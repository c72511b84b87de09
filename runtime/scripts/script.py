"""A user's scoring script: check it, load it, call it. Its failures are the user's and never ours.

azmlinfsrv's contract: ``init()`` once, then ``run()`` for every request in the mode that its decorators ask for (calling.py);
``driver_module.run`` replaces ``run``. What it imports from Azure ML's packages is there (shims/), installed or not. The
traceback of a failure goes to the log, cut down to the user's own frames.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from hedgerow.errors import Bug
from runtime.errors import ReservedModule, ScriptFailedAtStart, ScriptRaised, ScriptUnusable
from runtime.scripts.calling import HEADERS_PARAMETER, Calling, Refused, calling_of, declared_schemas, headers_for_script
from runtime.scripts.frames import Answer, Call
from runtime.scripts.shims.finder import install_shims

if TYPE_CHECKING:
    from runtime.scripts.flask_calls import FlaskCalls

_log = logging.getLogger("hedgerow.runtime.scripts")

RESERVED = ("hedgerow", "runtime")
_OURS = Path(__file__).parent.parent
_RAISED = json.dumps({"message": ScriptRaised.message}).encode()


def check_source(script: Path, *folders: Path) -> None:
    """What can be judged without running it. Raises ReservedModule or ScriptUnusable (no Python)."""
    for folder in folders:
        for name in RESERVED:
            for place in (folder / name, folder / f"{name}.py"):
                # Our own package is no user's: somebody works in a checkout of it.
                if place.exists() and place.resolve() not in (_OURS, _OURS.parent / "hedgerow"):
                    raise ReservedModule(path=place)
    try:
        ast.parse(script.read_bytes(), str(script))
    except (OSError, SyntaxError, ValueError) as problem:
        raise ScriptUnusable(script=script.name, problem=f"it is not Python ({problem})") from None


class Streamed(Protocol):
    """An answer that comes in parts; ``None`` among them says that the script failed on the way."""

    status: int
    content_type: str
    headers: list[tuple[str, str]]
    ran_until_head_s: float

    def parts(self) -> Iterator[bytes | None]: ...

    def ran_s(self) -> float: ...


class Script:
    """A loaded script. :meth:`load` and :meth:`answer` belong on the same thread: libraries keep state per thread."""

    def __init__(self, file: Path, folders: Sequence[Path]) -> None:
        check_source(file, *folders)
        self.name = file.name
        self._file, self._folders = file, folders
        self._run: Callable[..., object] | None = None
        self._calling: Calling | None = None
        self._flask: FlaskCalls | None = None
        self.thread_safe = False
        self.schemas: dict[str, Any] = {}
        self._its_turn: Callable[[], None] = _at_once
        # Chosen by load(): what one call goes through.
        self.answer: Callable[[Call], Answer | Streamed] = _not_loaded

    def load(self, its_turn: Callable[[], None]) -> None:
        """Import it, check run(), call init(). Ours is imported by now, so the user's folders may come first.

        ``its_turn`` returns when init() may be called, or a failure told. Raises ScriptUnusable or ScriptFailedAtStart, and
        what ``its_turn`` raises.
        """
        self._its_turn = its_turn
        sys.path[:0] = [str(folder) for folder in self._folders]
        install_shims()
        module = self._import()
        init = getattr(module, "init", None)
        driver = getattr(module, "driver_module", None)
        run = driver.run if isinstance(driver, ModuleType) and hasattr(driver, "run") else getattr(module, "run", None)
        for name, function in (("init", init), ("run", run)):
            if not callable(function):
                raise ScriptUnusable(script=self.name, problem=f"it has no function {name}()")
        self._run = run
        self._calling = calling_of(run, self.name)  # type: ignore[arg-type]  # callable, see above
        self._its_turn()
        self._its_turn = _at_once
        self._guarded("init()", init)
        self.thread_safe = getattr(module, "thread_safe", False) is True
        self.schemas = declared_schemas(run)  # type: ignore[arg-type]  # callable, see above
        self._choose_way()

    @property
    def mode(self) -> str:
        return self._calling.mode if self._calling is not None else "string"

    @property
    def wants_head(self) -> bool:
        """Whether the script looks at more of a request than its body."""
        return self._flask is not None or (self._calling is not None and self._calling.takes_headers)

    # One call ---------------------------------------------------------------------------------------------------------

    def _choose_way(self) -> None:
        # One that imports it only inside run() needs the context all the same.
        if self.mode == "raw" or "flask" in sys.modules or b"flask" in self._file.read_bytes():
            from runtime.scripts.flask_calls import FlaskCalls

            self._flask = FlaskCalls()
            self.answer = self._in_flask
        else:
            self.answer = self._plainly

    def _plainly(self, call: Call) -> Answer | Streamed:
        """run() without anything around it; never raises."""
        try:
            arguments = self._arguments(call)
        except Refused as problem:
            return Answer(call.id, 0.0, refusal=str(problem))
        return self._called(call, arguments, _nothing_to_end)

    def _in_flask(self, call: Call) -> Answer | Streamed:
        """run() within Flask's context for the request; never raises."""
        if self._flask is None:
            raise Bug(what="a script is called within a context that was not made")
        with self._flask.context(call) as context:
            try:
                if self.mode == "raw":
                    arguments = self._with_headers({self._payload: context.request}, call)
                else:
                    arguments = self._arguments(call)
            except Refused as problem:
                return Answer(call.id, 0.0, refusal=str(problem))
            return self._called(call, arguments, context.keep)

    def _arguments(self, call: Call) -> dict[str, object]:
        if self._calling is None:
            raise Bug(what="a script is called before it is loaded")
        values = {self._calling.payload: call.body.decode()} if self.mode == "string" else self._calling.arguments(call.body)
        return self._with_headers(dict[str, object](values), call)

    def _with_headers(self, arguments: dict[str, object], call: Call) -> dict[str, object]:
        if self._calling is not None and self._calling.takes_headers:
            arguments[HEADERS_PARAMETER] = headers_for_script(call.headers)
        return arguments

    @property
    def _payload(self) -> str:
        return self._calling.payload if self._calling is not None else ""

    def _called(self, call: Call, arguments: dict[str, object], keep: Callable[[], Callable[[], None]]) -> Answer | Streamed:
        """run() and what became of it. ``keep`` prolongs the call's context for an answer that is streamed."""
        started = perf_counter()
        ran_s = 0.0
        try:
            answer = self._run(**arguments)  # type: ignore[misc]  # set by load()
            ran_s = perf_counter() - started
            if "flask" in sys.modules and (made := self._response(call, answer, ran_s, keep)) is not None:
                return made
            # As upstream: nothing returned is an empty object. An answer that is no JSON is the script's fault too.
            return Answer(call.id, ran_s, _as_json(answer))
        # SystemExit as well: a script that calls exit() fails its own request, not the server.
        except _NotJson as problem:
            _log.error("%s: run() returned what JSON has no form for: %s", self.name, problem)
            return Answer(call.id, ran_s, _RAISED, 500, failed=True)
        except BaseException as problem:  # noqa: BLE001 - foreign code
            _log.error("%s: run() raised %s", self.name, type(problem).__name__, extra={"traceback": user_traceback(problem)})
            return Answer(call.id, ran_s or perf_counter() - started, _RAISED, 500, failed=True)

    def _response(
        self, call: Call, answer: object, ran_s: float, keep: Callable[[], Callable[[], None]]
    ) -> Answer | Streamed | None:
        """The answer when run() made a response of its own."""
        import flask

        from runtime.scripts.flask_calls import StreamedResponse, answer_from, comes_in_parts

        if not isinstance(answer, flask.Response):
            return None
        if comes_in_parts(answer):
            return StreamedResponse(answer, ran_s, self.name, keep())
        return answer_from(answer, call.id, ran_s)

    # Loading ----------------------------------------------------------------------------------------------------------

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

    def _guarded(self, where: str, step: Any) -> None:  # noqa: ANN401 - the user's function
        try:
            step()
        except BaseException as problem:  # noqa: BLE001 - foreign code
            self._its_turn()
            _log.error("%s: %s raised %s", self.name, where, type(problem).__name__, extra={"traceback": user_traceback(problem)})
            summary = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
            raise ScriptFailedAtStart(script=self.name, where=where, problem=summary) from None


class _NotJson(Exception):
    """What run() returned, not what it did, is the trouble; a traceback of json's own frames would hide that."""


def _as_json(answer: object) -> bytes:
    try:
        return json.dumps({} if answer is None else answer).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise _NotJson(f"{problem}. Return what json.dumps() takes; tolist() makes that of numpy's arrays and numbers.") from None


def _not_loaded(_call: Call) -> Answer:
    raise Bug(what="a script is called before it is loaded")


def _at_once() -> None:
    pass


def _nothing_to_end() -> Callable[[], None]:
    return lambda: None


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
