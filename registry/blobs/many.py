"""Many small contents at once: what each waits for is the disk, and a disk takes their syncs together."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from registry.blobs.port import BlobStore, Staged

_AT_ONCE = 16


@contextmanager
def staged_together(store: BlobStore, contents: Sequence[tuple[str, bytes]]) -> Iterator[list[Staged]]:
    """(digest, content) pairs, staged, in the order of digests; cleared away at the end, also those beside one that failed.

    Raises DigestMismatch, StorageUnavailable.
    """
    wanted = sorted(dict(contents).items())
    with ExitStack() as kept:
        if len(wanted) == 1:
            # Most models are one file: no thread is worth its start.
            yield [kept.enter_context(store.stage(io.BytesIO(wanted[0][1]), wanted[0][0]))]
            return
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted)) or 1, "blob-stage") as pool:
            waiting = [pool.submit(store.stage, io.BytesIO(content), digest) for digest, content in wanted]
        staged = [kept.enter_context(future.result()) for future in waiting if future.exception() is None]
        for future in waiting:
            if (problem := future.exception()) is not None:
                raise problem
        yield staged
