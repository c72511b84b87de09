"""Fetches the next key of this device when a desired state says that there is one, and tells when it is stored.

    wanted ──▶ POST …/key ──▶ store (keys.json, whole or not at all) ──▶ from here on the new key seals ──▶ POST …/key/taken

    it ends …                          device   control plane     how it goes on
    before the request, or its answer  old      both are taken    asks again, and gets the same key
    after the answer, before storing   old      both are taken    the same
    after storing                      new      both are taken    the first message under the new key, or …/key/taken, ends it
    after …/key/taken, not noted       new      new only          says it again, which changes nothing

A thread of its own, there only while something is to be done.
"""

from __future__ import annotations

import base64
import logging
import random
import threading
from collections.abc import Callable

from edge_agent.errors import KeyNotFetched
from edge_agent.link.keys import DeviceKeys
from edge_agent.registry_http import DeviceRegistry
from hedgerow.backoff import Backoff
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.device_keys import (
    ANSWER,
    REQUEST,
    TAKEN,
    FetchedKey,
    FetchKey,
    KeyAnswer,
    KeyGrant,
    KeyRequest,
    KeyTaken,
    new_secret,
    open_grant,
    public_text,
)
from hedgerow.contracts.document import Document, decode, encode
from hedgerow.contracts.seal import seal, unseal
from hedgerow.errors import HedgerowError

ANSWER_BYTES_MAX = 64 * 1024
CLOSE_PATIENCE_S = 1.0
RETRY = Backoff(first_s=1.0, factor=2.0, cap_s=120.0, immediate_s=0.5)
log = logging.getLogger(__name__)


class KeyChange:
    """``decided`` records a decision (action, reason); ``changed`` is called when another key is in use."""

    def __init__(
        self, config: DeviceConfig, keys: DeviceKeys, *, decided: Callable[[str, str], None], changed: Callable[[], None]
    ) -> None:
        self._config, self._keys = config, keys
        self._registry = DeviceRegistry(config, lambda: keys.pull_token)
        self._decided, self._changed = decided, changed
        self._wanted = 0
        self._trouble = ""
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def want(self, generation: int) -> None:
        """A desired state speaks of this key (0: of none). Also says again what the control plane may not have heard."""
        with self._lock:
            self._wanted = generation
            if self._due() and self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="key-change", daemon=True)
                self._thread.start()
            self._news.set()

    def hurry(self) -> None:
        """The network is back: what failed is tried now."""
        self._news.set()

    def close(self) -> None:
        """A request under way is left to the end of the process."""
        with self._lock:
            self._stopped, thread = True, self._thread
        self._news.set()
        if thread is not None:
            thread.join(CLOSE_PATIENCE_S)

    def _due(self) -> bool:
        return self._wanted > self._keys.generation or self._keys.untold

    def _run(self) -> None:
        failures = 0
        while True:
            with self._lock:
                if self._stopped or not self._due():
                    self._thread = None
                    return
            self._news.clear()
            try:
                self._step()
                failures = 0
                continue
            except HedgerowError as problem:
                self._say(str(problem))
            except Exception as problem:
                log.exception("the change of this device's key failed")
                self._say(f"{type(problem).__name__}: {problem}")
            self._news.wait(RETRY.delay_s(failures, random.random))
            failures += 1

    def _step(self) -> None:
        if self._wanted > self._keys.generation:
            grant = self._fetch()
            try:
                self._keys.store(grant)
            except (OSError, ValueError) as problem:
                raise KeyNotFetched(generation=self._wanted, problem=f"it cannot be stored: {problem}") from None
            self._trouble = ""
            self._decided("key-changed", f"key {grant.generation} is stored and used from now on")
            self._changed()
        self._tell()

    def _say(self, problem: str) -> None:
        """Once, not with every try."""
        if problem != self._trouble:
            self._trouble = problem
            self._decided("key-waits", problem)

    def _fetch(self) -> KeyGrant:
        uuid, key, generation = self._config.device_uuid, self._keys.key, self._keys.generation
        secret = new_secret()
        request = KeyRequest(device_uuid=uuid, generation=generation, public_key=public_text(secret))
        body = self._post("key", seal(key, uuid, REQUEST, encode(request)), generation + 1)
        try:
            sealed = base64.b64decode(decode(body, FetchedKey).sealed, validate=True)
        except ValueError:
            raise KeyNotFetched(generation=generation + 1, problem="the answer is not base64") from None
        answer = decode(unseal(key, uuid, ANSWER, sealed), KeyAnswer)
        if answer.device_uuid != uuid:
            raise KeyNotFetched(generation=generation + 1, problem="the answer is for another device")
        return open_grant(answer, secret)

    def _tell(self) -> None:
        taken = KeyTaken(device_uuid=self._config.device_uuid, generation=self._keys.generation)
        self._post("key/taken", self._sealed(TAKEN, taken), self._keys.generation)
        try:
            self._keys.told()
        except OSError as problem:
            raise KeyNotFetched(generation=self._keys.generation, problem=f"it cannot be noted: {problem}") from None

    def _sealed(self, purpose: str, document: Document) -> bytes:
        return seal(self._keys.key, self._config.device_uuid, purpose, encode(document))

    def _post(self, what: str, sealed: bytes, generation: int) -> bytes:
        def failed(problem: str) -> KeyNotFetched:
            return KeyNotFetched(generation=generation, problem=problem)

        request = FetchKey(sealed=base64.b64encode(sealed).decode())
        return self._registry.ask(what, failed, ANSWER_BYTES_MAX, request)
