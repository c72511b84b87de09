"""A small OCI registry that takes a pull token and can be made to misbehave, and archives to put into it."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hedgerow.contracts.names import MEDIA_MODEL_WEIGHT_TAR, MEDIA_OCI_MANIFEST
from hedgerow.contracts.service import ImagePin

Member = tuple[str, bytes] | tarfile.TarInfo


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@dataclass
class Registry:
    """A registry that can be made to misbehave. ``cut_after``: end the next blob after so many bytes; ``ranges``: knows them."""

    contents: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    cut_after: int = 0
    ranges: bool = True
    url: str = ""

    def add(self, data: bytes) -> dict[str, Any]:
        self.contents[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def image(self, *layers: bytes, media_type: str = MEDIA_MODEL_WEIGHT_TAR) -> ImagePin:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_OCI_MANIFEST,
            "layers": [{"mediaType": media_type, **self.add(layer)} for layer in layers],
        }
        return self.pinned(manifest)

    def pinned(self, manifest: object) -> ImagePin:
        return ImagePin(name="shuttle", version=1, digest=self.add(json.dumps(manifest).encode())["digest"], kind="onnx")


def _handler(registry: Registry) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            authorization, wanted = self.headers.get("authorization", ""), self.headers.get("range", "")
            registry.requests.append((self.path, authorization, wanted))
            data = registry.contents.get(self.path.rpartition("/")[2])
            if authorization != "Bearer pull-secret" or data is None:
                self._answer(401 if data is not None else 404, b'{"errors": []}')
                return
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and registry.ranges else 0
            self._answer(206 if start else 200, data[start:])

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if "/blobs/" in self.path and registry.cut_after and status < 300:
                body, registry.cut_after = body[: registry.cut_after], 0
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def open_registry() -> Iterator[Registry]:
    """The registry on a port of its own."""
    made = Registry()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
