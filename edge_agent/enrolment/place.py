"""The files of an enrolment, beside each other: device.toml, the number of this installation, and the lock.

The number is on disk before anything is asked: whoever is killed at any moment asks again as the same installation, and gets
the same device.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from edge_agent.enrolment.errors import EnrollmentSetUpWrongly
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.device import DeviceConfig, to_toml

_NUMBER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Place:
    """``config``: where device.toml is to be."""

    config: Path

    @property
    def installation(self) -> Path:
        return self.config.with_name(f"{self.config.name}.installation")

    @property
    def lock(self) -> Path:
        return self.config.with_name(f"{self.config.name}.lock")

    def number(self) -> str:
        """This installation's: the one it has, or a new one that it has from now on. Raises EnrollmentSetUpWrongly."""
        try:
            if self.installation.exists():
                found = self.installation.read_text(encoding="ascii", errors="replace").strip()
                if _NUMBER.fullmatch(found):
                    return found
            made = secrets.token_hex(16)
            atomic_write(self.installation, f"{made}\n".encode(), mode=0o600)
        except OSError as problem:
            raise EnrollmentSetUpWrongly(problem=f"{self.installation} cannot be written: {problem.strerror}") from None
        return made

    def write(self, config: DeviceConfig) -> None:
        """Whole and for this user only, or not at all. Raises EnrollmentSetUpWrongly."""
        try:
            atomic_write(self.config, to_toml(config).encode(), mode=0o600, replace=False)
        except OSError as problem:
            raise EnrollmentSetUpWrongly(problem=f"{self.config} cannot be written: {problem.strerror}") from None
