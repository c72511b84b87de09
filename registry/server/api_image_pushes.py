"""``/api/v1/images/REF/push``: send an image to somebody else's registry."""

from __future__ import annotations

import secrets as randomness

from flask import Blueprint, Response, g
from sqlalchemy import Connection

from hedgerow.contracts.api_images import PushImage
from hedgerow.contracts.document import encode
from hedgerow.contracts.names import Reference
from hedgerow.contracts.remote_image import RemoteReferenceInvalid, push_target
from hedgerow.contracts.work import Activity
from hedgerow.egress import EgressPolicy, EgressRefused, check_url
from hedgerow.errors import InvalidDocument
from registry.errors import RecordDeleted, RecordNotFound, RegistryLoginMissing, VaultRingUnreadable
from registry.server.http import answer, check_scope, context, read_body, tell, write_once
from registry.server.operation import operation
from registry.store import activities, images, secrets
from registry.store.outgoing_pushes import IMAGE_PUSH, PushTask, SealedPassword
from registry.vault import Vault

_ERRORS = (RecordNotFound, RecordDeleted, RemoteReferenceInvalid, EgressRefused, RegistryLoginMissing, VaultRingUnreadable)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("image_pushes", __name__, url_prefix="/api/v1/images")
    blueprint.post("/<reference>/push")(push_image)
    return blueprint


@operation(
    "Push an image to another registry",
    "contributor",
    scope="images",
    body=PushImage,
    result=Activity,
    status=202,
    errors=_ERRORS,
)
def push_image(reference: str) -> Response:
    """The Activity's result says what was sent. A password is kept sealed and used once."""
    here = context()
    wanted = _wanted()
    target = push_target(wanted.target)
    check_url(f"{target.origin}/v2/", EgressPolicy.parse(here.settings.egress_allow))
    _check_login(wanted)
    if wanted.secret is not None:
        check_scope("secrets", wanted.secret)
    vault = Vault(here.workspace.keys)
    if wanted.password is not None and "body_digest" in g:
        # A digest of a password can be guessed from; this one only with the vault's key.
        g.body_digest = vault.fingerprint(encode(wanted))

    def queue(connection: Connection) -> Response:
        now = here.clock.now()
        password = _sealed(connection, vault, wanted.password)
        if wanted.secret is not None:
            secrets.get(connection, wanted.secret)  # a missing one is told now, not when the push starts
        image = images.hold(connection, Reference.parse(reference))
        task = PushTask(
            image=f"{image.name}:{image.version}",
            target=wanted.target,
            username=wanted.username,
            password=password,
            secret=wanted.secret,
            mount_from=wanted.mount_from,
            referrers=wanted.referrers,
        )
        subject = f"{image.name}/{image.version}"
        activity_id = activities.create(connection, kind=IMAGE_PUSH, subject=subject, request=task, now=now)
        tell(connection, "image.push-requested", f"image/{task.image}", activity=activity_id, target=str(target))
        return answer(activities.get(connection, activity_id), 202)

    answered = write_once(queue)
    here.wakeups.wake("controller")
    return answered


def _wanted() -> PushImage:
    try:
        return read_body(PushImage)
    except InvalidDocument as problem:
        if "password" not in str(problem):
            raise
        # The decoder's words show what stood there.
        raise InvalidDocument(document="PushImage", problem="its password must be a text of 1 to 20000 characters") from None


def _check_login(wanted: PushImage) -> None:
    if wanted.password is not None and wanted.secret is not None:
        raise RegistryLoginMissing(problem="a password and a secret were both given; one of them is enough")
    if wanted.password is not None and wanted.username is None:
        raise RegistryLoginMissing(problem="a password was given without a user")
    if wanted.username is not None and wanted.password is None and wanted.secret is None:
        raise RegistryLoginMissing(problem="a user was given without a password or a secret")


def _sealed(connection: Connection, vault: Vault, password: str | None) -> SealedPassword | None:
    if password is None:
        return None
    name = f"push/{randomness.token_hex(16)}"
    sealed = secrets.seal(connection, vault, name, password.encode())
    return SealedPassword(name=name, key_id=sealed.key_id, data=sealed.data)
