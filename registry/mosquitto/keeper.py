"""The story of the broker for devices: write what Mosquitto reads, run it, and tell it when devices came or went.

    enrolment, revocation ──▶ wake-up (or 30 s) ──▶ files as they should be (admission.py) ──▶ changed? ──▶ SIGHUP

On SIGHUP Mosquitto reads names, rules, certificate and revocation list again and ends connections whose login no longer holds: a
revoked device is off, and a certificate that was made anew disturbs nobody. Only connections made with a single certificate
that was revoked need a new start, which cuts everybody for a moment.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal

from hedgerow.clock import Clock
from hedgerow.process import Exited, ProcessSpec, Supervised
from registry.errors import DatabaseUnavailable
from registry.identity.authority import authority_certificate
from registry.mosquitto.admission import Admission, Change
from registry.mosquitto.certificates import Certificates
from registry.mosquitto.configuration import Listening, configuration
from registry.mosquitto.errors import MosquittoFailed, MosquittoMissing
from registry.mosquitto.files import Files, Owner
from registry.mosquitto.listening import accepts_connections
from registry.stop_signals import StopSignals
from registry.store.database import Database
from registry.wakeups import WakeupReceiver
from registry.workspace import Workspace

log = logging.getLogger(__name__)

_START_PATIENCE_S = 15.0
_LOOK_S = 0.05
LOOK_AGAIN_S = 30.0
_LOOK_LEAST_S = 0.2
STOP_GRACE_S = 5.0
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_WORDS_LINES = 3


class Keeper:
    """Made by the composition root; ``close`` ends Mosquitto and removes its files."""

    def __init__(
        self,
        workspace: Workspace,
        database: Database,
        files: Files,
        owner: Owner,
        listening: Listening,
        program: str,
        certificates: Certificates,
        admission: Admission,
        clock: Clock,
    ) -> None:
        found = shutil.which(program, path=_SEARCH_PATH)
        if found is None:
            raise MosquittoMissing(program=program)
        self._program = found
        self._workspace, self._database, self._files = workspace, database, files
        self._owner, self._listening, self._certificates = owner, listening, certificates
        self._admission, self._clock = admission, clock
        self._process = Supervised(workspace.processes / "mosquitto")

    def start(self) -> None:
        """Run it; returns once it was started. Raises CertificateUnusable, ProcessStartFailed, DatabaseUnavailable."""
        self._write_certificate()
        self._files.write("authority.pem", authority_certificate(self._workspace, self._clock.now()))
        self._files.write("mosquitto.conf", configuration(self._listening, self._files.folder).encode())
        self._refresh()
        self._launch()

    def _launch(self) -> None:
        self._process.stop(STOP_GRACE_S)  # also one of a process before us that was killed
        self._process.start(
            ProcessSpec(
                argv=[self._program, "-c", str(self._files.folder / "mosquitto.conf")],
                cwd=str(self._files.folder),
                environment={"PATH": _SEARCH_PATH},
                uid=self._owner.uid,
                gid=self._owner.gid,
                exit_with_starter=True,
            )
        )

    def check(self) -> None:
        """Raises MosquittoFailed, with its last words, when it does not run."""
        seen = self._process.observe()
        if isinstance(seen, Exited):
            words = " ".join(self._process.tail(_LAST_WORDS_LINES).split())
            raise MosquittoFailed(problem=f"{seen.reason}; {words}" if words else seen.reason)

    def wait_until_it_listens(self, stop: StopSignals) -> bool:
        """False when this process should end before anybody listens. Raises MosquittoFailed.

        Before that Mosquitto takes no signals either: SIGHUP would end it.
        """
        for _ in range(int(_START_PATIENCE_S / _LOOK_S)):
            self.check()
            if accepts_connections(self._listening.loopback_port):
                return True
            if stop.wait(_LOOK_S):
                return False
        raise MosquittoFailed(problem=f"it did not listen within {_START_PATIENCE_S:.0f} s")

    def keep(self, stop: StopSignals, wakeups: WakeupReceiver) -> None:
        """Until told to stop. Raises MosquittoFailed when it ends by itself."""
        while not stop.requested():
            self._watch(stop, wakeups)
            if not stop.requested():
                log.warning("A certificate was revoked: Mosquitto is started anew, which ends connections made with it")
                self._launch()
                self.wait_until_it_listens(stop)

    def _watch(self, stop: StopSignals, wakeups: WakeupReceiver) -> None:
        """Until told to stop, or until Mosquitto has to be started anew."""
        ended = self._process.exit_fd()
        with selectors.DefaultSelector() as selector:
            for source in (stop.fileno(), wakeups.fileno(), *([] if ended is None else [ended])):
                selector.register(source, selectors.EVENT_READ)
            try:
                while not stop.requested():
                    self.check()
                    selector.select(self._patience_s())
                    wakeups.wait(0.0)
                    if self._look_again().cut:
                        return
            finally:
                if ended is not None:
                    os.close(ended)

    def close(self) -> None:
        self._process.stop(STOP_GRACE_S)
        self._files.close()

    def _patience_s(self) -> float:
        due_in = self._admission.due_in()
        return LOOK_AGAIN_S if due_in is None else min(LOOK_AGAIN_S, max(_LOOK_LEAST_S, due_in.total_seconds()))

    def _look_again(self) -> Change:
        renewed = self._certificates.due()
        if renewed:
            self._write_certificate()
            log.info("The broker's certificate was renewed")
        try:
            changed = self._refresh()
        except DatabaseUnavailable as problem:
            log.warning("Who may log in is looked at later: %s", problem)
            changed = self._admission.renew()
        if changed.any or renewed:
            self._process.signal(signal.SIGHUP)
        return changed

    def _write_certificate(self) -> None:
        current = self._certificates.current()
        self._files.write("server.pem", current.certificate)
        self._files.write("server.key", current.key)

    def _refresh(self) -> Change:
        with self._database.read() as connection:
            return self._admission.refresh(connection)
