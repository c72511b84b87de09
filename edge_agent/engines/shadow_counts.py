"""Reads what comparers have counted so far, and puts it into the status of each module that has a shadow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hedgerow.contracts.shadow import COUNTS_FILE, DIFFERENCES_FILE, ShadowCounts, ShadowDifference, comparer_of, pair_begins
from hedgerow.contracts.status import ModuleStatus

_COUNTS_BYTES_MAX = 64 * 1024
_DIFFERENCES_BYTES_MAX = 2 * 1024 * 1024
log = logging.getLogger(__name__)


class ShadowFiles:
    """``work_folder`` is where a module of the process engine works."""

    def __init__(self, work_folder: Callable[[str], Path]) -> None:
        self._work_folder = work_folder

    def with_counts(self, modules: Mapping[str, ModuleStatus]) -> dict[str, ModuleStatus]:
        """The same, with the newest counts of each shadow."""
        return {name: self._counted(name, module) for name, module in modules.items()}

    def differences(self, module: str) -> list[ShadowDifference]:
        """The first requests that a module and its shadow answered differently. ``module`` is one of the desired state."""
        text = _read(self._work_folder(comparer_of(module)) / DIFFERENCES_FILE, _DIFFERENCES_BYTES_MAX)
        found = []
        for line in text.splitlines():
            try:
                found.append(msgspec.json.decode(line, type=ShadowDifference))
            except msgspec.MsgspecError:
                log.debug("skipped a torn line of the differences of %s", module)
        return found

    def _counted(self, name: str, module: ModuleStatus) -> ModuleStatus:
        if module.shadow is None:
            return module
        text = _read(self._work_folder(comparer_of(name)) / COUNTS_FILE, _COUNTS_BYTES_MAX)
        try:
            counts = msgspec.json.decode(text, type=ShadowCounts)
        except msgspec.MsgspecError:
            return module
        if not counts.pair.startswith(pair_begins(module.shadow.image_digest)):
            return module  # of the shadow before: the next comparer has not written yet
        running = module.shadow.state == "running"
        shadow = msgspec.structs.replace(
            module.shadow,
            reason=f"{module.shadow.reason}; {counts.problem}" if counts.problem and running else module.shadow.reason,
            compared=counts.compared,
            different=counts.different,
            failed=counts.failed,
            dropped=counts.dropped,
            worst_difference=counts.worst_difference,
            latency_p50_s=counts.latency_p50_s,
            shadow_latency_p50_s=counts.shadow_latency_p50_s,
        )
        return msgspec.structs.replace(module, shadow=shadow)


def _read(path: Path, most: int) -> bytes:
    """Whatever else may have written there, no more than ``most`` of it."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""
