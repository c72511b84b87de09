"""Commands that become another program: the process that does the work replaces this one and gets signals itself."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hedgerow.errors import MissingExtra


def become(module: str, arguments: Sequence[str], *, needs: str, extra: str, what: str) -> NoReturn:
    """``exec`` into ``python -P -m module``; MissingExtra when its libraries are not installed."""
    if importlib.util.find_spec(needs) is None:
        raise MissingExtra(what=what, module=needs, extra=extra)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - no shell, fixed program
