"""Supervised child processes: one implementation for replicas, edge modules, training runs and builds.

A :class:`Supervised` is a folder; ``start`` runs a process in it under a shim of its own, so that the starter may be killed
at any moment without the process noticing, and anybody may look at the folder later and learn how it ended.

Names resolve when they are first used: small processes (the supervisor of ``hedgerow up``, the broker) need the locks of
this package and nothing of what starting a process brings along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hedgerow.process.errors import AlreadyRunning, LockHeld, ProcessGone, ProcessStartFailed, SupervisionFailed
    from hedgerow.process.spec import Absent, Exited, Observation, ProcessSpec, ResourceLimits, Running
    from hedgerow.process.supervised import Supervised

__all__ = [
    "Absent",
    "AlreadyRunning",
    "Exited",
    "LockHeld",
    "Observation",
    "ProcessGone",
    "ProcessSpec",
    "ProcessStartFailed",
    "ResourceLimits",
    "Running",
    "Supervised",
    "SupervisionFailed",
]

_SPEC = {"Absent", "Exited", "Observation", "ProcessSpec", "ResourceLimits", "Running"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'hedgerow.process' has no attribute {name!r}")
    import importlib

    module = "supervised" if name == "Supervised" else "spec" if name in _SPEC else "errors"
    return getattr(importlib.import_module(f"hedgerow.process.{module}"), name)
