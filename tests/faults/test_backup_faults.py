"""Backups that are cut off, changed or made to do harm; full disks; kill -9; many rows; everything at once."""

from __future__ import annotations

import functools
import gzip
import io
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from hedgerow.clock import SystemClock
from hedgerow.contracts.backup import BackupEnd
from hedgerow.contracts.backup_archive import BackupDamaged, BackupTooNew, member_header, read_members, signed_off
from hedgerow.contracts.document import encode
from hedgerow.errors import HedgerowError
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from hedgerow.tar_headers import END_OF_TAR, padding
from registry.backup.errors import RestoreUnderWay, TargetIsMount
from registry.backup.keep import BlobKeeper
from registry.backup.write import Backup, Wanted
from registry.blobs.errors import StorageUnavailable
from registry.errors import DatabaseUnavailable
from registry.store.tables import messages
from tests.backup_builders import Place, back_up, bring_back, place
from tests.fixtures.control_plane import ControlPlane
from tests.fixtures.real_process import RealProcess
from tests.registry_everything import Everything
from tests.registry_stores import NOW
from tests.small_disk import small_disk
from tests.waiting import wait_for

REFUSED = (BackupDamaged, BackupTooNew)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup with keys, of a workspace with something of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    with place(folder / "old") as old:
        Everything(old.database, NOW)
        for row in old.rows()["blobs"]:
            forget(old, row["digest"])
        old.register("m", old.put(random.Random(3).randbytes(400_000)), old.put(b"", "empty"))
        back_up(old, folder / "b.tar")
    return (folder / "b.tar").read_bytes()


def forget(old: Place, digest: str) -> None:
    """Everything's blobs are rows only; give the row to content that there is."""
    content = old.put(digest.encode(), digest)
    with old.database.write() as connection:
        for table in ("model_files", "image_blobs", "run_blobs"):
            connection.exec_driver_sql(f"UPDATE {table} SET digest = ? WHERE digest = ?", (content.digest, digest))
        connection.exec_driver_sql("DELETE FROM blobs WHERE digest = ?", (digest,))


def members_of(archive: bytes) -> tuple[list[tuple[str, bytes]], BackupEnd]:
    members: list[tuple[str, bytes]] = []
    for member in read_members(io.BytesIO(archive), "b"):
        if isinstance(member, BackupEnd):
            return members, member
        members.append((member.name, member.read()))
    raise AssertionError("an archive without an end")


def archive_of(members: list[tuple[str, bytes]], end: BackupEnd) -> bytes:
    """Signed off as it should be: what is wrong with it lies deeper."""
    data = b"".join(member_header(name, len(content)) + content + padding(len(content)) for name, content in members)
    last = encode(signed_off(end, sha256(data)))
    return data + member_header("end.json", len(last)) + last + padding(len(last)) + END_OF_TAR


@contextmanager
def refused_whole(folder: Path, error: type[Exception] | tuple[type[Exception], ...]) -> Iterator[Path]:
    """The restore of ``b.tar`` raises ``error`` and leaves nothing."""
    (folder / "b.tar").unlink(missing_ok=True)
    with pytest.raises(error):
        yield folder / "b.tar"
    assert {entry.name for entry in folder.iterdir()} == {"b.tar"}


def test_the_whole_one_is_taken(whole: bytes, tmp_path: Path) -> None:
    """Or all refusals below would prove nothing."""
    (tmp_path / "b.tar").write_bytes(whole)
    bring_back(tmp_path / "b.tar", tmp_path / "new")
    (tmp_path / "b.tar").write_bytes(archive_of(*members_of(whole)))
    bring_back(tmp_path / "b.tar", tmp_path / "again")


def test_cut_off_anywhere(whole: bytes, tmp_path: Path) -> None:
    for length in [0, 1, 511, 512, 1024, len(whole) - 512, len(whole) - 1, *random.Random(1).sample(range(len(whole)), 10)]:
        with refused_whole(tmp_path, BackupDamaged) as file:
            file.write_bytes(whole[:length])
            bring_back(file, tmp_path / "new")


