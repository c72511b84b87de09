"""A real server process on a workspace of its own and a free port, and a client that speaks to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psutil

from hedgerow.contracts.model import FileEntry
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess


def server_command(workspace: Path, *options: str) -> list[str]:
    port = [] if "--port" in options else ["--port", "0"]
    return [sys.executable, "-P", "-m", "registry.server", "--workspace", str(workspace), *port, *options]


class RunningServer:
    """``python -m registry.server``; ``start`` again after ``process.kill()`` to see what the next one makes of it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.workspace = folder / "workspace"
        self.facts_file = self.workspace / "run" / "server.json"
        self.process = RealProcess(
            server_command(self.workspace, *options),
            log=folder / "server.log",
            env={"PATH": search_path(), "HOME": str(folder)},
            cwd=folder,
        )

    def start(self) -> RunningServer:
        self.process.start()
        self.process.wait_until(
            lambda: self.facts_file.exists() and self.facts["pid"] == self.process.pid, what="the server being ready"
        )
        return self

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads(self.facts_file.read_bytes()))

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def owner_token(self) -> str:
        return (self.workspace / "run" / "owner.token").read_text().strip()

    def listening_port(self) -> int:
        """The TCP port, whatever the server calls itself."""
        listening = (c for c in psutil.Process(self.process.pid).net_connections("tcp") if c.status == "LISTEN")
        return int(next(listening).laddr.port)

    def client(self, token: str | None = None) -> Api:
        """Speaks for the owner, or with another token; ``""`` for none."""
        return Api(self.url, self.owner_token if token is None else token)


class Api(httpx.Client):
    """An HTTP client with the few steps that many tests begin with."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(base_url=url, headers={"authorization": f"Bearer {token}"} if token else {}, timeout=30)

    def token(self, role: str, **more: Any) -> str:
        """A new token of this role."""
        answered = self.post("/api/v1/tokens", json={"name": f"a-{role}", "role": role} | more)
        assert answered.status_code == 201, answered.text
        return str(answered.json()["secret"])

    def upload(self, content: bytes, path: str = "model.onnx") -> FileEntry:
        """Store ``content`` and describe it as the file ``path``."""
        digest = f"sha256:{sha256(content).hexdigest()}"
        headers = {"content-type": "application/octet-stream"}
        answered = self.put(f"/api/v1/blobs/{digest}", content=content, headers=headers)
        assert answered.status_code == 201, answered.text
        return FileEntry(path=path, digest=digest, size_bytes=len(content))

    def register(self, name: str, *files: FileEntry, **facts: Any) -> dict[str, Any]:
        """The manifest of a new model version."""
        entries = [{"path": f.path, "digest": f.digest, "size_bytes": f.size_bytes} for f in files]
        answered = self.post("/api/v1/models", json={"name": name, "files": entries} | facts)
        assert answered.status_code == 201, answered.text
        return dict(answered.json())


@contextmanager
def running_server(folder: Path, *options: str) -> Iterator[RunningServer]:
    """Started, and stopped at the end."""
    server = RunningServer(folder, *options)
    try:
        yield server.start()
    finally:
        server.process.stop()


def problem_of(answered: httpx.Response) -> dict[str, Any]:
    """The error of an answer, after checking that it has the one shape."""
    body = answered.json()
    assert body.keys() == {"error"}, answered.text
    assert body["error"].keys() == {"code", "message", "remedy", "details"}, answered.text
    assert all(isinstance(body["error"][part], str) and body["error"][part] for part in ("code", "message", "remedy"))
    assert answered.headers["content-type"] == "application/json"
    return dict(body["error"])
