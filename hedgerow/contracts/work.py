"""Activities (long work that a client follows) and runs (recorded training)."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.model import DataRef, FileEntry, RelativePath, SourceCommit
from hedgerow.contracts.names import Digest, KnownName

ActivityState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: frozenset[ActivityState] = frozenset({"succeeded", "failed", "cancelled"})
RunState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it crosses a border: of the REST API, an activity, a device."""

    code: str
    message: str
    remedy: str = ""
    details: dict[str, str] = {}


class ProblemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The one error shape of the REST API: ``{"error": {...}}``."""

    error: Problem


class Activity(Document, frozen=True, kw_only=True):
    """A piece of long work. ``result`` names what it made; ``problem`` says why it failed; one of them once it ended."""

    id: str
    kind: str
    subject: str
    state: ActivityState
    progress: float = 0.0
    step: str = ""
    attempt: int = 0
    result: dict[str, str] = {}
    problem: Problem | None = None
    created_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None


class ActivityEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an activity's story. ``number`` grows by one and is the SSE event id, so a client can resume."""

    number: int
    at: Instant
    state: ActivityState
    progress: float
    step: str
    log: str = ""


class MetricPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One logged value of a run."""

    name: str
    value: float
    step: int = 0
    time_ms: int


class Run(Document, frozen=True, kw_only=True):
    """A recorded training run: the snapshot it ran, its arguments, metrics (last value each), outputs and end."""

    id: str
    experiment: KnownName
    state: RunState
    script: RelativePath
    arguments: list[str] = []
    snapshot: list[FileEntry] = []
    snapshot_digest: Digest
    source: SourceCommit | None = None
    data: list[DataRef] = []
    parameters: dict[str, str] = {}
    metrics: dict[str, float] = {}
    outputs: list[FileEntry] = []
    exit_code: int | None = None
    problem: Problem | None = None
    activity_id: str
    created_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