def test_flipped_anywhere(whole: bytes, tmp_path: Path) -> None:
    for at in random.Random(2).sample(range(len(whole)), 15):
        with refused_whole(tmp_path, REFUSED) as file:
            changed = bytearray(whole)
            changed[at] ^= 0x10
            file.write_bytes(changed)
            bring_back(file, tmp_path / "new")


def packed(*rows: object) -> bytes:
    return gzip.compress(b"".join(msgspec.json.encode(row) + b"\n" for row in rows), mtime=0)


ENDPOINT = {"name": "e", "revision": 1, "traffic": "{}", "scoring_url": None, "created_at": ""}

ALIAS = {"name": "nobody", "alias": "a", "version": 7, "protected": 0, "revision": 1, "updated_at": "", "updated_by": ""}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("records/sqlite_master.000001.jsonl.gz", packed({"name": "x"})),
        ("records/messages.000001.jsonl.gz", packed({})),
        ("records/schema_version_records.000001.jsonl.gz", packed({"version_num": "x"})),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT | {"more": 1})),
        ("records/endpoints.000009.jsonl.gz", packed({"name": "e"})),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT | {"revision": "1"})),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT | {"revision": 2**70})),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT | {"revision": None})),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT, ENDPOINT)),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT)[:-4]),
        ("records/endpoints.000009.jsonl.gz", packed(ENDPOINT) + b"x"),
        ("records/endpoints.000009.jsonl.gz", gzip.compress(b"{}", mtime=0)),
        ("records/endpoints.000009.jsonl.gz", gzip.compress(b"[" * 100_000 + b"\n", mtime=0)),
        ("records/endpoints.000009.jsonl.gz", gzip.compress(bytes(200 << 20), 1, mtime=0)),
        ("records/endpoints.000009.jsonl.gz", b"no gzip"),
        ("records/model_aliases.000001.jsonl.gz", packed(ALIAS)),
        ("series/watermarks.000009.jsonl.gz", packed({"device_uuid": 1})),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(whole: bytes, tmp_path: Path, name: str, content: bytes) -> None:
    members, end = members_of(whole)
    first_later = next(at for at, (other, _) in enumerate(members) if other.startswith(("series/", "blobs/")[name[0] == "s" :]))
    members.insert(first_later, (name, content))
    table = name.partition(".")[0]
    end = msgspec.structs.replace(end, rows=end.rows | {table: end.rows.get(table, 0) + 1})
    with refused_whole(tmp_path, BackupDamaged) as file:
        file.write_bytes(archive_of(members, end))
        bring_back(file, tmp_path / "new")


def test_rows_that_leave_no_room_for_more(whole: bytes, tmp_path: Path) -> None:
    """What a restore adds of its own (an event that says "interrupted") must not end in a traceback."""
    members, end = members_of(whole)
    at, (name, content) = next((at, one) for at, one in enumerate(members) if one[0].startswith("records/activity_events."))
    first, *others = map(msgspec.json.decode, gzip.decompress(content).splitlines())
    members[at] = (name, packed(first | {"number": 2**63 - 1}, *others))
    with refused_whole(tmp_path, BackupDamaged) as file:
        file.write_bytes(archive_of(members, end))
        bring_back(file, tmp_path / "new")


def test_what_the_end_counts_must_be_there(whole: bytes, tmp_path: Path) -> None:
    members, end = members_of(whole)
    blobs = [at for at, (name, _) in enumerate(members) if name.startswith("blobs/")]
    rows = next(at for at, (name, _) in enumerate(members) if name.startswith("series/"))
    foreign = sha256(b"foreign").hexdigest()
    less = members[: blobs[0]] + members[blobs[1] :]
    fewer = {"blobs": end.blobs - 1, "blob_bytes": end.blob_bytes - len(members[blobs[0]][1])}
    wrong = [*members[: blobs[0]], (members[blobs[0]][0], b"X" * len(members[blobs[0]][1])), *members[blobs[1] :]]
    for changed, changes in (
        (members[:rows] + members[rows + 1 :], {}),
        (less, {}),
        (less, fewer),
        (wrong, {}),
        (wrong, fewer),
        (sorted([*members[blobs[0] :], (f"blobs/sha256/{foreign[:2]}/{foreign}", b"foreign")]), {}),
        (members, {"rows": end.rows | {"records/tokens": 7}}),
        (members, {"blobs": 99}),
    ):
        found = changed if changed[0][0] == "backup.json" else members[: blobs[0]] + changed
        with refused_whole(tmp_path, BackupDamaged) as file:
            file.write_bytes(archive_of(found, msgspec.structs.replace(end, **changes)))
            bring_back(file, tmp_path / "new")


