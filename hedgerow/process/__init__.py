"""Supervised child processes: one implementation for replicas, edge modules, training runs and builds.

A :class:`Supervised` is a folder; ``start`` runs a process in it under a shim of its own, so that the starter may be killed
at any moment without the process noticing, and anybody may look at the folder later and learn how it ended.
"""

from __future__ import annotations

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
