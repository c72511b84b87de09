"""Commands that become another program: the process that does the work replaces this one and gets signals itself."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hedgerow.errors import MissingExtra


def become(module: str, arguments: Sequence[str], *, needs: str, extra: str, what: str) -> NoReturn:
    """``exec`` into ``python -P -m module``; MissingExtra when its libraries are not installed."""
    if importlib.util.find_spec(needs) is None:
        raise MissingExtra(what=what, module=needs, extra=extra)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - no shell, fixed program


def become_image(python: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """``exec`` into the scoring server that an unpacked docker image brings; ``environment`` goes over the present one.

    `-S`: without the site-packages of this Python, so that the image's libraries are the only ones.
    """
    sys.stdout.flush()
    argv = [str(python), "-S", "-P", "-m", "runtime", *arguments]
    os.execve(python, argv, {**os.environ, **environment})  # noqa: S606 - no shell; the image's own entry point
