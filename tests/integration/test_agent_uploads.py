"""Uploads of logs and support bundles: only where the device allows, as IoT Edge's blobs, in the background."""

from __future__ import annotations

import gzip
import http.server
import io
import tarfile
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest

from edge_agent.decisions import DecisionLog
from edge_agent.methods.errors import LogFilterInvalid, MethodPayloadInvalid, UploadForbidden
from edge_agent.methods.log_lines import Line, Wanted
from edge_agent.methods.logs import LogReader, read_log_request
from edge_agent.methods.payload import read_payload
from edge_agent.methods.tasks import Tasks, TaskStatus, UploadLogs, UploadSupportBundle
from edge_agent.methods.upload import Uploads, parse_hosts
from hedgerow.clock import SystemClock
from hedgerow.egress import EgressRefused
from hedgerow.errors import InvalidSetting
from tests.waiting import wait_for


class BlobStore:
    """Takes PUTs like a blob container with a signed address; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.status = 201
        self.stored: dict[str, tuple[dict[str, str], bytes]] = {}
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if store.status == 201:
                    store.stored[self.path] = ({name.lower(): value for name, value in self.headers.items()}, content)
                self.send_response(store.status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/logs?sv=2021&sig=abc%2Fdef"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def store() -> Iterator[BlobStore]:
    made = BlobStore()
    yield made
    made.close()


class Place:
    """Tasks over two modules with a few lines each."""

    def __init__(self, folder: Path, hosts: str = "127.0.0.1") -> None:
        def lines_of(module: str, wanted: Wanted) -> Generator[Line, None, None]:
            yield from (Line(f"{module} says {number}", str(number)) for number in range(3))

        def bundle(file: IO[bytes], since_s: float | None, until_s: float | None, with_logs: bool) -> None:
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                archive.addfile(tarfile.TarInfo("with-logs" if with_logs else "without-logs"))

        clock = SystemClock()
        self.folder = folder / "uploads"
        self.decisions = DecisionLog(folder / "decisions.jsonl", clock)
        logs = LogReader(lambda: {"pump": "Pump", "fan": "fan"}, lines_of, "press")
        self.tasks = Tasks(self.folder, Uploads(parse_hosts(hosts)), logs, bundle, self.decisions, clock, "press")

    def upload(self, url: str | None, **request: Any) -> TaskStatus:
        asked = read_log_request("UploadModuleLogs", {"schemaVersion": "1.0", "items": [{"id": ".*"}], "sasUrl": url, **request})
        return self.ended(self.tasks.start("UploadModuleLogs", asked.sas_url, UploadLogs(asked)))

    def ended(self, begun: TaskStatus) -> TaskStatus:
        assert begun.status == "NotStarted"

        def look() -> TaskStatus | None:
            status = self.tasks.status(begun.correlation_id)
            return status if status.status in ("Completed", "Failed") else None

        found = wait_for(look, what="the upload")
        assert found is not None
        assert not any(self.folder.iterdir()), "files under way are taken away"
        return found


def test_logs_are_put_as_blobs_of_their_own(tmp_path: Path, store: BlobStore) -> None:
    place = Place(tmp_path)
    assert place.upload(store.url, encoding="gzip").status == "Completed"
    assert len(store.stored) == 2
    (path, (headers, content)), _ = sorted(store.stored.items())
    today = f"{datetime.now(UTC):%Y-}"
    assert path.startswith(f"/logs/press/Pump-{today}")
    assert path.endswith(".gz?sv=2021&sig=abc%2Fdef")
    assert headers["x-ms-blob-type"] == "BlockBlob"
    assert int(headers["content-length"]) == len(content)
    assert gzip.decompress(content) == b"pump says 0\npump says 1\npump says 2\n"
    assert [one.action for one in place.decisions.newest(10)] == ["upload"]
    assert "sig=" not in place.decisions.newest(1)[0].reason


def test_a_support_bundle_is_put(tmp_path: Path, store: BlobStore) -> None:
    place = Place(tmp_path)
    asked = read_payload(
        "UploadSupportBundle", {"sasUrl": store.url, "edgeRuntimeOnly": True, "since": "2h"}, UploadSupportBundle
    )
    assert place.ended(place.tasks.start("UploadSupportBundle", asked.sas_url, asked)).status == "Completed"
    ((path, (_, content)),) = store.stored.items()
    assert path.startswith("/logs/press/support-bundle-")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["without-logs"]


@pytest.mark.parametrize("hosts", ["", "other.example", "10.0.0.0/8"])
def test_no_host_but_those_that_the_device_allows(tmp_path: Path, store: BlobStore, hosts: str) -> None:
    place = Place(tmp_path, hosts)
    for url in (store.url, "https://attacker.example/c?sig=x", "https://169.254.169.254/latest", "file:///etc/passwd"):
        with pytest.raises((UploadForbidden, EgressRefused)):
            place.upload(url)
    assert store.stored == {}


def test_what_cannot_be_asked_for(tmp_path: Path, store: BlobStore) -> None:
    place = Place(tmp_path)
    with pytest.raises(MethodPayloadInvalid):
        place.upload(None)
    with pytest.raises(LogFilterInvalid):
        place.upload(store.url, items=[{"id": "pump", "filter": {"since": "soon"}}])
    assert place.tasks.status("never").status == "Unknown"


@pytest.mark.parametrize("status", [403, 307, 500])
def test_a_refused_upload_is_told_with_its_reason(tmp_path: Path, store: BlobStore, status: int) -> None:
    """A redirect is another address, which nobody allowed."""
    store.status = status
    place = Place(tmp_path)
    ended = place.upload(store.url)
    assert (ended.status, str(status) in ended.message) == ("Failed", True)
    assert "sig=" not in ended.message
    assert place.decisions.newest(1)[0].action == "upload-failed"


def test_a_store_that_is_away(tmp_path: Path, store: BlobStore) -> None:
    store.close()
    place = Place(tmp_path)
    assert place.upload(store.url).status == "Failed"


def test_files_that_a_killed_agent_left_go(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "left").write_bytes(b"x")
    place = Place(tmp_path)
    assert list(place.folder.iterdir()) == []


def test_a_bad_list_of_hosts_names_its_own_setting() -> None:
    with pytest.raises(InvalidSetting, match="upload_hosts"):
        parse_hosts("not a host")
