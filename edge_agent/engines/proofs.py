"""Repeats the proof that an ONNX image carries, on this very device, before a version that works is stopped for it.

``python -m runtime.prove`` runs the recorded inputs through the model and compares the answers: as a process of its own that
ends with this agent, behind everything else on the machine. An answer is final; no answer (out of memory, out of time, killed)
is asked for again a few times, for it may not be the image's fault.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from edge_agent.engines.stand_back import stand_back
from edge_agent.reconcile.situation import ProofState
from hedgerow.backoff import Backoff
from hedgerow.contracts.proof import ProofReport
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import HedgerowError
from hedgerow.process import Exited, ProcessSpec, Supervised

TIMEOUT_S = 900.0
TRIES = 3
BACKOFF = Backoff(first_s=5.0, factor=4.0, cap_s=60.0, immediate_s=2.0)
_STOP_GRACE_S = 1.0
_LAST_LINES = 50
_SAID_CHARS = 300
_NICE = 15
log = logging.getLogger(__name__)


class Proofs:
    """One thread for each proof under way. ``images`` gives an unpacked image's folder; ``on_change`` hears of results."""

    def __init__(
        self, folder: Path, images: Callable[[ImagePin], Path], environment: Mapping[str, str], on_change: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._images = images
        self._environment = dict(environment)
        self._on_change = on_change
        self._lock = threading.Lock()
        # One at a time: each may fill the memory of a small device.
        self._turn = threading.Lock()
        self._states: dict[str, ProofState] = {}
        self._active: dict[str, threading.Event] = {}

    def states(self) -> dict[str, ProofState]:
        """What is known, by image digest."""
        with self._lock:
            return dict(self._states)

    def want(self, image: ImagePin) -> None:
        """Begin to prove an image, unless that is known or under way."""
        with self._lock:
            if image.digest in self._states:
                return
            self._states[image.digest] = ProofState(None)
            cancelled = self._active[image.digest] = threading.Event()
        threading.Thread(target=self._run, args=(image, cancelled), name=f"prove-{image.name}", daemon=True).start()

    def keep_only(self, digests: Collection[str]) -> None:
        """Give up, and forget, the proofs of all other images."""
        for digest in self.states().keys() - set(digests):
            self.forget(digest)

    def forget(self, digest: str) -> None:
        """Give up, and forget, one proof: the next ``want`` begins anew."""
        with self._lock:
            if self._states.pop(digest, None) is not None:
                self._active.pop(digest).set()

    def close(self) -> None:
        """Give up all."""
        self.keep_only(())

    def _run(self, image: ImagePin, cancelled: threading.Event) -> None:
        for attempt in range(TRIES):
            with self._turn:
                state = self._attempt(image, cancelled)
            if cancelled.is_set():
                return
            if state is not None:
                break
            cancelled.wait(BACKOFF.delay_s(attempt, random.random))
        else:
            state = ProofState(False, f"its proof gave no answer in {TRIES} tries")
        with self._lock:
            if not cancelled.is_set():
                self._states[image.digest] = state
        self._on_change()

    def _attempt(self, image: ImagePin, cancelled: threading.Event) -> ProofState | None:
        """None when there was no answer."""
        process = Supervised(self._folder / image.digest.replace(":", "-"))
        try:
            process.stop(_STOP_GRACE_S)
            process.forget()
            ended = self._prove(process, self._images(image), cancelled)
            return _answer(process.tail(_LAST_LINES), ended)
        except (HedgerowError, OSError) as problem:
            log.warning("the proof of %s could not be repeated: %s", image.name, problem)
        except Exception:
            log.exception("the proof of %s could not be repeated", image.name)
        finally:
            with contextlib.suppress(HedgerowError, OSError):
                process.stop(_STOP_GRACE_S)
                process.forget()
        return None

    def _prove(self, process: Supervised, image: Path, cancelled: threading.Event) -> Exited | None:
        argv = [sys.executable, "-P", "-m", "runtime.prove", "--image", str(image)]
        # A folder without anybody's files in it: nothing there is imported, nothing is left behind.
        spec = ProcessSpec(argv=argv, cwd="/", environment=self._environment, log_files=1, exit_with_starter=True)
        started = process.start(spec)
        stand_back(started.pid, _NICE)
        _wait_for_end(process, cancelled)
        seen = process.observe()
        return seen if isinstance(seen, Exited) else None


def _wait_for_end(process: Supervised, cancelled: threading.Event) -> None:
    exit_fd = process.exit_fd()
    if exit_fd is None:
        return
    try:
        for _ in range(int(TIMEOUT_S)):
            ready, _, _ = select.select([exit_fd], [], [], 1.0)
            if ready or cancelled.is_set():
                return
    finally:
        os.close(exit_fd)


def _answer(said: str, ended: Exited | None) -> ProofState | None:
    for line in reversed(said.splitlines()):
        if not line.startswith("["):
            continue
        try:
            reports = msgspec.json.decode(line, type=list[ProofReport])
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
        failed = [report for report in reports if not report.passed]
        if failed:
            return ProofState(False, f"the proof of {failed[0].model} failed on this device: {failed[0].reason[:_SAID_CHARS]}")
        if reports and ended is not None and ended.exit_code == 0:
            return ProofState(True, "its proof came out on this device")
    log.warning("a proof gave no answer (%s): %s", ended.reason if ended else "still running", said[-_SAID_CHARS:])
    return None
