"""The vault: what it seals, it opens, and nothing else does; its keys change without a value being lost at any step."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from registry.errors import RecordNotFound, VaultKeyMissing, VaultRingUnreadable, VaultValueDamaged
from registry.store import secrets
from registry.store.database import Database
from registry.store.tables import secrets as secrets_table
from registry.store.tables import webhooks
from registry.store.time_text import to_text
from registry.vault import Sealed, Vault
from tests.registry_stores import BACKENDS, NOW, ready_database

VALUE = "correct horse battery staple"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "keys")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as ready:
        yield ready


def test_what_is_sealed_opens(vault: Vault) -> None:
    first, second = (vault.seal("secret/a", b"value") for _ in range(2))
    assert vault.open("secret/a", first) == vault.open("secret/a", second) == b"value"
    assert first.data != second.data, "equal values must not look equal"
    assert b"value" not in first.data
    assert vault.open("secret/empty", vault.seal("secret/empty", b"")) == b""


def test_the_ring_is_for_its_owner_only(vault: Vault) -> None:
    assert vault.key_ids() == []
    vault.seal("secret/a", b"value")
    assert vault.path.stat().st_mode & 0o777 == 0o600
    vault.add_key()
    assert vault.path.stat().st_mode & 0o777 == 0o600
    assert len(vault.key_ids()) == 2


def test_a_value_is_bound_to_its_record_its_key_and_its_bytes(vault: Vault) -> None:
    sealed = vault.seal("secret/a", b"value")
    vault.add_key()
    other_key = vault.key_ids()[-1]
    for name, changed in (
        ("secret/b", sealed),
        ("webhook/a", sealed),
        ("secret/a", Sealed(other_key, sealed.data)),
        ("secret/a", Sealed(sealed.key_id, sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))),
        ("secret/a", Sealed(sealed.key_id, sealed.data[:5])),
        ("secret/a", Sealed(sealed.key_id, b"")),
    ):
        with pytest.raises(VaultValueDamaged):
            vault.open(name, changed)


def test_a_missing_key_is_a_sentence_with_a_remedy(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal("secret/a", b"value")
    stranger = Vault(tmp_path / "other")
    for ring in ("none", "another"):
        with pytest.raises(VaultKeyMissing) as caught:
            stranger.open("secret/a", sealed)
        assert sealed.key_id in str(caught.value), ring
        assert "vault.keys" in caught.value.advice
        stranger.seal("secret/x", b"makes the ring")


@pytest.mark.parametrize("damage", ["", "{}", '{"keys":[]}', "not json", "halved", "swapped"])
def test_a_damaged_ring_is_a_sentence_without_the_keys(vault: Vault, damage: str) -> None:
    sealed = vault.seal("secret/a", b"value")
    whole = vault.path.read_text()
    key = json.loads(whole)["keys"][0]["key"]
    if damage == "halved":
        damage = whole[: len(whole) // 2]
    elif damage == "swapped":
        damage = whole.replace(key, base64.b64encode(bytes(32)).decode())
    vault.path.write_text(damage)
    for use in (lambda: vault.open("secret/a", sealed), lambda: vault.seal("secret/a", b"x"), vault.add_key):
        with pytest.raises(VaultRingUnreadable) as caught:
            use()
        assert key[:10] not in caught.value.sentence()


_SEAL_WHEN_TOLD = """
import sys
from pathlib import Path
from registry.vault import Vault
print("ready", flush=True)
sys.stdin.readline()
print(Vault(Path(sys.argv[1])).seal("secret/a", b"v").key_id, flush=True)
"""


def test_processes_that_begin_at_once_end_with_one_key(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _SEAL_WHEN_TOLD, str(tmp_path / "keys")]
    started = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        assert all(process.stdout is not None and process.stdout.readline() == "ready\n" for process in started)
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        used = {process.communicate(timeout=30)[0].strip() for process in started}
    finally:
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
    assert used == set(Vault(tmp_path / "keys").key_ids())
    assert len(used) == 1


def fill(database: Database, vault: Vault) -> None:
    with database.write() as connection:
        for number in range(3):
            secrets.put(connection, vault, f"s{number}", f"{VALUE} {number}", by="owner:me:1", now=NOW)
        sealed = secrets.seal(connection, vault, "webhook/hook", b"hook key")
        connection.execute(
            webhooks.insert().values(
                name="hook",
                url="https://example.com",
                state="active",
                key_id=sealed.key_id,
                sealed_secret=sealed.data,
                after_transaction=0,
                after_number=0,
                created_at=to_text(NOW),
            )
        )


def check_everything_opens(database: Database, vault: Vault) -> None:
    with database.read() as connection:
        assert [secrets.reveal(connection, vault, f"s{number}") for number in range(3)] == [f"{VALUE} {n}" for n in range(3)]
        row = connection.execute(select(webhooks)).one()
        assert vault.open("webhook/hook", Sealed(row.key_id, row.sealed_secret)) == b"hook key"


def key_ids_in_use(connection: Connection) -> set[str]:
    used = {row.key_id for row in connection.execute(select(secrets_table))}
    return used | {row.key_id for row in connection.execute(select(webhooks))}


def rotate(database: Database, vault: Vault) -> str:
    with database.write() as connection:
        done = secrets.seal_anew(connection, vault)
    with database.write() as connection:
        secrets.forget_old_keys(connection, vault)
    return done.key_id


def test_secrets_in_the_store(database: Database, vault: Vault) -> None:
    fill(database, vault)
    with database.write() as connection:
        again = secrets.put(connection, vault, "s1", "other", by="owner:me:2", now=NOW)
        assert (again.revision, again.updated_by) == (2, "owner:me:2")
        assert secrets.reveal(connection, vault, "s1") == "other"
        secrets.remove(connection, "s0")
        for refused in (secrets.get, secrets.remove):
            with pytest.raises(RecordNotFound):
                refused(connection, "s0")
        first, following = secrets.page(connection, 1)
        rest, end = secrets.page(connection, 5, following)
    assert [one.name for one in (*first, *rest)] == ["s1", "s2"]
    assert end is None


def test_nothing_in_the_database_shows_a_value(tmp_path: Path, vault: Vault) -> None:
    with ready_database(tmp_path / "workspace", None) as database:
        fill(database, vault)
    for path in (tmp_path / "workspace").rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes(), path


def test_a_change_of_keys(database: Database, vault: Vault) -> None:
    fill(database, vault)
    old = vault.key_ids()
    made = rotate(database, vault)
    assert vault.key_ids() == [made]
    assert made not in old
    check_everything_opens(database, vault)
    with database.read() as connection:
        assert key_ids_in_use(connection) == {made}


def test_a_value_that_does_not_open_stops_the_change_before_anything_happens(database: Database, vault: Vault) -> None:
    fill(database, vault)
    before = vault.path.read_bytes()
    with database.write() as connection:
        connection.execute(secrets_table.update().where(secrets_table.c.name == "s2").values(key_id="0" * 16))
    with pytest.raises(VaultKeyMissing):
        rotate(database, vault)
    assert vault.path.read_bytes() == before
    with database.read() as connection:
        assert secrets.reveal(connection, vault, "s0") == f"{VALUE} 0"


class StopsAt(Vault):
    """A vault whose process dies, or fails, at one step of a change of keys."""

    step = ""
    dies = False

    def _maybe(self, step: str) -> None:
        if step == self.step:
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, "No space left on device")

    def add_key(self) -> str:
        self._maybe("before the ring is written")
        made = super().add_key()
        self._maybe("after the ring is written")
        return made

    def seal(self, name: str, value: bytes) -> Sealed:
        if name == "webhook/hook":
            self._maybe("before the last value")
        return super().seal(name, value)

    def keep_keys(self, used: object) -> None:
        self._maybe("after the commit")
        super().keep_keys(used)  # type: ignore[arg-type]  # what it was given
        self._maybe("after the old keys went")


STEPS = (
    "before the ring is written",
    "after the ring is written",
    "before the last value",
    "before the commit",
    "after the commit",
    "after the old keys went",
)


def rotate_and_stop(database: Database, folder: Path, step: str, *, dies: bool) -> None:
    stopping = type("Stopping", (StopsAt,), {"step": step, "dies": dies})(folder)
    with database.write() as connection:
        secrets.seal_anew(connection, stopping)
        stopping._maybe("before the commit")
    with database.write() as connection:
        secrets.forget_old_keys(connection, stopping)


@pytest.mark.parametrize("step", STEPS)
def test_a_change_of_keys_may_fail_at_any_step(database: Database, vault: Vault, step: str) -> None:
    fill(database, vault)
    with pytest.raises(OSError, match="No space left"):
        rotate_and_stop(database, vault.folder, step, dies=False)
    check_everything_opens(database, vault)
    made = rotate(database, vault)
    assert vault.key_ids() == [made]
    check_everything_opens(database, vault)


_ROTATE_AND_DIE = """
import sys
from pathlib import Path
from tests.integration.test_vault import rotate_and_stop
from registry.store.database import open_database
workspace, keys, step = sys.argv[1:]
rotate_and_stop(open_database(None, Path(workspace)), Path(keys), step, dies=True)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_change_of_keys_may_be_killed_at_any_step(tmp_path: Path, vault: Vault, step: str) -> None:
    with ready_database(tmp_path / "workspace", None) as database:
        fill(database, vault)
    argv = [sys.executable, "-c", _ROTATE_AND_DIE, str(tmp_path / "workspace"), str(vault.folder), step]
    assert subprocess.run(argv, timeout=60, check=False, capture_output=True).returncode == -signal.SIGKILL
    with ready_database(tmp_path / "workspace", None) as database:
        check_everything_opens(database, vault)
        made = rotate(database, vault)
        assert vault.key_ids() == [made]
        check_everything_opens(database, vault)


def test_secrets_are_set_and_read_while_keys_change(database: Database, vault: Vault) -> None:
    fill(database, vault)
    done, problems = threading.Event(), list[Exception]()
    rounds = {"set": 0, "read": 0}

    def repeat(kind: str) -> None:
        while not done.is_set() and not problems:
            try:
                if kind == "set":
                    with database.write() as connection:
                        secrets.put(connection, vault, f"t{rounds[kind] % 5}", VALUE, by="owner:me:1", now=NOW)
                else:
                    with database.read() as connection:
                        assert secrets.reveal(connection, vault, f"s{rounds[kind] % 3}").startswith(VALUE)
                rounds[kind] += 1
            except Exception as problem:  # noqa: BLE001 - whatever a thread meets is told by the test
                problems.append(problem)

    threads = [threading.Thread(target=repeat, args=(kind,)) for kind in rounds]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            rotate(database, vault)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not problems, problems[0]
    assert min(rounds.values()) > 0
    with database.read() as connection:
        for row in connection.execute(select(secrets_table.c.name)):
            assert secrets.reveal(connection, vault, row.name).startswith(VALUE)
        assert key_ids_in_use(connection) <= set(vault.key_ids())
