"""``/api/v1/secrets``: named values that are taken, kept sealed and never given out; only their names are shown."""

from __future__ import annotations

from flask import Blueprint, Response, g
from sqlalchemy import Connection

from hedgerow.contracts.api import Page, PutSecret, RotatedVault, SecretInfo
from hedgerow.contracts.names import check_name
from hedgerow.errors import InvalidDocument
from registry.errors import PreconditionFailed, VaultKeyMissing, VaultRingUnreadable, VaultValueDamaged
from registry.server.errors import IdempotencyKeyReused
from registry.server.http import (
    actor,
    answer,
    answer_tagged,
    check_match,
    context,
    no_content,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, operation
from registry.store import secrets
from registry.vault import Vault


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("secrets", __name__, url_prefix="/api/v1/secrets")
    blueprint.get("")(list_secrets)
    blueprint.get("/<name>")(show_secret)
    blueprint.put("/<name>")(put_secret)
    blueprint.delete("/<name>")(delete_secret)
    blueprint.post("/rotate-key")(rotate_key)
    return blueprint


@operation("List secrets by name, without their values", "contributor", scope="secrets", result=Page[SecretInfo], query=PAGE)
def list_secrets() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = secrets.page(connection, limit, after)
    return answer(Page(items=found, next=following))


@operation("Show a secret without its value", "contributor", scope="secrets", result=SecretInfo)
def show_secret(name: str) -> Response:
    with context().database.read() as connection:
        found = secrets.get(connection, check_name(name, "secret"))
    return answer_tagged(found, str(found.revision))


@operation(
    "Set or replace a secret",
    "contributor",
    scope="secrets",
    body=PutSecret,
    result=SecretInfo,
    errors=(PreconditionFailed, VaultRingUnreadable),
)
def put_secret(name: str) -> Response:
    """``If-None-Match: *`` sets a new one only. The answer does not repeat the value."""
    here = context()
    check_name(name, "secret")
    wanted = _wanted()

    def put(connection: Connection) -> Response:
        before = secrets.find(connection, name, lock=True)
        check_match("Secret", name, None if before is None else str(before.revision))
        made = secrets.put(connection, _vault(), name, wanted.value, by=actor().text(), now=here.clock.now())
        tell(connection, "secret.set", f"secret/{name}", revision=str(made.revision))
        return answer_tagged(made, str(made.revision))

    return write_once(put)


@operation("Delete a secret", "contributor", scope="secrets", errors=(PreconditionFailed,))
def delete_secret(name: str) -> Response:
    check_name(name, "secret")

    def delete(connection: Connection) -> Response:
        before = secrets.get(connection, name, lock=True)
        check_match("Secret", name, str(before.revision))
        secrets.remove(connection, name)
        tell(connection, "secret.deleted", f"secret/{name}")
        return no_content()

    return write_once(delete)


@operation(
    "Change the vault's key and seal every value anew",
    "owner",
    scope="secrets",
    result=RotatedVault,
    errors=(VaultKeyMissing, VaultValueDamaged, VaultRingUnreadable, IdempotencyKeyReused),
)
def rotate_key() -> Response:
    """The old key is forgotten once nothing is sealed under it, after the change is safe in the database."""

    def rotate(connection: Connection) -> Response:
        done = secrets.seal_anew(connection, _vault())
        tell(connection, "vault.rotated", "vault/keys", key_id=done.key_id, resealed=str(done.resealed))
        return answer(done)

    response = write_once(rotate)
    with context().database.write() as connection:
        secrets.forget_old_keys(connection, _vault())
    return response


def _wanted() -> PutSecret:
    try:
        wanted = read_body(PutSecret)
    except InvalidDocument:
        # The decoder's words show what stood there: that may be the value.
        problem = 'it must be {"value": TEXT}, the text of 1 to 65536 characters and without NUL'
        raise InvalidDocument(document="PutSecret", problem=problem) from None
    if "body_digest" in g:
        # It is kept for as long as the request may be repeated: a plain digest would let a short value be guessed.
        g.body_digest = _vault().fingerprint(wanted.value.encode())
    return wanted


def _vault() -> Vault:
    return Vault(context().workspace.keys)
