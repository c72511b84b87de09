"""What is remembered of the versions of one module: the one to go back to, the one on trial, the one that was refused.

Stored in ``versions.json`` and written before anything is done about it, so that the next agent goes on where this one was
killed. ``trial.py`` has the rules.
"""

from __future__ import annotations

import msgspec

from hedgerow.contracts.edge import DesiredModule

# Of one module. A deployment that goes to and fro has a few; more would only be a longer file.
REFUSED_MAX = 8


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A version that has not shown yet that it is well.

    ``begun``: a start of it was carried out. ``well``: its run is ready; ``since_s`` (monotonic, of boot ``boot_id``) is when it
    became so, or when it ceased to be. ``failures`` are ends and findings of unhealthiness so far, ``counted_run`` the run whose
    end is in them, ``sick`` that the unhealthiness of ``run`` is. ``proven``: its recorded answers came out on this device.
    """

    module: DesiredModule
    begun: bool = False
    proven: bool = False
    run: str = ""
    well: bool = False
    sick: bool = False
    since_s: float = 0.0
    boot_id: str = ""
    failures: int = 0
    counted_run: str = ""
    problem: str = ""
    reboots: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is not run (again): it was rolled back, or refused before the switch.

    ``version`` is its image digest, or its fingerprint when it has none. ``judged_by`` is a digest of the bounds it was
    judged by: with other bounds it gets another trial.
    """

    fingerprint: str
    judged_by: str
    version: str
    reason: str


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of one module. ``good`` was well for its time; it is kept until another one was.

    ``refused`` is the version that is wanted now and is not run; ``earlier`` are refused ones that were wanted before, the newest
    last, at most ``REFUSED_MAX``: when one of them comes back it is not tried a second time.
    """

    good: DesiredModule | None = None
    trial: Trial | None = None
    refused: Refused | None = None
    earlier: tuple[Refused, ...] = ()
