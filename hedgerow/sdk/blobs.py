"""Content by digest: only what the workspace does not have yet is sent, several files at once, small ones together."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

import msgspec

from hedgerow.backoff import Backoff
from hedgerow.contracts.api import AskForBlobs, BlobBatch, BlobChunks, BlobInfo, CollectedGarbage, CollectGarbage, MissingBlobs
from hedgerow.contracts.work import Activity
from hedgerow.errors import HedgerowError
from hedgerow.sdk.errors import ApiError, FileChanged, ServerUnreachable
from hedgerow.sdk.files import LocalFile, read_again
from hedgerow.sdk.transport import Transport

T = TypeVar("T")
# Called with (bytes done, bytes in all), from several threads, one at a time.
Progress = Callable[[int, int], None]

_PATH = "/api/v1/blobs"
THREADS = 4
_DIGESTS = 10_000
# A content of this size or less shares a request with others; such a request holds so much, so many of them.
_SMALL_BYTES, _BATCH_BYTES, _BATCH_ITEMS = 256 * 1024, 4 * 1024 * 1024, 500
_ATTEMPTS = 5
_BACKOFF = Backoff(first_s=0.3, cap_s=5.0, immediate_s=0.1)
_BUSY = ("too_many_transfers", "database_unavailable")


class Blobs:
    """``client.blobs``: contents as such; models, snapshots and images refer to them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def chunks(self, digest: str) -> BlobChunks:
        """What proves parts of a content."""
        return self._transport.call("GET", f"{_PATH}/{digest}/chunks", BlobChunks)

    def collect_garbage(self, *, dry_run: bool = False) -> Activity:
        """Begin to free what nothing refers to; wait for it with ``client.activities.wait``, read it with :func:`freed_by`."""
        return self._transport.call("POST", "/api/v1/gc", Activity, body=CollectGarbage(dry_run=dry_run))


def freed_by(activity: Activity) -> CollectedGarbage:
    """What a collection that has ended freed, or would have."""
    values = {name: msgspec.json.decode(text) for name, text in activity.result.items()}
    return msgspec.convert(values, CollectedGarbage)


def upload_missing(transport: Transport, found: Iterable[LocalFile], progress: Progress | None = None) -> int:
    """Upload each distinct content once; returns the number of bytes sent.

    Raises FileChanged when a file is no longer what was hashed (nothing may be registered then), ApiError, ServerUnreachable.
    """
    files = {file.entry.digest: file for file in found}
    missing = _missing(transport, list(files))
    wanted = [files[digest] for digest in missing.digests]
    sending = Counted(sum(file.entry.size_bytes for file in wanted), progress)
    together_bytes = _SMALL_BYTES if missing.batches else -1
    small = [file for file in wanted if file.entry.size_bytes <= together_bytes]
    stop = threading.Event()
    jobs = [partial(_send_batch, transport, batch, sending) for batch in _batches(small)]
    jobs += [partial(_send_one, transport, file, sending, stop) for file in wanted if file.entry.size_bytes > together_bytes]
    run_all(jobs, stop)
    return sending.total


class Counted:
    """Adds up bytes over threads and tells ``progress``."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self._done = total, 0
        self._progress, self._lock = progress, threading.Lock()

    def add(self, count: int) -> None:
        """Negative to take back what has to be sent again."""
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self.total)


def run_all(jobs: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    """Run ``jobs``, four at a time, to the end or to the first error; that one is raised when none runs any more.

    ``stop`` is set for an error, also for Ctrl-C: jobs look at it while they run and raise :class:`Stopped`.
    """
    if len(jobs) == 1:
        jobs[0]()
        return
    with ThreadPoolExecutor(THREADS, "hedgerow-transfer") as pool:
        waiting: list[Future[None]] = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(waiting):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Stopped(Exception):
    """Another transfer failed, or somebody pressed Ctrl-C."""


def again(action: Callable[[], T]) -> T:
    """Repeat what a broken connection or a busy server ended; the last error is raised."""
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except (ServerUnreachable, ApiError) as problem:
            if attempt == _ATTEMPTS - 1 or (isinstance(problem, ApiError) and problem.problem.code not in _BUSY):
                raise
        threading.Event().wait(_BACKOFF.delay_s(attempt, random.random))
    raise AssertionError("the last attempt returns or raises")


class _Missing(msgspec.Struct):
    digests: list[str]
    batches: bool


def _missing(transport: Transport, digests: list[str]) -> _Missing:
    found: list[str] = []
    for start in range(0, len(digests), _DIGESTS):
        try:
            found += again(partial(_ask, transport, digests[start : start + _DIGESTS]))
        except ApiError as problem:
            if problem.problem.code not in ("no_such_path", "method_not_allowed"):
                raise
            # A server that is older than this client is asked for each.
            return _Missing([digest for digest in digests if not transport.exists(f"{_PATH}/{digest}")], batches=False)
    return _Missing(found, batches=True)


def _ask(transport: Transport, digests: list[str]) -> list[str]:
    # Not as a call: its answer would be kept for a repetition, and asking again is just as good.
    body = msgspec.json.encode(AskForBlobs(digests=digests))
    return transport.send("POST", f"{_PATH}/missing", [body], len(body), MissingBlobs, media_type="application/json").missing


def _send_one(transport: Transport, file: LocalFile, sending: Counted, stop: threading.Event) -> None:
    digest, size = file.entry.digest, file.entry.size_bytes

    def send() -> None:
        sent = 0

        def pieces() -> Iterator[bytes]:
            nonlocal sent
            for piece in read_again(file):
                if stop.is_set():
                    raise Stopped
                yield piece
                sent += len(piece)
                sending.add(len(piece))

        try:
            transport.send("PUT", f"{_PATH}/{digest}", pieces(), size, BlobInfo)
        except HedgerowError:
            sending.add(-sent)
            raise

    with_changes_told(file, lambda: again(send))


def _send_batch(transport: Transport, batch: list[LocalFile], sending: Counted) -> None:
    body = bytearray()
    for file in batch:
        body += bytes.fromhex(file.entry.digest.removeprefix("sha256:")) + file.entry.size_bytes.to_bytes(8, "big")
        body += b"".join(read_again(file))
    with_changes_told(
        batch[0], lambda: again(lambda: transport.send("POST", f"{_PATH}/batch", [bytes(body)], len(body), BlobBatch))
    )
    sending.add(sum(file.entry.size_bytes for file in batch))


def with_changes_told(file: LocalFile, action: Callable[[], object]) -> None:
    """A server that found another content than we hashed knows no file names: we do."""
    try:
        action()
    except ApiError as problem:
        if problem.problem.code == "digest_mismatch":
            raise FileChanged(path=file.source) from problem
        raise


def _batches(files: list[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _BATCH_ITEMS or size + file.entry.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.entry.size_bytes
    if batch:
        yield batch
