"""``/api/v1/webhooks``: where events are sent. For owners: a webhook makes the control plane call somebody.

Nothing is sent here; the controller is woken after the commit and does (``registry/controller/webhooks``).
"""

from __future__ import annotations

from typing import get_args
from urllib.parse import urlsplit

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.events import ChangeWebhook, CreateWebhook, Delivery, DeliveryState, Redeliver, Redelivered, Webhook
from hedgerow.contracts.names import check_name
from hedgerow.contracts.webhook_signature import new_secret
from hedgerow.egress import EgressPolicy, EgressRefused, check_url
from registry.errors import (
    InvalidPage,
    NameTaken,
    PreconditionFailed,
    RecordNotFound,
    TooManyWebhooks,
    VaultRingUnreadable,
    WebhookPaused,
)
from registry.server import arguments
from registry.server.errors import AlreadyDone, IdempotencyKeyReused
from registry.server.http import actor, answer, context, no_content, page_arguments, read_body, tell, write_once
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_revised, answer_seen, check_revision
from registry.store import secrets, webhooks
from registry.vault import Vault

_STATES = QueryField("state", "deliveries in this state", choices=get_args(DeliveryState))
_NUMBER_DIGITS = 18


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks")
    blueprint.post("")(create_webhook)
    blueprint.get("")(list_webhooks)
    blueprint.get("/<name>")(show_webhook)
    blueprint.patch("/<name>")(change_webhook)
    blueprint.delete("/<name>")(delete_webhook)
    blueprint.post("/<name>/rotate-secret")(rotate_secret)
    blueprint.post("/<name>/test")(test_webhook)
    blueprint.get("/<name>/deliveries")(list_deliveries)
    blueprint.get("/<name>/deliveries/<number>")(show_delivery)
    blueprint.post("/<name>/redeliver")(redeliver)
    return blueprint


@operation(
    "Create a webhook",
    "owner",
    scope="webhooks",
    body=CreateWebhook,
    result=Webhook,
    status=201,
    errors=(NameTaken, EgressRefused, TooManyWebhooks, VaultRingUnreadable, IdempotencyKeyReused, AlreadyDone),
)
def create_webhook() -> Response:
    """It gets every event from here on. The only answer, beside that of a rotation, that ever holds the secret."""
    wanted = read_body(CreateWebhook)
    _check_url(wanted.url)
    now = context().clock.now()

    def create(connection: Connection) -> Response:
        secret = new_secret()
        sealed = secrets.seal(connection, _vault(), f"webhook/{wanted.name}", secret.encode())
        made = webhooks.create(connection, wanted, sealed, by=actor().text(), now=now)
        tell(connection, "webhook.created", f"webhook/{made.name}", url=_place(made.url), kinds=" ".join(made.kinds)[:1000])
        return answer(_with_secret(made, secret), 201)

    return write_once(create)


@operation("List webhooks by name", "owner", scope="webhooks", result=Page[Webhook], query=PAGE)
def list_webhooks() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = webhooks.page(connection, limit, after)
    return answer(Page(items=found, next=following))


@operation("Show a webhook", "owner", scope="webhooks", result=Webhook)
def show_webhook(name: str) -> Response:
    """Without its secret, which nobody is shown twice."""
    with context().database.read() as connection:
        found = webhooks.get(connection, check_name(name, "webhook"))
    return answer_revised(found, found.revision)


@operation(
    "Change, pause or resume a webhook",
    "owner",
    scope="webhooks",
    body=ChangeWebhook,
    result=Webhook,
    errors=(EgressRefused, PreconditionFailed),
)
def change_webhook(name: str) -> Response:
    """What waits stays, also while it is paused, and goes to the new URL. New kinds count for events that come."""
    wanted = read_body(ChangeWebhook)
    if wanted.url is not None:
        _check_url(wanted.url)
    now = context().clock.now()

    def change(connection: Connection) -> Response:
        before = webhooks.get(connection, check_name(name, "webhook"), lock=True)
        check_revision("Webhook", name, before.revision)
        made = webhooks.change(connection, name, wanted, now)
        tell(connection, _verb(before, made), f"webhook/{name}", url=_place(made.url), kinds=" ".join(made.kinds)[:1000])
        return answer_revised(made, made.revision)

    return write_once(change)


