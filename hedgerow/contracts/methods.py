"""Direct methods: a call to a device (signed by the workspace) and its answer (sealed), in parts when it is long.

A call holds for one session of one incarnation and until ``expires_at``, so a recorded one cannot be played again to
another session; within a session the device carries out an ``id`` once.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import KnownName

MAX_PAYLOAD_BYTES = 128 * 1024
# What one answer message carries; a longer answer comes in several.
PART_BYTES = 64 * 1024
# So many parts a device sends beyond those that the hub says it has; it keeps them until then.
WINDOW_PARTS = 8
METHOD_PATTERN = r"^[A-Za-z0-9._$-]{1,100}$(?!\n)"
MethodName = Annotated[str, msgspec.Meta(pattern=METHOD_PATTERN)]


class MethodCall(Document, frozen=True, kw_only=True):
    """A call; ``module`` None is the agent itself. ``payload`` is JSON text of at most MAX_PAYLOAD_BYTES.

    The same ``id`` again carries out nothing: it says that the hub has ``acknowledged_parts`` parts of the answer (what
    follows is sent again, and WINDOW_PARTS beyond them may come), or that nobody wants the rest (``cancelled``).
    """

    device_uuid: str
    incarnation: str
    session: str
    id: str
    module: KnownName | None = None
    name: MethodName
    payload: str = "null"
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 30.0
    expires_at: Instant
    acknowledged_parts: Annotated[int, msgspec.Meta(ge=0)] = 0
    cancelled: bool = False


class MethodAnswer(Document, frozen=True, kw_only=True):
    """A part of the answer to call ``id``: parts count from 0, ``last`` ends it. ``payload`` parts joined are JSON text.

    ``status`` as in HTTP: 200 done, 404 no such method or module, 408 no answer of the module in time, 5xx failed.
    """

    device_uuid: str
    session: str
    id: str
    part: Annotated[int, msgspec.Meta(ge=0)] = 0
    last: bool = True
    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    payload: str = "null"