# --- full disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["100k", "600k", "4m"])
def test_restoring_onto_a_full_disk(tmp_path: Path, size: str) -> None:
    with place(tmp_path / "old") as old:
        add_messages(old, 20_000)
        old.register("m", old.put(os.urandom(3_000_000)))
        back_up(old, tmp_path / "b.tar")
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(HedgerowError) as caught:
            bring_back(tmp_path / "b.tar", disk / "new")
        assert "full" in str(caught.value) or "No space" in str(caught.value)
        assert list(disk.iterdir()) == []
        with pytest.raises(TargetIsMount):
            bring_back(tmp_path / "b.tar", disk)
    assert not (tmp_path / ".disk.restoring").exists()


def test_backing_up_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, place(disk / "w") as full:
        add_messages(full, 1000, size=4000)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(65536))
        os.truncate(filler, filler.stat().st_size - 1_000_000)
        keeper = BlobKeeper(full.database, SystemClock())
        with pytest.raises((OSError, DatabaseUnavailable, StorageUnavailable)):
            Backup(full.source, Wanted(), keeper, NOW)
        assert list(full.workspace.work.iterdir()) == []
        filler.unlink()
        back_up(full, tmp_path / "b.tar")
    bring_back(tmp_path / "b.tar", tmp_path / "new")


