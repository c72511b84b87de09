"""A registry that misbehaves as it is told: cuts connections, wants tokens, sends clients elsewhere, lies about content."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_INDEX, MEDIA_OCI_LAYER_TAR, MEDIA_OCI_MANIFEST

_ROUTE = re.compile(r"/v2/(?P<name>.+?)/(?P<what>manifests|blobs/uploads|blobs|referrers)/(?P<rest>.*)")


@dataclass
class Seen:
    """One request that arrived; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


@dataclass
class HostileRegistry:
    """What it has and how it behaves; ``address`` is `127.0.0.1:PORT`.

    ``cut_downloads`` and ``cut_uploads``: after how many bytes each of the next transfers breaks (uploads: of those with more).
    ``login``: user and
    password that its token service wants (None: anybody gets a token). ``moved_to``: where blobs are redirected.
    ``uploads_at``: where uploads are to be sent. ``busy``: so many requests are answered 503. ``good_for``: how many
    requests a token is good for. ``identity``: the identity token that its token service wants (in a POST) instead of ``login``;
    each time it is another one from then on.
    """

    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    cut_downloads: list[int] = field(default_factory=list)
    cut_uploads: list[int] = field(default_factory=list)
    forget_uploads: bool = False
    knows_ranges: bool = True
    keeps_referrers: bool = False
    scheme: str = "none"
    realm: str = ""
    login: tuple[str, str] | None = None
    identity: str = ""
    moved_to: str = ""
    uploads_at: str = ""
    good_for: int = 1_000_000
    tokens: dict[str, int] = field(default_factory=dict)
    lies: str = ""
    busy: int = 0
    holds: threading.Event | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_image(
        self, layers: list[bytes], *, tag: str = "1", config: dict[str, Any] | None = None, layer_type: str = MEDIA_OCI_LAYER_TAR
    ) -> str:
        """An image of these layers; the digest of its manifest."""
        raw = json.dumps(config or {}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_OCI_MANIFEST,
            "config": self.add_blob(raw, MEDIA_OCI_CONFIG),
            "layers": [self.add_blob(layer, layer_type) for layer in layers],
        }
        return self.add_manifest(json.dumps(manifest).encode(), MEDIA_OCI_MANIFEST, tag)

    def add_index(self, images: dict[str, str], tag: str) -> str:
        """An index over digests of manifests by platform (`linux/arm64`)."""
        entries = []
        for platform, digest in images.items():
            system, architecture = platform.split("/")
            entries.append(
                {
                    "mediaType": MEDIA_OCI_MANIFEST,
                    "digest": digest,
                    "size": len(self.manifests[digest][1]),
                    "platform": {"os": system, "architecture": architecture},
                }
            )
        index = {"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": entries}
        return self.add_manifest(json.dumps(index).encode(), MEDIA_OCI_INDEX, tag)

    def add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def add_manifest(self, data: bytes, media_type: str, tag: str) -> str:
        self.manifests[tag] = self.manifests[digest_of(data)] = (media_type, data)
        return digest_of(data)

    def asked(self, method: str, part: str) -> list[Seen]:
        """The requests of this method whose path has ``part``."""
        with self.lock:
            return [one for one in self.seen if one.method == method and part in one.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: HostileRegistry

    def log_message(self, *_: object) -> None:
        pass

    def _go(self) -> None:
        registry = self.registry
        with registry.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._one = Seen(self.command, self.path, headers)
            registry.seen.append(self._one)
            if registry.busy:
                registry.busy -= 1
                self._answer(503, b"", {"Retry-After": "0"})
                return
        if self.path.startswith("/token"):
            self._token()
            return
        if not self._is_known():
            return
        route = _ROUTE.fullmatch(self.path)
        if route is None:
            self._answer(404)
            return
        what = route["what"].replace("/", "_")
        getattr(self, f"_{what}")(route["name"], route["rest"])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _go

    def _is_known(self) -> bool:
        registry, given = self.registry, self.headers.get("Authorization", "")
        if registry.scheme == "none" or (registry.scheme == "bearer" and self._token_is_good(given)):
            return True
        if registry.scheme == "basic" and registry.login and given == _basic(*registry.login):
            return True
        self._drain()
        realm = registry.realm or f"http://{registry.address}/token"
        challenge = f'Bearer realm="{realm}",service="here"' if registry.scheme == "bearer" else 'Basic realm="here"'
        self._answer(401, b"{}", {"WWW-Authenticate": challenge})
        return False

    def _token_is_good(self, given: str) -> bool:
        with self.registry.lock:
            left = self.registry.tokens.get(given, 0)
            self.registry.tokens[given] = left - 1
            return left > 0

    def _token(self) -> None:
        if self.command == "POST":
            self._exchange()
            return
        wanted = self.registry.login
        if wanted and self.headers.get("Authorization") != _basic(*wanted):
            self._answer(401, b"{}")
        else:
            token = f"token-{len(self.registry.seen)}"
            self.registry.tokens[f"Bearer {token}"] = self.registry.good_for
            self._answer(200, json.dumps({"token": token}).encode())

    def _exchange(self) -> None:
        registry = self.registry
        form = {name: values[0] for name, values in parse_qs(self._drain().decode()).items()}
        good = (
            form.get("grant_type") == "refresh_token" and form.get("service") == "here" and "repository:" in form.get("scope", "")
        )
        with registry.lock:
            if not good or not registry.identity or form.get("refresh_token") != registry.identity:
                self._answer(401, b"{}")
                return
            registry.identity = f"identity-{len(registry.seen)}"
            token = f"token-{len(registry.seen)}"
            registry.tokens[f"Bearer {token}"] = registry.good_for
            given = {"access_token": token, "refresh_token": registry.identity}
            self._answer(200, json.dumps(given).encode())

    def _manifests(self, _name: str, reference: str) -> None:
        registry = self.registry
        if self.command == "PUT":
            data = self._drain()
            media_type = self.headers.get("Content-Type", "")
            registry.manifests[reference] = registry.manifests[digest_of(data)] = (media_type, data)
            self._answer(201, b"", {"Docker-Content-Digest": digest_of(data)})
            return
        if reference not in registry.manifests:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return
        media_type, data = registry.manifests[reference]
        told = {"Docker-Content-Digest": digest_of(data), "Content-Type": media_type}
        self._answer(200, b" " + data if registry.lies == "manifest" else data, told)

    def _referrers(self, _name: str, _digest: str) -> None:
        if not self.registry.keeps_referrers:
            self._answer(404)
            return
        self._answer(200, b'{"schemaVersion":2,"manifests":[]}', {"Content-Type": MEDIA_OCI_INDEX})

    def _blobs(self, name: str, digest: str) -> None:
        registry = self.registry
        if registry.moved_to and self.command == "GET":
            self._answer(307, b"", {"Location": f"{registry.moved_to}/v2/{name}/blobs/{digest}"})
            return
        data = registry.blobs.get(digest)
        if data is None:
            self._answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
            return
        if registry.lies == "blob":
            data = bytes(len(data))
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and registry.knows_ranges:
            at = int(start[1])
            self._answer(206, data[at:], {"Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"}, cut=True)
        else:
            self._answer(200, data, cut=True)

    def _blobs_uploads(self, name: str, rest: str) -> None:
        registry, parts = self.registry, urlsplit(rest)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.command == "POST":
            if query.get("from") == "neighbour" and query.get("mount"):
                registry.blobs[query["mount"]] = b"mounted"
                self._answer(201)
                return
            key = f"upload-{len(registry.seen)}"
            registry.uploads[key] = bytearray()
            self._answer(202, b"", {"Location": f"{registry.uploads_at}/v2/{name}/blobs/uploads/{key}"})
            return
        upload = registry.uploads.get(parts.path)
        if upload is None:
            self._drain()
            self._answer(404)
            return
        where = {"Location": f"/v2/{name}/blobs/uploads/{parts.path}"}
        if self.command in ("PATCH", "PUT"):
            at = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
            if at and int(at[1]) != len(upload):
                self._drain()
                self._answer(416)
                return
            if not self._take_in(parts.path, upload):
                return
        if self.command == "PUT":
            good = digest_of(bytes(upload)) == query.get("digest")
            if good:
                registry.blobs[query["digest"]] = bytes(upload)
            self._answer(201 if good else 400, b"" if good else b'{"errors": [{"code": "DIGEST_INVALID"}]}')
        else:
            self._answer(202 if self.command == "PATCH" else 204, b"", where | {"Range": f"0-{max(0, len(upload) - 1)}"})

    def _take_in(self, key: str, upload: bytearray) -> bool:
        registry = self.registry
        if registry.holds is not None:
            registry.holds.wait(60)
        size = int(self.headers.get("Content-Length", "0"))
        with registry.lock:
            cut = registry.cut_uploads.pop(0) if registry.cut_uploads and size > registry.cut_uploads[0] else None
        if cut is None:
            upload += self._drain()
            return True
        upload += self.rfile.read(cut)
        if registry.forget_uploads:
            registry.uploads.pop(key)
        self._break()
        return False

    def _drain(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._one.sent_bytes = len(data)
        return data

    def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            with self.registry.lock:
                after = self.registry.cut_downloads.pop(0) if cut and self.registry.cut_downloads else None
            self.wfile.write(data[:after])
            if after is not None:
                self._break()

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def hostile_registry(*, tls: ssl.SSLContext | None = None, **behaviour: Any) -> Iterator[HostileRegistry]:
    """Runs on loopback, in threads of this process, until the end of the block."""
    registry = HostileRegistry(**behaviour)
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
