"""Fetches desired states that are too large for a message, from the registry, by the reference that came in their place.

One at a time, the newest that was asked for; tried again, ever more seldom, until it is here or another one is wanted. What runs
goes on running meanwhile.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from edge_agent.errors import DesiredNotFetched
from edge_agent.registry_http import DeviceRegistry
from hedgerow.backoff import Backoff
from hedgerow.contracts.desired_reference import MAX_ENVELOPE_BYTES, DesiredReference
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import digest_of

RETRY = Backoff(first_s=2.0, factor=2.0, cap_s=300.0, immediate_s=1.0)
log = logging.getLogger(__name__)


class DesiredFetcher:
    """``token`` is the device's for the registry; ``on_fetched`` gets envelope and incarnation, ``on_failed`` why it waits."""

    def __init__(
        self,
        config: DeviceConfig,
        token: Callable[[], str],
        on_fetched: Callable[[bytes, str], None],
        on_failed: Callable[[DesiredNotFetched], None],
    ) -> None:
        self._config = config
        self._registry = DeviceRegistry(config, token)
        self._on_fetched = on_fetched
        self._on_failed = on_failed
        self._changed = threading.Condition()
        self._wanted: tuple[DesiredReference, str] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def want(self, reference: DesiredReference, incarnation: str) -> None:
        """Fetch this one, and no earlier one any more. One for another device means nothing."""
        if reference.device_uuid != self._config.device_uuid:
            return
        with self._changed:
            if self._closed or self._wanted == (reference, incarnation):
                return
            self._wanted = (reference, incarnation)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="desired-fetch", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """End; a request under way is left to the end of the process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or self._closed)
                wanted = self._wanted
            if self._closed or wanted is None:
                return
            try:
                envelope = self._fetch(wanted[0])
            except DesiredNotFetched as problem:
                self._fail(problem, failures)
                failures = self._wait(wanted, failures)
                continue
            failures = 0
            with self._changed:
                if self._wanted == wanted:
                    self._wanted = None
            self._hand_over(envelope, wanted[1])

    def _fail(self, problem: DesiredNotFetched, failures: int) -> None:
        if failures == 0:  # said once, not with every try
            self._on_failed(problem)
        else:
            log.info("still: %s", problem)

    def _wait(self, wanted: tuple[DesiredReference, str], failures: int) -> int:
        """Until the next try, or until another one is wanted; the number of failures then."""
        with self._changed:
            other = self._changed.wait_for(lambda: self._wanted != wanted or self._closed, RETRY.delay_s(failures, random.random))
        return 0 if other else failures + 1

    def _hand_over(self, envelope: bytes, incarnation: str) -> None:
        try:
            self._on_fetched(envelope, incarnation)
        except Exception:
            # The next one must find this thread.
            log.exception("a desired state that was fetched could not be handed over")

    def _fetch(self, reference: DesiredReference) -> bytes:
        """The envelope. Raises DesiredNotFetched."""

        def failed(problem: str) -> DesiredNotFetched:
            return DesiredNotFetched(version=reference.version, registry=self._registry.url, problem=problem)

        envelope = self._registry.ask("desired", failed, MAX_ENVELOPE_BYTES)
        if digest_of(envelope) != reference.digest:
            raise failed("it has another one by now, or one that was cut off")
        return envelope
