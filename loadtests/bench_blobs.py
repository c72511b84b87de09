"""The figures of contents: a large model in and out, many small files, a garbage collection beside uploads.

    python -m loadtests.bench_blobs [--megabytes 1024] [--rounds 3] [--blobs 1000000] [--folder DIR]

What `sha256sum` and `cp` need for the same file is measured in turn with it, in the same folder, so that the ratio holds on a
noisy or slower machine. Memory is the server's peak beyond what it had before (VmHWM).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert

from hedgerow.contracts.build import ProgressLine
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.client import Client
from hedgerow.sdk.files import collect
from hedgerow.sdk.transport import Transport
from loadtests.bench_skeleton import row
from registry.store import schema
from registry.store.database import open_database
from registry.store.tables import blobs, model_files, model_names, model_versions
from registry.workspace import open_workspace

_FILES_OF_A_MODEL = 1000
_GARBAGE = 10  # one in so many
_LONG_AGO = "2020-01-01T00:00:00.000000Z"


@contextmanager
def server(workspace: Path) -> Iterator[tuple[Client, int]]:
    """A server of its own, without the other roles; its client and pid."""
    ready = workspace.with_suffix(".ready")
    code = "import sys; from registry.server.__main__ import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-P", "-c", code, "--workspace", str(workspace), "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.02)
        socket, token = workspace / "run" / "server.sock", (workspace / "run" / "owner.token").read_text().strip()
        with Client(Transport("http://localhost", token, socket=socket)) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(30)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def peak_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def write_random(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))


def large_model(folder: Path, megabytes: int, rounds: int) -> None:
    source, copy = folder / "model.bin", folder / "copy.bin"
    taken: dict[str, list[float]] = {"bare": [], "register": [], "download": []}
    with server(folder / "w1") as (client, pid):
        before = peak_mb(pid)
        for number in range(rounds):
            write_random(source, megabytes)
            bare = seconds(lambda: subprocess.run(["sha256sum", str(source)], check=True, stdout=subprocess.DEVNULL))
            taken["bare"].append(bare + seconds(lambda: subprocess.run(["cp", str(source), str(copy)], check=True)))
            taken["register"].append(seconds(lambda: client.models.register("large", source)))
            out = folder / f"out{number}"
            taken["download"].append(seconds(partial(client.models.download, "large", out)))
            shutil.rmtree(out)
        grown = peak_mb(pid) - before
    for what in ("register", "download"):
        ratio = statistics.median(ours / bare for ours, bare in zip(taken[what], taken["bare"], strict=True))
        beside = f"{statistics.median(taken[what]):.1f} s; sha256sum + cp: {statistics.median(taken['bare']):.1f} s"
        row(f"{what} a model of {megabytes} MB", ratio, "x", 2.0, beside)
    row("server's memory beyond its start, both ways", grown, "MB", 64.0)
    for path in (source, copy):
        path.unlink()


def small_files(folder: Path, count: int) -> None:
    source = folder / "small"
    source.mkdir()
    for number in range(count):
        (source / f"{number}").write_bytes(os.urandom(1000))
    with server(folder / "w2") as (client, _):
        row(f"register {count} files of 1 kB", seconds(lambda: client.models.register("small", source)), "s", 5.0)


def fill(folder: Path, count: int) -> None:
    """A workspace with ``count`` recorded blobs and their files, one in ten of them garbage."""
    workspace = open_workspace(folder / "w3")
    with closing(open_database(None, workspace.folder)) as database:
        schema.upgrade(database, workspace)
        for number in range(256):
            (workspace.blobs / "sha256" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for start in range(0, count, _FILES_OF_A_MODEL):
            with database.write() as connection:
                add_model(connection, workspace.blobs / "sha256", start, min(count, start + _FILES_OF_A_MODEL))


def add_model(connection: Connection, folder: Path, start: int, end: int) -> None:
    """Blobs ``start`` to ``end``, and a model that is made of nine in ten of them."""
    digests = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(start, end)]
    for digest in digests:
        (folder / digest[:2] / digest).touch()
    named = {"name": f"m{start}", "version": 1}
    files = [named | {"path": f"f{n}", "digest": f"sha256:{digest}"} for n, digest in enumerate(digests) if n % _GARBAGE]
    facts = {"digest": "sha256:", "framework": "custom", "manifest": "{}", "created_at": _LONG_AGO}
    stored = {"size_bytes": 1000, "stored_at": _LONG_AGO, "leased_until": _LONG_AGO}
    connection.execute(insert(blobs), [stored | {"digest": f"sha256:{digest}"} for digest in digests])
    connection.execute(insert(model_names).values(name=named["name"], last_version=1))
    connection.execute(insert(model_versions).values(**named, **facts))
    connection.execute(insert(model_files), files)


def garbage(folder: Path, count: int) -> None:
    fill(folder, count)
    with server(folder / "w3") as (client, _pid):
        ended, longest = threading.Event(), [0.0]
        uploading = threading.Thread(target=lambda: longest.append(upload_until(client, ended, folder)))
        uploading.start()
        began = time.perf_counter()
        freed, memory_mb = collect_garbage(folder / "w3")
        took = time.perf_counter() - began
        ended.set()
        uploading.join()
        row(f"gc over {count} blobs, {freed} garbage", took, "s", 300.0, f"{freed / took:.0f} freed/s")
        row("longest upload meanwhile", max(longest), "s", 5.0)
        row("memory of the collection, all of it (RSS)", memory_mb, "MB", 150.0)


def collect_garbage(workspace: Path) -> tuple[int, float]:
    """Blobs freed by the process that the controller would start, and its largest RSS in MB."""
    argv = [sys.executable, "-P", "-m", "registry.controller.garbage_work", "--workspace", str(workspace)]
    with tempfile.TemporaryFile() as said:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1)])
        _, status, used = os.wait4(pid, 0)
        said.seek(0)
        last = msgspec.json.decode(said.read().splitlines()[-1], type=ProgressLine)
    if status or last.result is None:
        raise SystemExit(f"the collection failed: {last.problem}")
    return int(last.result["blobs"]), used.ru_maxrss / 1024


def upload_until(client: Client, ended: threading.Event, folder: Path) -> float:
    """Upload small contents one after the other; the longest that one took, in seconds."""
    longest, path = 0.0, folder / "upload"
    while not ended.is_set():
        path.write_bytes(os.urandom(1000))
        found = collect([path])
        longest = max(longest, seconds(partial(upload_missing, client.transport, found)))
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        if options.megabytes:
            large_model(Path(scratch), options.megabytes, options.rounds)
        if options.files:
            small_files(Path(scratch), options.files)
        if options.blobs:
            garbage(Path(scratch), options.blobs)


if __name__ == "__main__":
    main()
