"""What Mosquitto is given to read, as devices and their certificates come and go in the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from hedgerow.contracts.api_fleet import EnrollDevice
from registry.identity.revocations import Revocations
from registry.mosquitto.admission import Admission, Change
from registry.mosquitto.files import Files, Owner
from registry.store import device_certificates, fleet, schema
from registry.store.database import Database, open_database
from registry.workspace import Workspace, open_workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NOTHING = Change(any=False, cut=False)


class Place:
    """A workspace with a database, and what is written for its Mosquitto; ``now`` goes where a test wants it."""

    def __init__(self, workspace: Workspace, database: Database, files: Files, *, certificates: bool = True) -> None:
        self.now = NOW
        self.database, self.folder = database, files.folder
        revocations = Revocations(workspace, 4 * DAY) if certificates else None
        self.admission = Admission(workspace, files, revocations, lambda: self.now)

    def refresh(self) -> Change:
        with self.database.read() as connection:
            return self.admission.refresh(connection)

    def enroll(self, name: str, *serials: str, days: int = 30) -> str:
        with self.database.write() as connection:
            uuid = fleet.enroll(connection, EnrollDevice(name=name), self.now).uuid
            for serial in serials:
                device_certificates.record(connection, uuid, serial, self.now, self.now + days * DAY)
        return uuid

    def revoke(self, uuid: str, serial: str | None = None) -> int:
        with self.database.write() as connection:
            return device_certificates.revoke(connection, uuid, self.now, serial)

    def leave(self, name: str, uuid: str) -> None:
        with self.database.write() as connection:
            fleet.forget(connection, name, self.now)
            device_certificates.revoke(connection, uuid, self.now)

    def listed(self) -> set[str]:
        read = x509.load_pem_x509_crl((self.folder / "revoked.pem").read_bytes())
        return {f"{one.serial_number:x}" for one in read}

    def barred(self, uuid: str) -> bool:
        return f"user {uuid}\ntopic deny #\n" in (self.folder / "rules").read_text()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Workspace, Database, Files]]:
    workspace = open_workspace(tmp_path / "w")
    with closing(open_database(None, workspace.folder)) as database, closing(Files(tmp_path / "note", Owner())) as files:
        schema.upgrade(database, workspace)
        yield workspace, database, files


@pytest.fixture
def place(parts: tuple[Workspace, Database, Files]) -> Place:
    return Place(*parts)


def test_a_single_revoked_certificate_is_listed_and_cut_off_once(place: Place) -> None:
    uuid = place.enroll("press", "a1", "b2")
    assert place.refresh() == Change(any=True, cut=False)
    assert place.refresh() == NOTHING
    assert place.revoke(uuid, "a1") == 1
    assert place.refresh() == Change(any=True, cut=True)
    assert place.refresh() == NOTHING
    assert place.listed() == {"a1"}
    assert not place.barred(uuid)


def test_a_device_that_is_gone_is_barred_and_nobody_is_cut_off(place: Place) -> None:
    gone, kept = place.enroll("gone", "a1"), place.enroll("kept", "b2")
    place.refresh()
    place.leave("gone", gone)
    assert place.refresh() == Change(any=True, cut=False)
    assert place.listed() == {"a1"}
    assert place.barred(gone)
    assert not place.barred(kept)
    assert gone not in (place.folder / "passwords").read_text()
    # A connection may outlive the certificate, and the row of it.
    place.now += 200 * DAY
    place.enroll("other", "c3")
    place.refresh()
    assert place.listed() == set()
    assert place.barred(gone)


def test_what_was_revoked_before_it_began_cuts_nobody_off(place: Place) -> None:
    place.revoke(place.enroll("press", "a1"), "a1")
    assert place.refresh() == Change(any=True, cut=False)
    assert place.listed() == {"a1"}


def test_a_list_is_renewed_also_while_the_database_is_away(place: Place) -> None:
    place.revoke(place.enroll("press", "a1"), "a1")
    place.refresh()
    assert place.admission.renew() == NOTHING
    assert place.admission.due_in() == DAY
    place.now += DAY
    assert place.admission.due_in() == timedelta(0)
    assert place.admission.renew() == Change(any=True, cut=False)
    assert place.listed() == {"a1"}
    read = x509.load_pem_x509_crl((place.folder / "revoked.pem").read_bytes())
    assert read.next_update_utc == place.now + 4 * DAY


def test_without_a_listener_for_certificates_there_is_nothing_about_them(parts: tuple[Workspace, Database, Files]) -> None:
    place = Place(*parts, certificates=False)
    place.leave("gone", place.enroll("gone", "a1"))
    assert place.refresh() == Change(any=True, cut=False)
    assert sorted(path.name for path in place.folder.iterdir()) == ["passwords", "rules"]
    assert "deny" not in (place.folder / "rules").read_text()
    assert place.admission.renew() == NOTHING
    assert place.admission.due_in() is None


def test_rows_of_long_ago_are_forgotten(place: Place) -> None:
    uuid = place.enroll("press", "a1")
    place.now += timedelta(days=30) + device_certificates.KEPT_AFTER_END + DAY
    with place.database.write() as connection:
        device_certificates.record(connection, uuid, "b2", place.now, place.now + DAY)
        assert [found.serial for found in device_certificates.of_device(connection, uuid, "press", 10)] == ["b2"]
