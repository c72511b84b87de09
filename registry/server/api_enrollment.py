"""``/api/v1/enrollment-keys`` and ``/api/v1/enroll``: devices that become known by themselves.

An operator makes a key; a device sends it, with the number that its installation gave itself, and gets its DeviceConfig. The
same installation gets the same device again, so that an answer may be lost on its way.
"""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.enrollment import CreateEnrollmentKey, EnrolledByKey, EnrollmentKey, EnrollWithKey
from registry.errors import NameTaken, RecordNotFound
from registry.identity.errors import (
    EnrolledDeviceRevoked,
    EnrollmentKeyInvalid,
    EnrollmentKeyRefused,
    EnrollmentNameRefused,
    TooManyWrongKeys,
)
from registry.server import scopes
from registry.server.api_fleet import config_of
from registry.server.errors import AlreadyDone, IdempotencyKeyReused
from registry.server.http import (
    actor,
    answer,
    caller,
    check_scope,
    context,
    no_content,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, operation
from registry.server.revisions import answer_seen
from registry.store import enrollment_keys, tokens

_MOST_WORDS = 500
_MAX_ENROLL_BYTES = 4096
_ONCE = (IdempotencyKeyReused, AlreadyDone)
_NO_STORE = {"Cache-Control": "no-store"}


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("enrollment", __name__, url_prefix="/api/v1")
    blueprint.post("/enrollment-keys")(create_enrollment_key)
    blueprint.get("/enrollment-keys")(list_enrollment_keys)
    blueprint.get("/enrollment-keys/<key_id>")(show_enrollment_key)
    blueprint.delete("/enrollment-keys/<key_id>")(revoke_enrollment_key)
    blueprint.post("/enroll")(enroll_with_key)
    return blueprint


@operation(
    "Create an enrolment key",
    "contributor",
    scope="devices",
    body=CreateEnrollmentKey,
    result=EnrollmentKey,
    status=201,
    errors=(EnrollmentKeyInvalid, *_ONCE),
)
def create_enrollment_key() -> Response:
    """201; the only answer that ever holds the secret."""
    wanted = read_body(CreateEnrollmentKey)
    # A key makes devices, so it reaches as far as the names that they may have.
    check_scope("devices", wanted.device or f"{wanted.names or ''}*")
    now = context().clock.now()

    def create(connection: Connection) -> Response:
        made = enrollment_keys.create(connection, wanted, now, actor().text())
        tell(
            connection,
            "enrollment-key.created",
            f"enrollment-key/{made.id}",
            name=made.name,
            uses_max="any number" if made.uses_max is None else str(made.uses_max),
            for_names=made.device or f"{made.names or ''}*",
            expires_at="never" if made.expires_at is None else made.expires_at.isoformat(),
            tags=", ".join(f"{key}={value}" for key, value in sorted(made.tags.items()))[:_MOST_WORDS],
        )
        return answer(made, 201, _NO_STORE)

    return write_once(create)


@operation("List enrolment keys, newest first", "contributor", scope="devices", result=Page[EnrollmentKey], query=PAGE)
def list_enrollment_keys() -> Response:
    """Without their secrets; also those that are revoked, expired or used up."""
    limit, after = page_arguments()
    with context().database.read() as connection:
        found = enrollment_keys.newest(connection, limit + 1, after)
    following = found[limit - 1].id if len(found) > limit else None
    return answer(Page(items=found[:limit], next=following))


@operation("Show an enrolment key", "contributor", scope="devices", result=EnrollmentKey)
def show_enrollment_key(key_id: str) -> Response:
    """Without its secret."""
    with context().database.read() as connection:
        return answer_seen(enrollment_keys.find(connection, key_id))


@operation("Revoke an enrolment key", "contributor", scope="devices", errors=(RecordNotFound,))
def revoke_enrollment_key(key_id: str) -> Response:
    """204, also when it was revoked before. Devices that enrolled with it stay."""
    now = context().clock.now()

    def revoke(connection: Connection) -> Response:
        before = enrollment_keys.find(connection, key_id)
        enrollment_keys.revoke(connection, key_id, now)
        if before.revoked_at is None:
            tell(connection, "enrollment-key.revoked", f"enrollment-key/{key_id}", name=before.name, uses=str(before.uses))
        return no_content()

    return write_once(revoke)


@operation(
    "Enrol with a key",
    scope=scopes.OPEN,
    body=EnrollWithKey,
    result=EnrolledByKey,
    status=201,
    also=((200, EnrolledByKey),),
    errors=(EnrollmentKeyRefused, EnrollmentNameRefused, EnrolledDeviceRevoked, NameTaken, TooManyWrongKeys, *_ONCE),
    by_key=True,
)
def enroll_with_key() -> Response:
    """What a device sends: `Authorization: Bearer KEY`, and a random number that its installation made once and keeps.

    201 for a new device, 200 for the installation's own device again, whose pull token is a new one then.
    """
    here = context()
    wanted = read_body(EnrollWithKey, limit_bytes=_MAX_ENROLL_BYTES)
    key_id, now = caller().token_id, here.clock.now()

    def enroll(connection: Connection) -> Response:
        done = enrollment_keys.enroll(connection, key_id, wanted, now)
        device = done.device
        # Whoever holds the token of an earlier answer may have found it on its way: only the newest is good. Dropped, not
        # revoked: those that go with a later key are derived, and must be able to come again.
        tokens.forget_for(connection, "device", device.uuid)
        token = tokens.create(connection, name=device.name, role="device", subject=device.uuid, now=now)
        kind = "device.enrolled-again" if done.again else "device.enrolled"
        tell(connection, kind, f"device/{device.name}", uuid=device.uuid, enrollment_key=key_id)
        config = config_of(here, device, token.secret or "", done.key_generation)
        return answer(EnrolledByKey(config=config), 200 if done.again else 201, _NO_STORE)

    answered = write_once(enroll)
    here.wakeups.wake("hub")
    here.wakeups.wake("broker")
    return answered
