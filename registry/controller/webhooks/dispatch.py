"""The story of webhooks: give events out, see what is due, send it. Beside the controller's loop, never in it.

    news ──▶ dispatcher thread:  events after each webhook's place become deliveries; for each webhook that has one due ──▶
             sender thread:      claim one, send it, settle it and claim the next in one transaction, … until none is due

One thread for each webhook that is being sent to, so that no receiver, however slow, delays another one's events. Nothing
runs, and no thread is there, until there is a webhook. Every writing transaction shows the controller's lease: after a
take-over nothing more is written here, and what was being sent is sent again by the next one when its claim runs out.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from hedgerow.clock import Clock
from hedgerow.errors import UnavailableError
from registry.controller.webhooks.attempt import Attempts
from registry.controller.webhooks.verdict import Rules, judge
from registry.errors import LeaseLost
from registry.store import events, leases, webhooks
from registry.store.database import Database
from registry.store.leases import Lease
from registry.store.webhooks import Claim, Settlement

log = logging.getLogger(__name__)
# Wake-ups may be lost, and other processes record events without one.
QUIET_S = 10.0
_RETRY_S = 1.0
_STOP_S = 2.0


@dataclass(frozen=True)
class Tools:
    """What sending needs. ``lease`` gives the controller's lease as it is now."""

    database: Database
    clock: Clock
    lease: Callable[[], Lease]
    attempts: Attempts
    rules: Rules


class Webhooks:
    """Made by the composition root. :meth:`look` and :meth:`stop` are for the controller's thread."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._dispatcher: threading.Thread | None = None
        self._senders: dict[str, _Sender] = {}

    def look(self) -> None:
        """There may be something new; cheap when there is no webhook. Raises DatabaseUnavailable."""
        if self._dispatcher is None:
            with self._tools.database.read() as connection:
                if not webhooks.exist(connection):
                    return
            self._dispatcher = threading.Thread(target=self._dispatch, name="webhooks", daemon=True)
            self._dispatcher.start()
        self._news.set()

    def stop(self) -> None:
        """Break off what is being sent; it is sent again when its claim runs out. Nothing is written afterwards."""
        self._stopping.set()
        self._news.set()
        if self._dispatcher is not None:
            # It starts senders: first its end, then theirs.
            self._dispatcher.join(_STOP_S)
        for sender in list(self._senders.values()):
            sender.break_off()
        give_up_s = self._tools.clock.monotonic_s() + _STOP_S
        for sender in list(self._senders.values()):
            sender.thread.join(max(0.0, give_up_s - self._tools.clock.monotonic_s()))

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                delay_s = self._round()
            except LeaseLost:
                return
            except UnavailableError as problem:
                log.warning("Webhooks wait: %s", problem.sentence())
                delay_s = _RETRY_S
            except Exception:
                log.exception("Webhooks wait: this should not happen")
                delay_s = QUIET_S
            self._news.wait(delay_s)

    def _round(self) -> float:
        """Seconds after which the next round is due at the latest."""
        tools = self._tools
        with tools.database.read() as connection:
            more = webhooks.behind(connection)
        while more and not self._stopping.is_set():
            with tools.database.write() as connection:
                leases.check(connection, tools.lease())
                more = webhooks.fan_out(connection, tools.clock.now())
        with tools.database.read() as connection:
            waiting = webhooks.due(connection)
        now, delay_s = tools.clock.now(), QUIET_S
        for one in waiting:
            left_s = (one.next_at - now).total_seconds()
            if 0 < left_s <= tools.rules.longest_wait_s:
                delay_s = min(delay_s, left_s)
            else:
                self._send_to(one.name)
        return delay_s

    def _send_to(self, name: str) -> None:
        sender = self._senders.get(name)
        # One that is about to end sets the news when it has, so that this is looked at again.
        if (sender is None or not sender.thread.is_alive()) and not self._stopping.is_set():
            self._senders[name] = _Sender(self._tools, name, self._stopping, self._news)
            self._senders[name].thread.start()


class _Sender:
    """Sends what is due to one webhook, in a thread of its own that ends with it."""

    def __init__(self, tools: Tools, name: str, stopping: threading.Event, news: threading.Event) -> None:
        self._tools, self._name, self._stopping, self._news = tools, name, stopping, news
        self._stream: socket.socket | None = None
        self.thread = threading.Thread(target=self._run, name=f"webhook {name}", daemon=True)

    def break_off(self) -> None:
        """The connection is of no use any more, whatever is being done with it."""
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._send_all()
        except LeaseLost:
            log.warning("Webhook %s: another controller has taken over", self._name)
        except Exception:
            log.exception("Webhook %s: this should not happen", self._name)
            # Started again at once it would spin.
            self._stopping.wait(_RETRY_S)
        finally:
            self._news.set()

    def _send_all(self) -> None:
        claimed = self._patiently(self._claim)
        while claimed is not None:
            seen = self._tools.attempts.make(claimed, self._hold)
            if self._stopping.is_set():
                # It may have been broken off by us: the next controller sends it again.
                return
            how = judge(claimed, seen, self._tools.rules, self._tools.clock.now(), random.random)
            if how.state != "delivered":
                log.warning("Webhook %s: event %d: %s (%s)", self._name, claimed.event.number, how.problem, how.state)
            claimed = self._patiently(partial(self._settle_and_claim, claimed, how))

    def _hold(self, stream: socket.socket) -> None:
        self._stream = stream
        if self._stopping.is_set():
            self.break_off()

    def _patiently(self, action: Callable[[Connection], Claim | None]) -> Claim | None:
        """What was sent must not be forgotten because the database is away: it would be sent again and again."""
        while not self._stopping.is_set():
            try:
                with self._tools.database.write() as connection:
                    leases.check(connection, self._tools.lease())
                    return action(connection)
            except UnavailableError as problem:
                log.warning("Webhook %s waits: %s", self._name, problem.sentence())
                self._stopping.wait(_RETRY_S)
        return None

    def _settle_and_claim(self, done: Claim, how: Settlement, connection: Connection) -> Claim | None:
        now = self._tools.clock.now()
        if webhooks.settle(connection, done, how, now) and how.pause:
            events.record(
                connection,
                kind="webhook.paused",
                subject=f"webhook/{self._name}",
                actor=events.system("controller"),
                now=now,
                details={"reason": how.problem},
            )
        return self._claim(connection)

    def _claim(self, connection: Connection) -> Claim | None:
        now, rules = self._tools.clock.now(), self._tools.rules
        until, early = now + timedelta(seconds=rules.claim_s), now + timedelta(seconds=rules.longest_wait_s)
        return webhooks.claim(connection, self._name, now=now, until=until, early=early)
