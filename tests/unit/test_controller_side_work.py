"""Work in a thread beside the controller's loop: its end can be waited for, and whatever goes wrong in it is told."""

from __future__ import annotations

import errno
import os
import select
import threading
from pathlib import Path

import pytest

from hedgerow.errors import Bug, HedgerowError
from registry.blobs.errors import BlobUnknown, StorageUnavailable
from registry.controller.side_work import SideWork


def done(work: SideWork) -> SideWork:
    end = work.start()
    try:
        assert select.select([end], [], [], 10.0)[0], "it never ended"
    finally:
        os.close(end)
    return work


def test_its_end_is_seen_when_it_is_over_and_not_before() -> None:
    may_end = threading.Event()
    work = SideWork(lambda: may_end.wait(10.0) and "value")
    end = work.start()
    try:
        assert select.select([end], [], [], 0.0)[0] == []
        may_end.set()
        assert select.select([end], [], [], 10.0)[0] == [end]
    finally:
        os.close(end)
    assert (work.value, work.problem) == ("value", None)


@pytest.mark.parametrize(
    ("problem", "kind", "said"),
    [
        (BlobUnknown(digest="sha256:x"), BlobUnknown, "sha256:x"),
        (OSError(errno.ENOSPC, "full", "/disk"), StorageUnavailable, "No space left on device: /disk"),
        (OSError(errno.ENOTDIR, "no folder", "/disk"), Bug, "NotADirectoryError"),
        (KeyError("name"), Bug, "KeyError: 'name'"),
    ],
    ids=["ours", "the disk's", "another of the system", "our fault"],
)
def test_what_goes_wrong_becomes_an_error_of_ours(problem: Exception, kind: type[HedgerowError], said: str) -> None:
    def fail() -> None:
        raise problem

    work = done(SideWork(fail))
    assert isinstance(work.problem, kind)
    assert said in str(work.problem)


def test_a_thread_that_cannot_be_started_leaves_no_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    usual = threading.stack_size(1 << 44)  # more than any machine has
    try:
        with pytest.raises(Bug, match="can't start new thread"):
            SideWork(lambda: None).start()
    finally:
        threading.stack_size(usual)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
