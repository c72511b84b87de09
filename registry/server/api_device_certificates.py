"""``/api/v1/devices/NAME/certificates``, ``/authority.*``: certificates by which devices log in at the broker.

    device: key, request ──▶ POST with its own token ──▶ certificate for its UUID, whatever names the request has

Nothing here speaks to a broker: the process that keeps Mosquitto is woken after the commit. Brokers of others fetch authority
and revocation list at ``/authority.pem`` and ``/authority.crl``, without a token: both are public by nature (RFC 5280 has
lists fetched like this), and say nothing but serial numbers.
"""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, current_app
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.enrollment import DeviceCertificate, SignCertificate, check_request
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.seal import SealRefused, device_key
from registry.errors import InvalidPage, RecordNotFound
from registry.identity.authority import authority_certificate, issue_client
from registry.identity.device_certificates import ISSUED_MOST, ISSUED_PERIOD, life_of, requested_key
from registry.identity.errors import CertificateRequestRefused, NotThisDevice, TooManyCertificates
from registry.identity.revocations import Revocations
from registry.server.http import answer, caller, context, page_arguments, read_body, tell, write_once
from registry.server.operation import PAGE, operation
from registry.store import device_certificates, device_keys, fleet
from registry.store.fleet import NewEvent

LIST_PATH = "/authority.crl"
_EXTENSION = "hedgerow.revocations"
# Long enough to spare this server, short against what a revocation is worth.
_PUBLIC = {"Cache-Control": "public, max-age=60"}


def add_routes(blueprint: Blueprint) -> None:
    """Add the routes about devices to those of the fleet (``api_fleet.py``)."""
    blueprint.post("/devices/<name>/certificates")(sign_device_certificate)
    blueprint.get("/devices/<name>/certificates")(list_device_certificates)
    blueprint.post("/devices/<name>/certificates/<serial>/revoke")(revoke_device_certificate)


def routes() -> Blueprint:
    """The public addresses."""
    blueprint = Blueprint("authority", __name__)
    blueprint.get("/authority.pem")(show_authority)
    blueprint.get(LIST_PATH)(show_revocations)
    blueprint.get(f"{LIST_PATH}.pem")(show_revocations_as_text)
    return blueprint


@operation(
    "Certify a key of a device",
    "device",
    scope="devices",
    body=SignCertificate,
    result=DeviceCertificate,
    status=201,
    errors=(CertificateRequestRefused, NotThisDevice, SealRefused, TooManyCertificates),
)
def sign_device_certificate(name: str) -> Response:
    """For the device itself, by its own token and under its seal. Names and wishes in the request are passed over: only its
    key counts."""
    here, who = context(), caller()
    check_known_name(name, "device")
    wanted = read_body(SignCertificate)
    key = requested_key(wanted.request)
    now, life = here.clock.now(), life_of(here.settings.device_certificate_s)
    list_url = f"{here.settings.url}{LIST_PATH}" if here.settings.public_url else ""

    def sign(connection: Connection) -> Response:
        device = _own_device(connection, name, who.subject)
        _check_seal(connection, device, wanted)
        if device_certificates.issued_since(connection, device.uuid, now - min(life, ISSUED_PERIOD)) >= ISSUED_MOST:
            raise TooManyCertificates(name=name, limit=ISSUED_MOST)
        made = issue_client(here.workspace, device.uuid, key, now, life, list_url)
        device_certificates.record(connection, device.uuid, made.serial, now, made.expires_at)
        tell(connection, "device.certified", f"device/{name}", uuid=device.uuid, serial=made.serial)
        signed = DeviceCertificate(
            serial=made.serial,
            device=name,
            issued_at=now,
            expires_at=made.expires_at,
            certificate=made.certificate.decode(),
            authority=authority_certificate(here.workspace, now).decode(),
        )
        return answer(signed, 201)

    return write_once(sign)


def _check_seal(connection: Connection, device: Device, wanted: SignCertificate) -> None:
    """By the key that holds, or by a later one: the device may have it before anybody heard of that. Raises SealRefused."""
    here = context()
    generation = device_keys.get(connection, device.name, here.clock.now()).generation
    for later in range(device_keys.AHEAD + 1):
        key = device_key(here.workspace.device_master, device.uuid, generation + later)
        try:
            return check_request(key, device.uuid, wanted)
        except SealRefused:
            continue
    raise SealRefused(purpose="certificate request", device_uuid=device.uuid)


def _own_device(connection: Connection, name: str, device_uuid: str) -> Device:
    """Raises NotThisDevice, in the same words whether or not there is a device of that name."""
    try:
        device = fleet.get(connection, name, context().clock.now(), lock=True)
    except RecordNotFound:
        raise NotThisDevice(name=name) from None
    # Its token ends when it is revoked, perhaps after it was looked at.
    if device.uuid != device_uuid or device.revoked_at is not None:
        raise NotThisDevice(name=name)
    return device


@operation(
    "List a device's certificates",
    "reader",
    scope="devices",
    result=Page[DeviceCertificate],
    query=PAGE,
    errors=(InvalidPage,),
)
def list_device_certificates(name: str) -> Response:
    """Newest first; those that ended more than 90 days ago are forgotten."""
    here = context()
    limit, after = page_arguments()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        found = device_certificates.of_device(connection, device.uuid, device.name, limit + 1, after)
    return answer(Page(items=found[:limit], next=found[limit - 1].serial if len(found) > limit else None))


@operation("Revoke a device's certificate", "contributor", scope="devices", result=DeviceCertificate)
def revoke_device_certificate(name: str, serial: str) -> Response:
    """This one only: the device asks for another. Again, or after its end, changes nothing."""
    here = context()
    now = here.clock.now()

    def revoke(connection: Connection) -> Response:
        device = fleet.get(connection, check_known_name(name, "device"), now, lock=True)
        device_certificates.get(connection, device.uuid, device.name, serial)
        if device_certificates.revoke(connection, device.uuid, now, serial):
            tell(connection, "device.certificate-revoked", f"device/{name}", uuid=device.uuid, serial=serial)
            event = NewEvent(device.uuid, "certificate-revoked", f"its certificate {serial} was revoked by an operator")
            fleet.record_events(connection, [event], now)
        return answer(device_certificates.get(connection, device.uuid, device.name, serial))

    answered = write_once(revoke)
    here.wakeups.wake("broker")
    return answered


def show_authority() -> Response:
    """The certificate of the workspace's authority."""
    here = context()
    return Response(authority_certificate(here.workspace, here.clock.now()), 200, _PUBLIC, mimetype="application/x-pem-file")


def show_revocations() -> Response:
    """What was revoked, as standards have it for HTTP (DER)."""
    here, now = context(), context().clock.now()
    with here.database.look() as connection:
        revoked = device_certificates.revoked(connection, now)
    return Response(_revocations().current_der(revoked, now), 200, _PUBLIC, mimetype="application/pkix-crl")


def show_revocations_as_text() -> Response:
    """The same as PEM, which Mosquitto and its like read from files."""
    here, now = context(), context().clock.now()
    with here.database.look() as connection:
        revoked = device_certificates.revoked(connection, now)
    return Response(_revocations().current(revoked, now), 200, _PUBLIC, mimetype="application/x-pem-file")


def _revocations() -> Revocations:
    made = current_app.extensions.setdefault(_EXTENSION, Revocations(context().workspace))
    return cast(Revocations, made)
