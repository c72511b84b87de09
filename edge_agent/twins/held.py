"""What one module has reported, as the device keeps it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_agent.errors import TwinRefused
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.merge_patch import json_text, merge_patch
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.twins import MAX_REPORTED_BYTES


@dataclass(frozen=True)
class Held:
    """``text`` is the canonical JSON of all reported properties; equal ``digest`` means equal properties."""

    epoch: str
    version: int
    text: bytes
    digest: str

    @property
    def properties(self) -> dict[str, Any]:
        """Decoded anew each time: kept as text, they take a tenth of the memory."""
        return msgspec.json.decode(self.text, type=dict[str, Any])


def held(epoch: str, version: int, properties: Mapping[str, object]) -> Held:
    """``properties`` hold no null but inside lists."""
    text = json_text(properties)
    return Held(epoch, version, text, digest_of(text))


def read_properties(module: str, payload: bytes) -> dict[str, Any]:
    """What a module said, bounded. Raises TwinRefused."""
    if len(payload) > MAX_REPORTED_BYTES:
        raise TwinRefused(module=module, problem=f"{len(payload)} bytes, the limit is {MAX_REPORTED_BYTES}")
    try:
        said = msgspec.json.decode(payload, type=dict[str, Any])
        check_bounds(said)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise TwinRefused(module=module, problem="they are no JSON object") from None
    except UnboundedValue as problem:
        raise TwinRefused(module=module, problem=str(problem)) from None
    return said


def following(module: str, before: Mapping[str, object], said: Mapping[str, object], *, whole: bool) -> dict[str, object]:
    """The properties after a report. Raises TwinRefused when they grew above the limit, or too deep."""
    after = merge_patch({} if whole else before, said)
    size = len(json_text(after))
    if size > MAX_REPORTED_BYTES:
        raise TwinRefused(module=module, problem=f"with them its twin has {size} bytes, the limit is {MAX_REPORTED_BYTES}")
    try:
        check_bounds(after)
    except UnboundedValue as problem:
        raise TwinRefused(module=module, problem=f"with them its twin cannot be taken: {problem}") from None
    return after
