"""Files into a workspace and out of it again, through the SDK and a real server: parallel, resumed, checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from hedgerow.contracts.model import FileEntry
from hedgerow.sdk import downloads
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError, FileChanged, NotARegularFile
from hedgerow.sdk.files import collect
from hedgerow.sdk.transport import Transport
from registry.blobs import CHUNK_BYTES
from tests.registry_server import RunningServer, problem_of, running_server
from tests.registry_stores import digest_of_text

OCTETS = {"content-type": "application/octet-stream"}
LARGE = downloads.LARGE_BYTES + 3 * CHUNK_BYTES + 77


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as opened:
        yield opened


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def blob_file(server: RunningServer, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    return server.workspace / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal


def rot(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


def test_a_folder_comes_back_as_it_was(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "m"
    (source / "deep").mkdir(parents=True)
    for number in range(700):
        (source / "deep" / f"{number}.txt").write_text(f"small {number % 600}")
    (source / "empty").touch()
    (source / "medium.bin").write_bytes(os.urandom(3 * CHUNK_BYTES + 1))
    (source / "large.bin").write_bytes(os.urandom(LARGE))
    told: list[tuple[int, int]] = []
    manifest = client.models.register("folder", source)
    paths = client.models.download("folder", tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert len(paths) == len(manifest.files) == 703
    for entry in manifest.files:
        assert (tmp_path / "out" / entry.path).read_bytes() == (source / entry.path).read_bytes()
    total = sum(entry.size_bytes for entry in manifest.files)
    assert told[-1] == (total, total)
    assert leftovers(tmp_path / "out") == []


def test_only_what_is_missing_is_sent_and_progress_says_so(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(500_000))
    (tmp_path / "b").write_bytes(os.urandom(10))
    (tmp_path / "c").write_bytes((tmp_path / "b").read_bytes())
    found = collect([tmp_path])
    told: list[tuple[int, int]] = []
    assert upload_missing(client.transport, found, lambda done, total: told.append((done, total))) == 500_010
    assert told[-1] == (500_010, 500_010)
    assert upload_missing(client.transport, found) == 0


def test_a_server_that_knows_neither_batches_nor_missing_is_asked_for_each(client: Client, tmp_path: Path) -> None:
    class Older(Transport):
        def send(self, method: str, path: str, *rest: object, **more: object) -> object:  # type: ignore[override]  # passed on
            old = path.replace("/missing", "/missing/not").replace("/batch", "/batch/not")
            return super().send(method, old, *rest, **more)  # type: ignore[arg-type]  # passed on

    transport = Older(client.transport.base_url, client.transport.token)
    (tmp_path / "f").write_bytes(os.urandom(100))
    assert upload_missing(transport, collect([tmp_path / "f"])) == 100
    assert upload_missing(transport, collect([tmp_path / "f"])) == 0
    transport.close()


def test_a_file_that_changes_after_it_was_hashed_registers_nothing(client: Client, tmp_path: Path) -> None:
    for size in (10, 400_000):
        path = tmp_path / f"f{size}"
        path.write_bytes(os.urandom(size))
        found = collect([path])
        path.write_bytes(os.urandom(size))
        with pytest.raises(FileChanged, match=path.name):
            upload_missing(client.transport, found)
        # The clock of some file systems is coarse: then the server sees that the content is another one.
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, found[0].seen.written_ns))
        with pytest.raises(FileChanged, match=path.name):
            upload_missing(client.transport, found)
        assert client.transport.exists(f"/api/v1/blobs/{found[0].entry.digest}") is False


def test_an_interrupted_download_goes_on_where_it_was(client: Client, server: RunningServer, tmp_path: Path) -> None:
    source, out = tmp_path / "large.bin", tmp_path / "out"
    source.write_bytes(os.urandom(LARGE))
    client.models.register("interrupted", source)
    program = (
        "import sys; from hedgerow.sdk.client import Client; from hedgerow.sdk.transport import Transport\n"
        "def tell(done, total):\n"
        "    if done > total // 2: print('half', flush=True); sys.stdin.read()\n"
        "Client(Transport(sys.argv[1], sys.argv[2])).models.download('interrupted', sys.argv[3], progress=tell)"
    )
    argv = [sys.executable, "-c", program, server.url, server.owner_token, str(out)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (out / "large.bin").exists()
    (part,) = out.glob(".large.bin.*.part")
    rot(part, 5)
    sent: list[int] = []
    client.models.download("interrupted", out, progress=lambda done, _total: sent.append(done))
    assert (out / "large.bin").read_bytes() == source.read_bytes()
    assert leftovers(out) == []
    assert sent[0] > CHUNK_BYTES, "nothing of the first attempt was used"


def test_ctrl_c_leaves_a_part_that_can_be_continued(client: Client, server: RunningServer, tmp_path: Path) -> None:
    source, out = tmp_path / "large.bin", tmp_path / "out"
    source.write_bytes(os.urandom(LARGE))
    client.models.register("ctrl-c", source)
    program = (
        "import os, signal, sys; from hedgerow.sdk.client import Client; from hedgerow.sdk.transport import Transport\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests that run in the background are deaf to it
        "def tell(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "try: Client(Transport(sys.argv[1], sys.argv[2])).models.download('ctrl-c', sys.argv[3], progress=tell)\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    argv = [sys.executable, "-c", program, server.url, server.owner_token, str(out)]
    ended = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert ended.stdout == b"interrupted\n", ended.stderr
    assert [path.name for path in out.iterdir()] == leftovers(out)
    assert len(leftovers(out)) == 1
    client.models.download("ctrl-c", out)
    assert (out / "large.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [1000, 2 * CHUNK_BYTES, LARGE])
def test_damage_in_the_workspace_is_told_and_nothing_is_left(
    client: Client, server: RunningServer, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(os.urandom(size))
    manifest = client.models.register(f"damaged-{size}", source)
    rot(blob_file(server, manifest.files[0].digest), size - 1)
    with pytest.raises(ApiError) as refused:
        client.models.download(f"damaged-{size}", tmp_path / "out")
    assert refused.value.problem.code == "blob_damaged"
    assert not (tmp_path / "out" / "m.bin").exists()


def test_a_download_stays_in_its_folder(client: Client, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "deep").symlink_to(outside)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x").write_bytes(b"x")
    wanted = [downloads.Wanted("/nowhere", FileEntry(path="deep/x", digest=digest_of(b"x"), size_bytes=1))]
    with pytest.raises(NotARegularFile, match="leaves its folder"):
        downloads.download_all(client.transport, wanted, out)
    assert list(outside.iterdir()) == []


# --- the routes themselves ------------------------------------------------------------------------------------------------


def frame(*contents: bytes) -> bytes:
    return b"".join(sha256(one).digest() + len(one).to_bytes(8, "big") + one for one in contents)


def test_a_batch_is_stored_whole_or_refused(server: RunningServer) -> None:
    with server.client() as api:
        answered = api.post("/api/v1/blobs/batch", content=frame(b"one", b"", b"two", b"two"), headers=OCTETS)
        assert answered.status_code == 201, answered.text
        assert (answered.json()["count"], answered.json()["size_bytes"]) == (3, 6)
        for content in (b"one", b"", b"two"):
            assert api.get(f"/api/v1/blobs/{digest_of(content)}").content == content
        lying = frame(b"good one") + sha256(b"this").digest() + (4).to_bytes(8, "big") + b"that"
        for body, code in (
            (lying, "digest_mismatch"),
            (frame(b"cut")[:-1], "malformed_request"),
            (frame(b"x") + b"tail", "malformed_request"),
            (b"", "malformed_request"),
            (b"x" * 32 + (2**63).to_bytes(8, "big"), "document_too_large"),
            (b"x" * 32 + (5 << 20).to_bytes(8, "big"), "document_too_large"),
        ):
            assert problem_of(api.post("/api/v1/blobs/batch", content=body, headers=OCTETS))["code"] == code
        assert api.head(f"/api/v1/blobs/{digest_of(b'good one')}").status_code == 404
        reader = api.token("reader")
    with server.client(reader) as api:
        assert api.post("/api/v1/blobs/batch", content=frame(b"one"), headers=OCTETS).status_code == 403
        assert api.post("/api/v1/blobs/missing", json={"digests": [digest_of(b"one")]}).status_code == 403
        assert api.post("/api/v1/gc", json={}).status_code == 403
    assert list((server.workspace / "blobs" / "uploads").iterdir()) == []


def test_what_is_missing(server: RunningServer) -> None:
    with server.client() as api:
        here, gone, never = api.upload(b"here").digest, api.upload(b"gone").digest, digest_of_text("never")
        body = {"digests": [never, here, never]}
        assert api.post("/api/v1/blobs/missing", json=body).json() == {"missing": [never]}
        # Whoever holds a lease was told that it is there; afterwards a look costs little (tests of a lease of 0 s below).
        blob_file(server, gone).unlink()
        assert api.post("/api/v1/blobs/missing", json={"digests": [gone]}).json() == {"missing": []}, "it is leased"
        refused: tuple[dict[str, list[str]], ...] = ({"digests": []}, {"digests": ["x"]}, {"digests": [never] * 10_001})
        for wrong in refused:
            assert api.post("/api/v1/blobs/missing", json=wrong).status_code == 400


def test_content_that_somebody_took_away_is_asked_for_again(tmp_path: Path) -> None:
    with running_server(tmp_path, "--blob-lease-s", "0") as server, server.client() as api:
        here, gone = api.upload(b"here").digest, api.upload(b"gone").digest
        blob_file(server, gone).unlink()
        assert api.post("/api/v1/blobs/missing", json={"digests": [here, gone]}).json() == {"missing": [gone]}
        api.upload(b"gone")
        assert api.get(f"/api/v1/blobs/{gone}").content == b"gone"


def test_chunks_prove_ranges(server: RunningServer) -> None:
    content = os.urandom(2 * CHUNK_BYTES + 10)
    with server.client() as api:
        digest = api.upload(content).digest
        answered = api.get(f"/api/v1/blobs/{digest}/chunks").json()
        parts = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
        assert answered == {
            "digest": digest,
            "size_bytes": len(content),
            "chunk_bytes": CHUNK_BYTES,
            "hashes": [sha256(part).hexdigest() for part in parts],
        }
        small = api.upload(b"small").digest
        assert api.get(f"/api/v1/blobs/{small}/chunks").json()["hashes"] == [small.removeprefix("sha256:")]
        for unknown in (digest_of_text("never"), "x"):
            assert problem_of(api.get(f"/api/v1/blobs/{unknown}/chunks"))["code"] == "blob_unknown"

        def part(first: int, last: int) -> tuple[int, bytes]:
            found = api.get(f"/api/v1/blobs/{digest}", headers={"range": f"bytes={first}-{last}"})
            return found.status_code, found.content

        across = (CHUNK_BYTES - 3, 2 * CHUNK_BYTES + 3)
        assert part(*across) == (206, content[across[0] : across[1] + 1])
        rot(blob_file(server, digest), CHUNK_BYTES + 5)
        assert part(0, 9) == (206, content[:10])
        assert part(CHUNK_BYTES + 100, CHUNK_BYTES + 109)[0] == 503
        damaged = api.get(f"/api/v1/blobs/{digest}", headers={"range": f"bytes={CHUNK_BYTES}-{CHUNK_BYTES}"})
        assert problem_of(damaged)["code"] == "blob_damaged"


def test_blobs_of_an_older_version_get_their_chunks_when_they_are_first_asked_for(tmp_path: Path) -> None:
    content = os.urandom(CHUNK_BYTES + 1)
    with running_server(tmp_path) as server, server.client() as api:
        digest = api.upload(content).digest
        server.process.stop()
        subprocess.run([sys.executable, "-c", FORGET_CHUNKS, str(server.workspace)], check=True, timeout=30)
        server.start()
        with server.client() as api_again:
            found = api_again.get(f"/api/v1/blobs/{digest}", headers={"range": "bytes=1-5"})
            assert (found.status_code, found.content) == (206, content[1:6])
            assert len(api_again.get(f"/api/v1/blobs/{digest}/chunks").json()["hashes"]) == 2
            # From now on a range is proven without the rest.
            rot(blob_file(server, digest), CHUNK_BYTES)
            assert api_again.get(f"/api/v1/blobs/{digest}", headers={"range": "bytes=1-5"}).status_code == 206


FORGET_CHUNKS = """
import sqlite3, sys
with sqlite3.connect(f"{sys.argv[1]}/records.db") as connection:
    assert connection.execute("delete from blob_chunks").rowcount == 1
"""


@pytest.mark.alone
def test_many_small_files_take_seconds(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(3000):
        (source / f"{number}.txt").write_text(
            f"file {number} of this test, long enough that not all of them fit into the registration itself " * 2
        )
    began = time.monotonic()
    manifest = client.models.register("many", source)
    assert len(manifest.files) == 3000
    # 3 to 5 s were seen on a busy machine, 20 s with a request for each.
    assert time.monotonic() - began < 10
