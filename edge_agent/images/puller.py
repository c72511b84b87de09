"""Gets wanted images onto the device in the background: a slow or endless pull delays nothing but its own module.

One thread for each image that is missing, a few at work at a time. A failed pull is tried again with growing delays, for ever,
and at once when the way to the registry may be back (``hurry``).
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from edge_agent.engines.engine import ImageSource
from edge_agent.reconcile.situation import EngineKind, ImageState
from hedgerow.backoff import Backoff
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import HedgerowError

BACKOFF = Backoff(first_s=2.0, factor=2.0, cap_s=50.0, immediate_s=0.5)
AT_A_TIME = 2
log = logging.getLogger(__name__)


class Puller:
    """``sources`` by kind of module; ``on_change`` is called when an image arrives or an attempt fails."""

    def __init__(self, sources: Mapping[EngineKind, Callable[[], ImageSource]], on_change: Callable[[], None]) -> None:
        self._sources = sources
        self._on_change = on_change
        self._lock = threading.Lock()
        self._states: dict[str, ImageState] = {}
        self._active: set[str] = set()
        self._turns = threading.Semaphore(AT_A_TIME)
        self._again = threading.Condition()
        self._hurries = 0

    def images(self) -> dict[str, ImageState]:
        """State of every image that was asked for, by digest."""
        with self._lock:
            return dict(self._states)

    def want(self, kind: EngineKind, image: ImagePin, *, fetch: bool = True) -> None:
        """Begin to pull an image, unless it is known already. Without ``fetch`` only look for it, now and then."""
        with self._lock:
            known = self._states.get(image.digest)
            if known is not None and (known.ready or not known.look_only or not fetch):
                return
            self._states[image.digest] = ImageState(ready=False, look_only=not fetch)
            known_to_thread = image.digest in self._active
            self._active.add(image.digest)
        if known_to_thread:
            # It has not noticed yet that the image was not wanted for a moment, or it only looked for it so far.
            self.hurry()
            return
        threading.Thread(target=self._pull_until_here, args=(kind, image), name=f"pull-{image.name}", daemon=True).start()

    def forget(self, digest: str) -> None:
        """An image that was here has gone: the next ``want`` begins anew."""
        with self._lock:
            self._states.pop(digest, None)

    def keep_only(self, digests: Collection[str]) -> None:
        """Images that are no longer wanted are not pulled any further (an attempt under way ends by itself)."""
        with self._lock:
            unwanted = [digest for digest in self._states if digest not in digests]
            for digest in unwanted:
                del self._states[digest]
        if unwanted:
            self.hurry()

    def hurry(self) -> None:
        """Do not wait any longer for the next attempts: a cause of failures may have gone."""
        with self._again:
            self._hurries += 1
            self._again.notify_all()

    def _pull_until_here(self, kind: EngineKind, image: ImagePin) -> None:
        failures = 0
        while not self._is_over(image):
            hurries = self._hurries
            problem = self._attempt(kind, image)
            if problem is None:
                self._show(image, ImageState(ready=True, detail="here"))
                continue
            failures += 1
            delay_s = BACKOFF.delay_s(failures, random.random)
            log.warning("%s; tried again in %.0f s", problem, delay_s)
            self._show(image, ImageState(ready=False, failures=failures, detail=f"{problem} (tried {failures} times)"))
            self._wait_for_hurry(hurries, delay_s)

    def _wait_for_hurry(self, hurries: int, timeout_s: float) -> None:
        with self._again:
            self._again.wait_for(lambda: self._hurries != hurries, timeout=timeout_s)

    def _attempt(self, kind: EngineKind, image: ImagePin) -> str | None:
        try:
            source = self._sources[kind]()
            # Not under a turn: what is here already never waits for what is being fetched.
            if source.present(image):
                return None
            if self._look_only(image):
                return "it is not on this device, and its pull policy is never"
            with self._turns:
                source.pull(image, lambda text: self._note(image, text))
        except (HedgerowError, OSError) as problem:
            return str(problem)
        except Exception as problem:
            log.exception("pulling %s failed unexpectedly", image.name)
            return f"{type(problem).__name__}: {problem}"
        return None

    def _look_only(self, image: ImagePin) -> bool:
        with self._lock:
            state = self._states.get(image.digest)
            return state is not None and state.look_only

    def _is_over(self, image: ImagePin) -> bool:
        """Decided under the lock together with leaving ``_active``, so that there is one thread for an image, never none."""
        with self._lock:
            state = self._states.get(image.digest)
            over = state is None or state.ready
            if over:
                self._active.discard(image.digest)
            return over

    def _note(self, image: ImagePin, text: str) -> None:
        with self._lock:
            before = self._states.get(image.digest)
            if before is not None:
                self._states[image.digest] = replace(before, detail=text)

    def _show(self, image: ImagePin, state: ImageState) -> None:
        with self._lock:
            before = self._states.get(image.digest)
            if before is None:
                return
            self._states[image.digest] = replace(state, look_only=before.look_only)
        self._on_change()
