"""Uploads in the background: begun by a method, asked about by ``GetTaskStatus``, one at a time.

What is uploaded is written to a file in the state folder first: a blob store wants to know the size, and the device's memory is
small. Statuses are kept for the newest tasks and end with the agent, as in IoT Edge.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

import msgspec

from edge_agent.decisions import DecisionLog
from edge_agent.methods.errors import MethodPayloadInvalid, TooManyMethods, UploadFailed
from edge_agent.methods.log_lines import moment
from edge_agent.methods.logs import LogReader, LogRequest, Time, gzipped
from edge_agent.methods.payload import Request
from edge_agent.methods.upload import Uploads
from edge_agent.methods.workers import Workers
from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError

KEPT_TASKS = 100
WAITING = 4
# One upload's file: a device's disk is no place for more.
MOST_BYTES = 512 * 1024 * 1024
_PIECE_BYTES = 3 * 16 * 1024
State = Literal["NotStarted", "Running", "Completed", "Failed", "Unknown"]
log = logging.getLogger(__name__)


class SupportBundleRequest(Request, frozen=True, kw_only=True):
    """``edge_runtime_only``: without the modules' logs; ``since`` and ``until`` are of those."""

    since: Time | None = None
    until: Time | None = None
    edge_runtime_only: bool = msgspec.field(default=False, name="edgeRuntimeOnly")


class UploadSupportBundle(SupportBundleRequest, frozen=True, kw_only=True):
    """The same, to a blob store."""

    sas_url: str = msgspec.field(name="sasUrl")


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """IoT Edge's answer of the uploads and of ``GetTaskStatus``."""

    status: State
    message: str = ""
    correlation_id: str = msgspec.field(default="", name="correlationId")


@dataclass(frozen=True)
class UploadLogs:
    request: LogRequest


# Writes a support bundle (tar.gz) into a file: since and until in seconds since 1970, and whether modules' logs are in it.
WriteBundle = Callable[[IO[bytes], float | None, float | None, bool], None]


class Tasks:
    """``folder`` takes the files under way."""

    def __init__(
        self,
        folder: Path,
        uploads: Uploads,
        logs: LogReader,
        bundle: WriteBundle,
        decisions: DecisionLog,
        clock: Clock,
        device: str,
    ) -> None:
        self._folder, self._uploads, self._logs, self._bundle = folder, uploads, logs, bundle
        self._decisions, self._clock, self._device = decisions, clock, device
        self._lock = threading.Lock()
        self._known: OrderedDict[str, TaskStatus] = OrderedDict()
        self._workers = Workers("upload", threads=1, waiting=WAITING)
        for left in folder.iterdir() if folder.is_dir() else ():
            left.unlink(missing_ok=True)

    def start(self, method: str, sas_url: str | None, what: UploadLogs | UploadSupportBundle) -> TaskStatus:
        """Begin a task. Raises MethodPayloadInvalid, UploadForbidden, EgressRefused, TooManyMethods."""
        if not sas_url:
            raise MethodPayloadInvalid(method=method, problem="sasUrl is missing")
        target = self._uploads.check(sas_url)
        now = self._clock.now()
        if isinstance(what, UploadSupportBundle):
            moment(what.since, "since", now), moment(what.until, "until", now)
        else:
            self._logs.selected(what.request, now)
        task_id = secrets.token_hex(16)
        status = self._note(task_id, "NotStarted")
        self._decisions.record(None, "upload", f"{method} to {target.host}, task {task_id}")
        if not self._workers.submit(lambda: self._run(task_id, method, sas_url, what)):
            with self._lock:
                self._known.pop(task_id)
            raise TooManyMethods(limit=self._workers.limit)
        return status

    def status(self, task_id: str) -> TaskStatus:
        """``Unknown`` for a task that this agent does not know (any more)."""
        with self._lock:
            return self._known.get(task_id) or TaskStatus(status="Unknown", correlation_id=task_id[:64])

    def bundle(self, asked: SupportBundleRequest) -> Iterator[bytes]:
        """A support bundle, in pieces of a multiple of three bytes. Raises LogFilterInvalid, OSError."""
        with self._file() as (file, _):
            self._write_bundle(file, asked)
            file.seek(0)
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def _note(self, task_id: str, state: State, message: str = "") -> TaskStatus:
        status = TaskStatus(status=state, message=message, correlation_id=task_id)
        with self._lock:
            self._known[task_id] = status
            while len(self._known) > KEPT_TASKS:
                self._known.popitem(last=False)
        return status

    def _run(self, task_id: str, method: str, sas_url: str, what: UploadLogs | UploadSupportBundle) -> None:
        self._note(task_id, "Running")
        try:
            if isinstance(what, UploadLogs):
                self._upload_logs(sas_url, what.request)
            else:
                self._upload_bundle(sas_url, what)
        except HedgerowError as problem:
            self._failed(task_id, method, problem.sentence())
        except OSError as problem:
            self._failed(task_id, method, problem.strerror or str(problem))
        except Exception as problem:
            log.exception("task %s failed", task_id)
            self._failed(task_id, method, type(problem).__name__)
        else:
            self._note(task_id, "Completed")

    def _failed(self, task_id: str, method: str, problem: str) -> None:
        self._decisions.record(None, "upload-failed", f"{method}, task {task_id}: {problem}")
        self._note(task_id, "Failed", problem)

    def _upload_logs(self, sas_url: str, request: LogRequest) -> None:
        now = self._clock.now()
        ending = "gz" if request.encoding == "gzip" else "json" if request.content_type != "text" else "log"
        for logs in self._logs.selected(request, now):
            with self._file() as (file, path):
                content = self._logs.content(logs, request.content_type)
                pieces = gzipped(content) if request.encoding == "gzip" else (text.encode(errors="replace") for text in content)
                for piece in pieces:
                    file.write(piece)
                    if file.tell() > MOST_BYTES:
                        raise UploadFailed(host="the blob store", problem=f"the logs have more than {MOST_BYTES} bytes")
                file.flush()
                self._uploads.put(sas_url, self._blob(logs.display_name, now, ending), path)

    def _upload_bundle(self, sas_url: str, what: UploadSupportBundle) -> None:
        now = self._clock.now()
        with self._file() as (file, path):
            self._write_bundle(file, what)
            file.flush()
            self._uploads.put(sas_url, self._blob("support-bundle", now, "tar.gz"), path)

    def _write_bundle(self, file: IO[bytes], asked: SupportBundleRequest) -> None:
        now = self._clock.now()
        since_s, until_s = moment(asked.since, "since", now), moment(asked.until, "until", now)
        self._bundle(file, since_s, until_s, not asked.edge_runtime_only)

    def _blob(self, name: str, now: datetime, ending: str) -> str:
        """Named as IoT Edge names them, with the device first."""
        return f"{self._device}/{name}-{now:%Y-%m-%d--%H-%M-%S}.{ending}"

    @contextlib.contextmanager
    def _file(self) -> Iterator[tuple[IO[bytes], Path]]:
        """A file that goes afterwards; those that a killed agent left go when the next one starts."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            yield file, Path(file.name)
