"""The story of the broker for devices: write what Mosquitto reads, run it, and tell it when devices came or went.

    enrolment, revocation ──▶ wake-up (or 30 s) ──▶ passwords as they should be ──▶ changed? ──▶ file, SIGHUP

On SIGHUP Mosquitto reads names, rules and certificate again and ends connections whose login no longer holds: a revoked device
is off, and a certificate that was made anew disturbs nobody.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal

from hedgerow.process import Exited, ProcessSpec, Supervised
from registry.errors import DatabaseUnavailable
from registry.mosquitto.certificates import Certificates
from registry.mosquitto.configuration import Listening, configuration, rules
from registry.mosquitto.errors import MosquittoFailed, MosquittoMissing
from registry.mosquitto.files import Files, Owner
from registry.mosquitto.logins import Logins
from registry.stop_signals import StopSignals
from registry.store.database import Database
from registry.wakeups import WakeupReceiver
from registry.workspace import Workspace

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 30.0
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
    ) -> None:
        found = shutil.which(program, path=_SEARCH_PATH)
        if found is None:
            raise MosquittoMissing(program=program)
        self._program = found
        self._workspace, self._database, self._files = workspace, database, files
        self._owner, self._listening, self._certificates = owner, listening, certificates
        self._logins = Logins(workspace.device_master)
        self._written = ""
        self._process = Supervised(workspace.processes / "mosquitto")

    def start(self) -> None:
        """Run it; returns once it was started. Raises CertificateUnusable, ProcessStartFailed, DatabaseUnavailable."""
        self._write_certificate()
        self._files.write("rules", rules(self._workspace.topic_prefix).encode())
        self._files.write("mosquitto.conf", configuration(self._listening, self._files.folder).encode())
        self._refresh()
        self._process.stop(STOP_GRACE_S)  # of a process before us that was killed
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

    def keep(self, stop: StopSignals, wakeups: WakeupReceiver) -> None:
        """Until told to stop. Raises MosquittoFailed when it ends by itself."""
        ended = self._process.exit_fd()
        with selectors.DefaultSelector() as selector:
            for source in (stop.fileno(), wakeups.fileno(), *([] if ended is None else [ended])):
                selector.register(source, selectors.EVENT_READ)
            try:
                while not stop.requested():
                    self.check()
                    selector.select(LOOK_AGAIN_S)
                    wakeups.wait(0.0)
                    self._look_again()
            finally:
                if ended is not None:
                    os.close(ended)

    def close(self) -> None:
        self._process.stop(STOP_GRACE_S)
        self._files.close()

    def _look_again(self) -> None:
        renewed = self._certificates.due()
        if renewed:
            self._write_certificate()
            log.info("The broker's certificate was renewed")
        try:
            changed = self._refresh()
        except DatabaseUnavailable as problem:
            log.warning("Who may log in is looked at later: %s", problem)
            changed = False
        if changed or renewed:
            self._process.signal(signal.SIGHUP)

    def _write_certificate(self) -> None:
        current = self._certificates.current()
        self._files.write("server.pem", current.certificate)
        self._files.write("server.key", current.key)

    def _refresh(self) -> bool:
        with self._database.read() as connection:
            text = self._logins.text(connection)
        if text == self._written:
            return False
        self._files.write("passwords", text.encode())
        self._written = text
        return True
