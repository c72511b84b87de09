"""Direct methods as the REST API takes and shows them (``/devices/NAME/methods``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.methods import MethodName
from hedgerow.contracts.names import KnownName

# As long as IoT Hub lets a caller wait.
_MOST_S = 300
CallState = Literal["waiting", "sent", "answering", "done", "failed"]


class InvokeMethod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices/NAME/methods/METHOD``. ``module`` None: a method of the agent.

    ``timeout_s`` is how long the method may take, ``connect_timeout_s`` how long to wait for a device that is offline.
    """

    module: KnownName | None = None
    payload: Any = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=_MOST_S)] = 30.0
    connect_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=_MOST_S)] = 0.0


class CalledMethod(Document, frozen=True, kw_only=True):
    """A call and what became of it; ``status`` and ``payload`` are the device's answer, ``problem`` says why there is none.

    ``status`` as in HTTP: 200 done, 404 no such method or module, 408 no answer of the module in time, 5xx failed.
    """

    id: str
    device: KnownName
    module: KnownName | None = None
    method: MethodName
    state: CallState
    status: int | None = None
    payload: Any = None
    problem: str = ""
    asked_at: Instant
    ended_at: Instant | None = None