def test_a_backup_that_does_not_fit_leaves_nothing(control_plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(os.urandom(3_000_000))
    with control_plane.client() as client, small_disk(tmp_path / "disk", "2m") as disk:
        client.models.register("m", tmp_path / "m.bin")
        with pytest.raises(OSError, match="No space"):
            client.backups.save(disk / "b.tar")
        assert list(disk.iterdir()) == []


# --- kill -9 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_killed_restore_is_simply_repeated(whole: bytes, tmp_path: Path, backend: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if backend == "postgresql" else None
    file, pipe, target = tmp_path / "b.tar", tmp_path / "pipe", tmp_path / "new"
    file.write_bytes(whole)
    os.mkfifo(pipe)
    env = {"HEDGEROW_DATABASE": url} if url else {}
    argv = [sys.executable, "-P", "-m", "registry.backup", str(pipe), "--workspace", str(target)]
    for share in (0.4, 0.99):
        process = RealProcess(argv, log=tmp_path / "restore.log", env=env).start()
        try:
            with pipe.open("wb", buffering=0) as feed:
                # More than a pipe holds: when it is written the other end is well under way.
                feed.write(whole[: int(len(whole) * share)])
                with pytest.raises(RestoreUnderWay):
                    bring_back(file, target)
                process.kill()
        finally:
            process.stop()
        assert (tmp_path / ".new.restoring").is_dir()
        assert not target.exists()
    bring_back(file, target, database_url=url)
    with place(target, url) as new:
        assert len(new.rows()["messages"]) == 12
    assert not (tmp_path / ".new.restoring").exists()


def test_killed_between_the_commit_and_the_rename(whole: bytes, tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "b.tar").write_bytes(whole)
    report = bring_back(tmp_path / "b.tar", tmp_path / "new", database_url=postgres_url)
    (tmp_path / "new").rename(tmp_path / ".new.restoring")
    (tmp_path / ".new.restoring" / "restored.json").write_bytes(encode(report))

    assert bring_back(tmp_path / "b.tar", tmp_path / "new", database_url=postgres_url) == report

    with place(tmp_path / "new", postgres_url) as new:
        assert {row["value"] for row in new.rows()["facts"]} == {report.workspace_id, report.incarnation}
    assert not (tmp_path / "new" / "restored.json").exists()


# --- much, and all at once -------------------------------------------------------------------------------------------------


def add_messages(to: Place, count: int, size: int = 100) -> None:
    """Of one stream, with bodies that cannot be compressed to much less than half of ``size``."""
    rows = []
    for number in range(count):
        times = {"time_ms": number, "received_ms": number}
        key = {"device_uuid": "d", "epoch": "e", "stream": "s", "sequence": number}
        rows.append(key | times | {"module": "m", "body": os.urandom(size // 2).hex()})
    with to.database.write_series() as connection:
        connection.execute(messages.insert(), rows)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Peak memory of a process that backs up and restores 200 000 rows, beside one with 2 000."""
    peaks: dict[int, list[int]] = {}
    for count in (2_000, 200_000):
        with place(tmp_path / f"w{count}") as big:
            add_messages(big, count, size=400)
            big.register("m", big.put(bytes(64_000_000 if count > 2_000 else 1)))
        peaks[count] = [peak_kb(work, tmp_path, count) for work in (_back_up_only, _restore_only)]
    for small, large in zip(*peaks.values(), strict=True):
        assert large - small < 60_000, peaks


def _back_up_only(folder: Path, count: int) -> None:
    with place(folder / f"w{count}") as big:
        back_up(big, folder / f"{count}.tar")


def _restore_only(folder: Path, count: int) -> None:
    bring_back(folder / f"{count}.tar", folder / f"new{count}")


def peak_kb(work: Callable[[Path, int], None], folder: Path, count: int) -> int:
    # VmHWM and not ru_maxrss: that one begins with what the process had before its exec, which is these tests' own memory.
    code = (
        f"import re; from pathlib import Path; from tests.faults.test_backup_faults import {work.__name__} as work;"
        f"work(Path({str(folder)!r}), {count}); print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_while_everything_goes_on(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Registrations, deletions and collections beside two backups at once; each backup restores, whole."""
    stop = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        busy = [pool.submit(register_on, control_plane, tmp_path / f"m{number}", stop) for number in range(3)]
        busy.append(pool.submit(collect_on, control_plane, stop))
        try:
            saving = [pool.submit(save_two, control_plane, tmp_path / f"b{number}") for number in range(2)]
            files = [file for done in saving for file in done.result(150)]
        finally:
            stop.set()
        assert all(done.result(60) > 0 for done in busy)
    for file in files:
        report = bring_back(file, tmp_path / file.stem)
        assert report.lost == []
        with place(tmp_path / file.stem) as new:
            rows = new.rows()
            assert all(new.store.has(row["digest"]) for row in rows["model_files"])
            assert len(rows["model_files"]) == len(rows["model_versions"]) > 0


def register_on(plane: ControlPlane, source: Path, stop: threading.Event) -> int:
    """Register one version after the other, and delete every second; how many there were."""
    with plane.client() as client:
        count = 0
        while not stop.is_set():
            source.write_bytes(os.urandom(20_000))
            made = client.models.register(source.name, source)
            count += 1
            if count % 2 == 0:
                client.models.delete(f"{made.name}:{made.version}")
        return count


def collect_on(plane: ControlPlane, stop: threading.Event) -> int:
    with plane.client() as client:
        count = 1
        client.blobs.collect_garbage()
        while not stop.wait(0.5):
            client.blobs.collect_garbage()
            count += 1
        return count


def save_two(plane: ControlPlane, stem: Path) -> list[Path]:
    files = [stem.with_name(f"{stem.name}-{count}.tar") for count in range(2)]
    with plane.client() as client:
        wait_for(lambda: client.models.list().items, timeout_s=30, what="the first models")
        for file in files:
            wait_for(functools.partial(was_saved, client, file), timeout_s=60, what="a backup beside collections")
    return files


def was_saved(client: Client, file: Path) -> bool:
    try:
        client.backups.save(file, keys=True)
    except ApiError as problem:
        if problem.problem.code != "blobs_busy":
            raise
        return False
    return True
