"""The buffer in ``/metrics``: what was dropped and why, what waits for modules, what the flash had to take."""

from __future__ import annotations

from pathlib import Path

from edge_agent.observing.metrics import Sample
from edge_agent.telemetry.outbox import Outbox
from hedgerow.contracts.telemetry import GapReason

# IoT Edge's word where it has one.
_REASONS: dict[GapReason, str] = {"expired": "ttl_expiry"}
_PROC = Path("/proc/self")


def samples(outbox: Outbox) -> list[Sample]:
    """Samples of now; what this kernel does not count is left out."""
    totals = outbox.totals
    dropped = [
        Sample("edgehub_messages_dropped_total", count, {"reason": _REASONS.get(reason, reason)})
        for reason, count in totals.dropped_by_reason
    ]
    waiting = Sample("hedgerow_agent_outbox_local_messages", totals.local_messages)
    return [*dropped, waiting, *_written(outbox.writer_thread)]


def _written(writer_thread: int | None) -> list[Sample]:
    """Bytes that this process made the disk write: one thread does all of the buffer's writing, the rest is everything else
    (state files, logs, and what programs wrote that the agent started and that have ended)."""
    try:
        everything = _written_by(_PROC / "io")
        buffer = _written_by(_PROC / "task" / str(writer_thread) / "io")
    except (OSError, ValueError, KeyError):
        return []
    parts = {"outbox": buffer, "state": max(0, everything - buffer)}
    return [Sample("hedgerow_agent_written_bytes_total", size, {"part": part}) for part, size in parts.items()]


def _written_by(path: Path) -> int:
    lines = dict(line.split(": ") for line in path.read_text(encoding="ascii").splitlines())
    return int(lines["write_bytes"])
