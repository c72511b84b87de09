"""A backup and its restore, on SQLite and PostgreSQL and from one to the other; keys; older and newer schemas."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import sql
from sqlalchemy import MetaData, select, text

import hedgerow
from hedgerow.contracts.api import SubmitRun
from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.backup import BackupEnd, BackupHeader
from hedgerow.contracts.backup_archive import NO_DIGEST, BackupTooNew, member_header, signed_off
from hedgerow.contracts.document import encode
from hedgerow.contracts.telemetry import TelemetryMessage
from hedgerow.tar_headers import END_OF_TAR, padding
from registry.backup.afterwards import INTERRUPTED
from registry.backup.errors import BlobsBusy, BlobsLost, KeysNeeded, KeysUnusable, TargetNotEmpty
from registry.backup.keep import BlobKeeper
from registry.backup.rows import dump
from registry.backup.write import Wanted
from registry.blobs.choose import open_store
from registry.store import activities, events, fleet, garbage, leases, runs, schema, services, telemetry, tokens
from registry.store import secrets as secrets_store
from registry.store.database import open_database
from registry.store.tables import events as event_rows
from registry.store.tables import metric_points, quarantine
from registry.store.tables import webhooks as webhook_rows
from registry.store.telemetry import Arrived, StreamKey
from registry.vault import Vault
from tests.backup_builders import Place, back_up, bring_back, place
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3_server import S3Server
from tests.registry_everything import Everything
from tests.registry_stores import BACKENDS, NOW, known_file

# Changed by a restore on purpose, each looked at in a test of its own.
CHANGED = ("facts", "leases", "device_sessions", "activities", "activity_events", "runs", "deployments", "endpoints", "events")


@pytest.fixture
def new_url(postgres_server: PostgresServer) -> Iterator[Callable[[str], str | None]]:
    """A function that gives, for a backend, the URL of an empty database of this test (None for SQLite)."""
    names: list[str] = []
    with contextlib.closing(postgres_server.connect("postgres")) as admin:

        def make(backend: str) -> str | None:
            if backend == "sqlite":
                return None
            names.append(f"test_{secrets.token_hex(6)}")
            admin.execute(sql.SQL("create database {} template template0").format(sql.Identifier(names[-1])))
            return postgres_server.url(names[-1])

        yield make
        for name in names:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def fill(full: Place) -> None:
    """Something of every kind, with what is hard to carry: bytes, numbers without JSON, long and foreign text."""
    Everything(full.database, NOW)
    full.register("large", full.put(bytes(range(256)) * 40_000), full.put(b"", "empty.bin"))
    with full.database.write() as connection:
        events.record(connection, kind="model.registered", subject="model/large:1", actor=events.system("test"), now=NOW)
        hook = {"name": "hook", "url": "https://example.com", "state": "active", "key_id": "k", "sealed_secret": b"\0\xff\x01"}
        newest = connection.execute(select(event_rows).order_by(event_rows.c.number.desc()).limit(1)).one()
        done = {"after_transaction": newest.transaction_id, "after_number": newest.number}
        connection.execute(webhook_rows.insert().values(**hook, **done, created_at="2026-11-21T08:00:00.000000Z"))
    with full.database.write_series() as connection:
        points = [
            {"run_id": "r", "name": "m", "step": i, "value": v, "time_ms": 2**62}
            for i, v in enumerate((1e308, float("inf"), -0.0))
        ]
        connection.execute(metric_points.insert(), points)
        connection.execute(
            quarantine.insert().values(device_uuid="d", received_ms=1, reason="ä\u2028\U0001f40e\\\n", payload=bytes(range(256)))
        )


@pytest.mark.parametrize("to", BACKENDS)
@pytest.mark.parametrize("origin", BACKENDS)
def test_everything_comes_back(tmp_path: Path, new_url: Callable[[str], str | None], origin: str, to: str) -> None:
    with place(tmp_path / "old", new_url(origin)) as old:
        fill(old)
        end = back_up(old, tmp_path / "b.tar")
        before, newest = old.rows(*CHANGED, "webhooks"), max(row["number"] for row in old.rows()["events"])
    url = new_url(to)

    report = bring_back(tmp_path / "b.tar", tmp_path / "new", database_url=url, accept_lost=True)

    assert report.rows == end.rows
    assert report.lost == end.lost
    assert report.keys_restored
    with place(tmp_path / "new", url) as new:
        assert new.workspace.id == old.workspace.id
        assert (new.workspace.trusted_key, new.workspace.device_master) == (
            old.workspace.trusted_key,
            old.workspace.device_master,
        )
        assert new.rows(*CHANGED, "webhooks") == before
        large = next(f for f in before["model_files"] if f["name"] == "large" and f["path"] == "model.onnx")
        with new.store.open(large["digest"]) as stream:
            assert stream.read() == bytes(range(256)) * 40_000
        new_life(old, new, report.incarnation, newest)
        goes_on(new)
    assert {entry.name for entry in tmp_path.iterdir()} == {"old", "new", "b.tar"}


def new_life(old: Place, new: Place, incarnation: str, newest: int) -> None:
    """What must be another than before; ``newest`` was the last event then."""
    with new.database.read() as connection:
        endpoint = services.get(connection, "shuttle")
        work = connection.execute(text("SELECT state FROM activities UNION SELECT state FROM runs")).scalars().all()
        told = connection.execute(select(event_rows).order_by(event_rows.c.number)).all()
        hook = connection.execute(select(webhook_rows)).one()
    assert new.rows()["leases"] == new.rows()["device_sessions"] == []
    assert {d.name: (d.state, d.replicas) for d in endpoint.deployments} == {"blue": ("starting", []), "green": ("starting", [])}
    assert set(work) <= {"succeeded", "failed", "cancelled"}
    assert {fact["value"] for fact in new.rows()["facts"]} == {old.workspace.id, incarnation}
    assert told[-1].kind == "workspace.restored"
    assert msgspec.json.decode(told[-1].details)["incarnation"] == incarnation
    assert {row.transaction_id for row in told if row.number <= newest} == {0}
    assert (hook.after_transaction, hook.after_number) == (0, newest)


def goes_on(new: Place) -> None:
    """Numbers that a database gives itself go on after those that came back."""
    with new.database.write() as connection:
        events.record(connection, kind="a.b", subject="c/d", actor=events.system("test"), now=NOW)
        fleet.enroll(connection, EnrollDevice(name="newcomer"), NOW)
    message = TelemetryMessage(sequence=1, time_ms=1, module="m", body="{}")
    with new.database.write_series() as connection:
        telemetry.add_messages(connection, [Arrived(StreamKey("u", "e", "s"), message)], 1)
        connection.execute(metric_points.insert().values(run_id="r", name="m", step=1, value=1.0, time_ms=1))
        connection.execute(quarantine.insert().values(device_uuid="d", received_ms=1, reason="", payload=b""))
    for table, column in (("events", "number"), ("fleet_events", "number"), ("messages", "id"), ("metric_points", "id")):
        numbers = [row[column] for row in new.rows()[table]]
        assert len(set(numbers)) == len(numbers)


def test_work_that_was_under_way_says_so(tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        Everything(old.database, NOW)
        with old.database.write() as connection:
            wanted = SubmitRun(experiment="e", script="train.py", snapshot=[known_file(connection, "train.py", "x")])
            run_id = runs.submit(connection, wanted, NOW).id
            token = tokens.create(connection, name="run", role="run", subject=run_id, now=NOW)
        waiting = [row["id"] for row in old.rows()["activities"] if row["state"] in ("queued", "running")]
        back_up(old, tmp_path / "b.tar")
    report = bring_back(tmp_path / "b.tar", tmp_path / "new", accept_lost=True)
    assert report.interrupted == len(waiting) > 1
    with place(tmp_path / "new") as new, new.database.read() as connection:
        for activity_id in waiting:
            found = activities.get(connection, activity_id)
            assert found.state == "failed"
            assert found.problem is not None
            assert "interrupted by a restore" in found.problem.message
            assert activities.events_after(connection, activity_id, 0)[-1].state == "failed"
        run = runs.get(connection, run_id)
        assert (run.state, run.problem, run.ended_at) == ("failed", INTERRUPTED, NOW)
        assert tokens.find(connection, token.id).revoked_at == NOW


# --- keys ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_keys(tmp_path: Path) -> Iterator[Place]:
    """A workspace with a backup ``b.tar`` beside it that holds no keys."""
    with place(tmp_path / "old") as old:
        old.register("m", old.put(b"weights"))
        with old.database.write() as connection:
            fleet.enroll(connection, EnrollDevice(name="pump"), NOW)
            tokens.create(connection, name="ci", role="contributor", now=NOW)
            tokens.create(connection, name="pump", role="device", subject="u", now=NOW)
        back_up(old, tmp_path / "b.tar", Wanted(keys=False))
        yield old


def test_without_keys_it_asks_for_them(without_keys: Place, tmp_path: Path) -> None:
    with pytest.raises(KeysNeeded, match="no device trusts"):
        bring_back(tmp_path / "b.tar", tmp_path / "new")
    assert {entry.name for entry in tmp_path.iterdir()} == {"old", "b.tar"}


def test_the_old_keys_folder_or_another_backup_gives_them(without_keys: Place, tmp_path: Path) -> None:
    back_up(without_keys, tmp_path / "keys.tar", Wanted(blobs=False, keys=True))
    for number, keys in enumerate((without_keys.workspace.keys, tmp_path / "keys.tar")):
        report = bring_back(tmp_path / "b.tar", tmp_path / f"new{number}", keys=keys)
        assert report.keys_restored
        with place(tmp_path / f"new{number}") as new:
            assert new.workspace.trusted_key == without_keys.workspace.trusted_key
            assert all(path.stat().st_mode & 0o777 == 0o600 for path in new.workspace.keys.iterdir())


def test_a_new_identity_is_another(without_keys: Place, tmp_path: Path) -> None:
    report = bring_back(tmp_path / "b.tar", tmp_path / "new", new_identity=True)
    assert not report.keys_restored
    with place(tmp_path / "new") as new:
        assert new.workspace.id == without_keys.workspace.id
        assert new.workspace.trusted_key != without_keys.workspace.trusted_key
        assert new.workspace.device_master != without_keys.workspace.device_master


def test_keys_of_another_workspace_are_refused(without_keys: Place, tmp_path: Path) -> None:
    with place(tmp_path / "other") as other, pytest.raises(KeysUnusable, match="another workspace"):
        bring_back(tmp_path / "b.tar", tmp_path / "new", keys=other.workspace.keys)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "signing.key").write_text("not base64!")
    with pytest.raises(KeysUnusable, match=r"devices\.key"):
        bring_back(tmp_path / "b.tar", tmp_path / "new", keys=tmp_path / "odd")
    (tmp_path / "odd" / "devices.key").write_text("")
    with pytest.raises(KeysUnusable):
        bring_back(tmp_path / "b.tar", tmp_path / "new", keys=tmp_path / "odd")
    assert not (tmp_path / "new").exists()


def test_tokens_can_be_revoked_but_those_of_devices(without_keys: Place, tmp_path: Path) -> None:
    report = bring_back(tmp_path / "b.tar", tmp_path / "new", keys=without_keys.workspace.keys, revoke_tokens=True)
    assert report.tokens_revoked == 1
    with place(tmp_path / "new") as new:
        assert {row["name"]: row["revoked_at"] is None for row in new.rows()["tokens"]} == {"ci": False, "pump": True}


# --- blobs -----------------------------------------------------------------------------------------------------------------


def test_what_is_lost_is_named_and_refused(tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        kept, damaged, missing = (old.put(content, f"{content!r}") for content in (b"kept", b"damaged", b"missing"))
        old.register("m", kept, damaged, missing)
        for entry, change in ((damaged, b"DAMAGED"), (missing, None)):
            path = old.workspace.blobs / "sha256" / entry.digest[7:9] / entry.digest[7:]
            path.unlink()
            if change is not None:
                path.write_bytes(change)
        end = back_up(old, tmp_path / "b.tar")
    assert {(lost.digest, lost.problem) for lost in end.lost} == {
        (damaged.digest, "its content is damaged"),
        (missing.digest, "it is missing"),
    }
    assert (end.blobs, end.blob_bytes) == (1, 4)
    with pytest.raises(BlobsLost, match="lacks the content of 2 blobs"):
        bring_back(tmp_path / "b.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert bring_back(tmp_path / "b.tar", tmp_path / "new", accept_lost=True).lost == end.lost
    with place(tmp_path / "new") as new:
        assert new.store.has(kept.digest)
        assert not new.store.has(damaged.digest)


def test_what_garbage_collection_was_about_to_delete_is_no_loss(tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        doomed, kept = old.put(b"doomed"), old.put(b"kept")
        old.register("m", kept)
        with old.database.write() as connection:
            garbage.condemn(connection, [garbage.Garbage(doomed.digest, 6)], NOW + timedelta(days=9))
        old.store.delete([doomed.digest])
        assert back_up(old, tmp_path / "b.tar").lost == []
    assert bring_back(tmp_path / "b.tar", tmp_path / "new").lost == []
    with place(tmp_path / "new") as new:
        assert [row["digest"] for row in new.rows()["blobs"]] == [kept.digest]


def test_contents_move_to_an_object_store_and_back(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.credentials.items():
        monkeypatch.setenv(name, value)
    with place(tmp_path / "old") as old:
        entry = old.put(bytes(range(256)) * 40_000)
        old.register("m", entry)
        back_up(old, tmp_path / "b.tar")
    with s3_server.bucket() as bucket:
        where = {"blobs_url": f"s3://{bucket.name}/contents", "blobs_endpoint": bucket.url}
        bring_back(tmp_path / "b.tar", tmp_path / "new", **where)
        assert not list((tmp_path / "new").rglob(entry.digest[7:]))
        store = open_store(tmp_path / "new" / "blobs", where["blobs_url"], where["blobs_endpoint"])
        with place(tmp_path / "new") as new:
            end = back_up(dataclasses.replace(new, store=store), tmp_path / "again.tar")
    assert (end.blobs, end.blob_bytes, end.lost) == (1, entry.size_bytes, [])


def test_secrets_come_back_with_the_keys(tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        with old.database.write() as connection:
            secrets_store.put(connection, Vault(old.workspace.keys), "token", "s3cret", by="me", now=NOW)
        back_up(old, tmp_path / "b.tar")
    bring_back(tmp_path / "b.tar", tmp_path / "new")
    with place(tmp_path / "new") as new, new.database.read() as connection:
        assert secrets_store.reveal(connection, Vault(new.workspace.keys), "token") == "s3cret"


def test_blobs_that_are_kept_elsewhere(tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        old.register("m", old.put(b"weights"))
        back_up(old, tmp_path / "b.tar", Wanted(blobs=False, keys=True))
    with pytest.raises(BlobsLost, match="lacks the content of 1"):
        bring_back(tmp_path / "b.tar", tmp_path / "new")
    report = bring_back(tmp_path / "b.tar", tmp_path / "new", blobs_url=f"file://{tmp_path}/old/blobs")
    assert (report.blobs, report.lost) == (0, [])


def test_backups_share_the_lease_that_keeps_blobs_and_wait_for_no_collection(tmp_path: Path) -> None:
    class Stopped:
        """Time does not pass."""

        def now(self) -> Any:
            return NOW

        def monotonic_s(self) -> float:
            return 0.0

    def gc_may_run(old: Place) -> bool:
        with old.database.write() as connection:
            lease = leases.acquire(connection, garbage.KEEP_LEASE, "gc", 60.0, NOW)
            if lease is not None:
                leases.release(connection, lease)
            return lease is not None

    with place(tmp_path / "old") as old:
        keeper = BlobKeeper(old.database, Stopped())
        keeper.begin()
        keeper.begin()
        keeper.end()
        assert not gc_may_run(old)
        keeper.renew()
        keeper.end()
        assert gc_may_run(old)
        with old.database.write() as connection:
            leases.acquire(connection, garbage.KEEP_LEASE, "gc 7", 60.0, NOW)
        with pytest.raises(BlobsBusy, match="gc 7"):
            keeper.begin()


# --- schemas of other days -------------------------------------------------------------------------------------------------


def write_archive(file: Path, header: BackupHeader, rows: dict[str, list[tuple[bytes, int]]]) -> None:
    """A backup as another Hedgerow would have written it."""
    data = io.BytesIO()

    def add(name: str, content: bytes) -> None:
        data.write(member_header(name, len(content)) + content + padding(len(content)))

    add("backup.json", encode(header))
    for name, members in rows.items():
        for number, (packed, _) in enumerate(members, start=1):
            add(f"{name}.{number:06}.jsonl.gz", packed)
    counts = {name: sum(count for _, count in members) for name, members in rows.items()}
    end = BackupEnd(rows=counts, blobs=0, blob_bytes=0, digest=NO_DIGEST)
    add("end.json", encode(signed_off(end, sha256(data.getvalue()))))
    file.write_bytes(data.getvalue() + END_OF_TAR)


def header(**changes: Any) -> BackupHeader:
    facts = BackupHeader(
        format=1,
        workspace_id="w",
        incarnation="i",
        hedgerow_version=hedgerow.__version__,
        revisions={"records": schema.RECORDS_PART.head, "series": schema.SERIES_PART.head},
        has_keys=False,
        has_blobs=True,
        created_at=NOW,
    )
    return msgspec.structs.replace(facts, **changes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_an_older_schema_are_migrated(tmp_path: Path, new_url: Callable[[str], str | None], backend: str) -> None:
    old = open_database(None, tmp_path)
    with old.write() as connection:
        schema.lay_out(connection, schema.RECORDS_PART, "records_0001", tmp_path)
        for statement in (
            "INSERT INTO facts VALUES ('workspace_id', 'w'), ('incarnation', 'i')",
            "INSERT INTO tokens (id, name, role, secret_hash, created_at) VALUES ('t', 'ci', 'owner', 'h', '2026-01-01')",
        ):
            connection.execute(text(statement))
        tables = MetaData()
        tables.reflect(connection, only=lambda name, _: not name.startswith("schema_version"))
        rows = {f"records/{table.name}": list(dump(connection, table)) for table in tables.sorted_tables}
    old.close()
    revisions = {"records": "records_0001", "series": schema.SERIES_PART.head}
    write_archive(tmp_path / "b.tar", header(revisions=revisions), {name: found for name, found in rows.items() if found})
    url = new_url(backend)

    bring_back(tmp_path / "b.tar", tmp_path / "new", database_url=url, new_identity=True)

    with place(tmp_path / "new", url) as new:
        assert [(row["id"], row["scopes"]) for row in new.rows()["tokens"]] == [("t", "[]")]


@pytest.mark.parametrize(
    "changes",
    [
        {"revisions": {"records": "records_9999", "series": schema.SERIES_PART.head}},
        {"revisions": {}},
        {"format": 2},
        {"schema_version": 2},
    ],
    ids=str,
)
def test_what_a_newer_one_wrote_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_archive(tmp_path / "b.tar", header(**changes), {})
    with pytest.raises(BackupTooNew):
        bring_back(tmp_path / "b.tar", tmp_path / "new", new_identity=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"b.tar"}


# --- where to --------------------------------------------------------------------------------------------------------------


def test_only_into_nothing(without_keys: Place, tmp_path: Path, new_url: Callable[[str], str | None]) -> None:
    keys = without_keys.workspace.keys
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "full", tmp_path / "file", tmp_path / "old"):
        with pytest.raises(TargetNotEmpty):
            bring_back(tmp_path / "b.tar", target, keys=keys)
    url = new_url("postgresql")
    (tmp_path / "empty").mkdir()
    bring_back(tmp_path / "b.tar", tmp_path / "empty", keys=keys, database_url=url)
    with pytest.raises(TargetNotEmpty, match="The database"):
        bring_back(tmp_path / "b.tar", tmp_path / "again", keys=keys, database_url=url)
    assert not (tmp_path / "again").exists()
