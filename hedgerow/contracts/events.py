"""Events (every change, in order), webhooks that are fed from them, and their deliveries."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, Instant
from hedgerow.contracts.names import EVENT_KIND_PATTERN, Name

# What kinds begin with.
EVENT_NOUNS = (
    "activity",
    "blob",
    "blobs",
    "collection",
    "deployment",
    "device",
    "edge-deployment",
    "edge-rollout",
    "endpoint",
    "enrollment-key",
    "environment",
    "events",
    "image",
    "model",
    "run",
    "secret",
    "token",
    "vault",
    "webhook",
    "workspace",
)
WebhookState = Literal["active", "paused"]
# ``model.registered``, or a noun with a star.
KindPattern = Annotated[str, msgspec.Meta(pattern=EVENT_KIND_PATTERN)]
WebhookUrl = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
Kinds = Annotated[list[KindPattern], msgspec.Meta(max_length=50)]
DeliveryState = Literal["waiting", "delivered", "dead"]


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who made a change: a token (``id``, its name and role) or a process of the control plane (``id`` "system")."""

    id: str
    name: str
    role: str

    def text(self) -> str:
        """One column: ``ROLE:NAME:ID``; names hold no colon."""
        return f"{self.role}:{self.name}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Actor:
        role, name, token = text.split(":", 2)
        return cls(id=token, name=name, role=role)


class Event(Document, frozen=True, kw_only=True):
    """One change. ``kind`` is ``NOUN.VERB`` (``model.registered``), ``subject`` ``NOUN/NAME`` (``model/iris:3``).

    ``cursor`` is opaque: what comes after this event is asked for with it (``after``, ``Last-Event-ID``).
    """

    cursor: str
    number: int
    at: Instant
    kind: str
    subject: str
    actor: Actor
    details: dict[str, str] = {}


class EventsRestored(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream of events says (``event: restored``) to a cursor from before a restored backup: it begins anew."""

    incarnation: str


class CreateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /webhooks``. ``kinds`` are exact (``model.registered``) or a noun with a star (``model.*``); none means all."""

    name: Name
    url: WebhookUrl
    kinds: Kinds = []


class ChangeWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PATCH /webhooks/NAME``; what is left out stays."""

    url: WebhookUrl | None = None
    kinds: Kinds | None = None
    state: WebhookState | None = None


class Webhook(Document, frozen=True, kw_only=True):
    """Where events are sent. ``secret`` signs every delivery; it is filled in the answer to its creation only."""

    name: Name
    url: str
    kinds: list[str]
    state: WebhookState
    waiting: int = 0
    dead: int = 0
    created_at: Instant
    created_by: str
    revision: int = 1
    failing_since: Instant | None = None
    secret: str | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one webhook. ``id`` is the same in every attempt (header ``Hedgerow-Delivery``)."""

    id: str
    webhook: Name
    event_number: int
    kind: str
    subject: str
    state: DeliveryState
    attempts: int
    next_at: Instant | None = None
    ended_at: Instant | None = None
    status_code: int | None = None
    problem: str = ""


class Redeliver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /webhooks/NAME/redeliver``: that event again, whatever became of it; without a number all that are dead."""

    event_number: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries wait again."""

    count: int
