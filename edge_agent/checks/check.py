"""What one check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One result. ``warning``: nothing is broken, but somebody should look; ``remedy`` says what to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    warning: bool = False