@operation("Delete a webhook", "owner", scope="webhooks", errors=(PreconditionFailed,))
def delete_webhook(name: str) -> Response:
    """With everything that it still had to be sent."""

    def remove(connection: Connection) -> Response:
        before = webhooks.get(connection, check_name(name, "webhook"), lock=True)
        check_revision("Webhook", name, before.revision)
        webhooks.remove(connection, name)
        tell(connection, "webhook.deleted", f"webhook/{name}", waiting=str(before.waiting), dead=str(before.dead))
        return no_content()

    return write_once(remove)


@operation(
    "Give a webhook a new secret",
    "owner",
    scope="webhooks",
    result=Webhook,
    errors=(PreconditionFailed, VaultRingUnreadable, IdempotencyKeyReused, AlreadyDone),
)
def rotate_secret(name: str) -> Response:
    """Whatever is sent from now on is signed with it."""
    check_name(name, "webhook")

    def rotate(connection: Connection) -> Response:
        secret = new_secret()
        sealed = secrets.seal(connection, _vault(), f"webhook/{name}", secret.encode())
        before = webhooks.get(connection, name, lock=True)
        check_revision("Webhook", name, before.revision)
        made = webhooks.change_secret(connection, name, sealed)
        tell(connection, "webhook.secret-rotated", f"webhook/{name}")
        return answer(_with_secret(made, secret))

    return write_once(rotate)


@operation(
    "Send a ping to a webhook",
    "owner",
    scope="webhooks",
    result=Delivery,
    status=202,
    errors=(WebhookPaused, IdempotencyKeyReused),
)
def test_webhook(name: str) -> Response:
    """Tried once, and at once, whatever waits; what waits after a failure is tried again as well."""
    now = context().clock.now()

    def ping(connection: Connection) -> Response:
        subject = f"webhook/{check_name(name, 'webhook')}"
        webhooks.get(connection, name, lock=True)
        number = tell(connection, webhooks.PING, subject)
        return answer(webhooks.ping(connection, name, number, now), 202)

    return write_once(ping)


@operation(
    "List what was sent to a webhook, and what waits", "owner", scope="webhooks", result=Page[Delivery], query=(*PAGE, _STATES)
)
def list_deliveries(name: str) -> Response:
    """Newest first."""
    limit, after = page_arguments()
    if after is not None and not _is_number(after):
        raise InvalidPage(value=after[:80])
    before = None if after is None else int(after)
    with context().database.read() as connection:
        check_name(name, "webhook")
        found, following = webhooks.deliveries(connection, name, limit, before, state=arguments.text("state"))
    return answer(Page(items=found, next=None if following is None else str(following)))


@operation("Show one delivery", "owner", scope="webhooks", result=Delivery)
def show_delivery(name: str, number: str) -> Response:
    """By the number of its event."""
    check_name(name, "webhook")
    if not _is_number(number):
        raise RecordNotFound(kind="delivery", name=f"{name}/{number[:80]}", command="webhook")
    with context().database.read() as connection:
        return answer_seen(webhooks.delivery(connection, name, int(number)))


@operation(
    "Send again",
    "owner",
    scope="webhooks",
    body=Redeliver,
    result=Redelivered,
    errors=(IdempotencyKeyReused,),
)
def redeliver(name: str) -> Response:
    """One event, whatever became of it, or everything that is dead."""
    wanted = read_body(Redeliver)
    now = context().clock.now()

    def again(connection: Connection) -> Response:
        count = webhooks.redeliver(connection, check_name(name, "webhook"), wanted.event_number, now)
        which = "every dead one" if wanted.event_number is None else str(wanted.event_number)
        tell(connection, "webhook.redelivered", f"webhook/{name}", event=which, count=str(count))
        return answer(Redelivered(count=count))

    return write_once(again)


def _is_number(text: str) -> bool:
    """Of an event; what is longer fits into no column."""
    return text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS


def _verb(before: Webhook, made: Webhook) -> str:
    if before.state == made.state:
        return "webhook.changed"
    return "webhook.paused" if made.state == "paused" else "webhook.resumed"


def _place(url: str) -> str:
    """What events tell of a URL to every reader: the path and query of many a chat's webhook are its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _check_url(url: str) -> None:
    check_url(url, EgressPolicy.parse(context().settings.egress_allow))


def _vault() -> Vault:
    return Vault(context().workspace.keys)


def _with_secret(made: Webhook, secret: str) -> Webhook:
    return Webhook(**{name: getattr(made, name) for name in made.__struct_fields__ if name != "secret"}, secret=secret)
