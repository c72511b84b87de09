"""Shadows (``ModuleSpec.shadow``) between the processes that make them: a module's tap, the comparer, the agent.

A module's shadow and its comparer are modules of their own to the agent, under names that no operator can give: ``~`` is in no
name's grammar, and fits a file name.

A *tap* is a Unix socket in a folder of the module. Whoever connects sends one :class:`TapHello` as a line of JSON, and gets
frames: the length of a :class:`TapHead` (4 bytes, big-endian), the head as JSON, the request's body, the answer's body.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

SHADOW_SUFFIX = "~shadow"
COMPARER_SUFFIX = "~compare"
# Of a request and its answer together; larger ones are not told.
TAPPED_BYTES_MAX = 4 * 1024 * 1024
# What the comparer keeps in its working folder.
COUNTS_FILE = "counts.json"
DIFFERENCES_FILE = "differences.jsonl"
DIFFERENCES_MAX = 20
SHOWN_BYTES_MAX = 4096


class TapHello(msgspec.Struct, frozen=True):
    """What whoever listens wants: this share of the requests."""

    fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class TapHead(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer, without their bodies. ``path`` is not percent-encoded, ``query`` is.

    ``seconds`` is what the answer took; ``dropped`` counts requests since the hello that were not told for want of room.
    """

    method: str
    path: str
    query: str = ""
    route: str = ""
    headers: dict[str, str] = {}
    status: int = 200
    answer_headers: dict[str, str] = {}
    seconds: float = 0.0
    body_bytes: Annotated[int, msgspec.Meta(ge=0, le=TAPPED_BYTES_MAX)] = 0
    answer_bytes: Annotated[int, msgspec.Meta(ge=0, le=TAPPED_BYTES_MAX)] = 0
    dropped: int = 0


class ShadowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """``counts.json``: what the comparer found of one ``pair`` of versions so far. The fields are those of ShadowStatus.

    ``problem``: why nothing is compared now, "" when all is well.
    """

    pair: str
    compared: int = 0
    different: int = 0
    failed: int = 0
    dropped: int = 0
    worst_difference: float | None = None
    latency_p50_s: float | None = None
    shadow_latency_p50_s: float | None = None
    problem: str = ""


class ShadowDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the two answered differently (``detail`` says how); bodies are cut, and base64 where they are no text."""

    at: str
    detail: str
    method: str
    path: str
    content_type: str
    body: str
    status: int
    answer: str
    shadow_status: int | None
    shadow_answer: str


def shadow_of(module: str) -> str:
    """The name under which the shadow of a module runs on its device."""
    return f"{module}{SHADOW_SUFFIX}"


def comparer_of(module: str) -> str:
    """The name under which the process runs that compares a module with its shadow."""
    return f"{module}{COMPARER_SUFFIX}"


def pair_begins(shadow_digest: str) -> str:
    """How the name of every pair with this image as shadow begins."""
    return f"{shadow_digest.partition(':')[2]}-"


def owner_of(name: str) -> str:
    """The module that ``name`` belongs to: itself, unless it is a shadow or a comparer."""
    return name.partition("~")[0]


def belongs_to_shadow(name: str) -> bool:
    """True for the names that only the agent gives."""
    return "~" in name
