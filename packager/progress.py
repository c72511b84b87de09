"""How a piece of work says where it is; `__main__.py` writes it out as a ProgressLine."""

from __future__ import annotations

from collections.abc import Callable

# Told how far the work is (0 to 1) and what it does now.
Report = Callable[[float, str], None]
