"""The agent's own methods, as in IoT Edge (names, payloads, answers), on top of parts that know nothing of methods."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from edge_agent.methods.answer import Answer
from edge_agent.methods.desk import Method
from edge_agent.methods.errors import NoSuchModule
from edge_agent.methods.logs import LogReader, read_log_request
from edge_agent.methods.payload import Request, read_payload
from edge_agent.methods.tasks import SupportBundleRequest, Tasks, UploadLogs, UploadSupportBundle
from hedgerow.clock import Clock


class RestartModule(Request, frozen=True, kw_only=True):
    """``id`` is a module's name or display name."""

    id: str


class TaskQuery(Request, frozen=True, kw_only=True):
    correlation_id: str = msgspec.field(name="correlationId")


class Agent(Protocol):
    """What methods need of the supervisor."""

    def restart_module(self, name: str, reason: str) -> None:
        """Stop and start a module now. Raises HedgerowError for one that is not wanted running."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the methods work with; ``modules`` gives the names and display names of the desired state's modules."""

    agent: Agent
    modules: Callable[[], Mapping[str, str]]
    logs: LogReader
    tasks: Tasks
    clock: Clock


def methods(parts: Parts) -> dict[str, Method]:
    """By name."""
    return {
        "ping": Method(_ping),
        "RestartModule": Method(partial(_restart, parts)),
        "GetModuleLogs": Method(partial(_logs, parts), slow=True),
        "UploadModuleLogs": Method(partial(_upload_logs, parts)),
        "UploadSupportBundle": Method(partial(_upload_bundle, parts)),
        "GetSupportBundle": Method(partial(_bundle, parts), slow=True),
        "GetTaskStatus": Method(partial(_task, parts)),
    }


def _ping(_payload: object, answer: Answer) -> int:
    answer.write("null")
    return 200


def _restart(parts: Parts, payload: object, answer: Answer) -> int:
    asked = read_payload("RestartModule", payload, RestartModule)
    modules = parts.modules()
    names = [name for name, shown in modules.items() if asked.id in (name, shown)]
    if not names:
        raise NoSuchModule(module=repr(asked.id[:80]))
    parts.agent.restart_module(names[0], "restart asked for by RestartModule")
    answer.write("null")
    return 200


def _logs(parts: Parts, payload: object, answer: Answer) -> int:
    _write(answer, parts.logs.answer(read_log_request("GetModuleLogs", payload), parts.clock.now()))
    return 200


def _upload_logs(parts: Parts, payload: object, answer: Answer) -> int:
    asked = read_log_request("UploadModuleLogs", payload)
    return _told(answer, parts.tasks.start("UploadModuleLogs", asked.sas_url, UploadLogs(asked)))


def _upload_bundle(parts: Parts, payload: object, answer: Answer) -> int:
    asked = read_payload("UploadSupportBundle", payload, UploadSupportBundle)
    return _told(answer, parts.tasks.start("UploadSupportBundle", asked.sas_url, asked))


def _bundle(parts: Parts, payload: object, answer: Answer) -> int:
    """Ours: the archive itself, as base64 in a JSON string."""
    asked = read_payload("GetSupportBundle", payload, SupportBundleRequest)
    answer.write('"')
    for piece in parts.tasks.bundle(asked):
        answer.write(base64.b64encode(piece).decode())
    answer.write('"')
    return 200


def _task(parts: Parts, payload: object, answer: Answer) -> int:
    asked = read_payload("GetTaskStatus", payload, TaskQuery)
    return _told(answer, parts.tasks.status(asked.correlation_id))


def _told(answer: Answer, document: msgspec.Struct) -> int:
    answer.write(msgspec.json.encode(document).decode())
    return 200


def _write(answer: Answer, pieces: Iterator[str]) -> None:
    for piece in pieces:
        answer.write(piece)
