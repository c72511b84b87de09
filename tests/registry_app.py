"""The server's application without a server: requests are answered in this process, by any number of threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from hedgerow.contracts.api import Role
from registry.server.app import create_app
from registry.server.context import ServerContext
from registry.server.followers import Followers
from registry.store import tokens
from tests.registry_contexts import server_context

JSON = dict[str, Any]


class Asker:
    """Sends requests with one token."""

    def __init__(self, app: Flask, token: str) -> None:
        self.app, self.token = app, token

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """``headers`` with _ for -; a ``body`` goes as JSON, bytes as they are."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"authorization": f"Bearer {self.token}"}
        if isinstance(body, bytes):
            sent["content-type"] = "application/octet-stream"
            return self.app.test_client().open(path, method=method, data=body, headers=sent)
        return self.app.test_client().open(path, method=method, json=body, headers=sent)

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> JSON:
        """The answer's document, which must be none of an error."""
        answered = self.ask(method, path, body, **headers)
        assert answered.status_code < 300, f"{method} {path}: {answered.status_code} {answered.text}"
        return dict(answered.json or {})

    def code(self, method: str, path: str, body: Any = None, **headers: str) -> str:
        """The code of the error that must come."""
        answered = self.ask(method, path, body, **headers)
        assert answered.status_code >= 400, f"{method} {path}: {answered.status_code} {answered.text}"
        return str(answered.json["error"]["code"])  # type: ignore[index]  # an error's shape

    def upload(self, content: bytes, path: str = "model.onnx") -> JSON:
        """Store ``content``; the entry of a file ``path`` that has it."""
        digest = f"sha256:{sha256(content).hexdigest()}"
        self.done("PUT", f"/api/v1/blobs/{digest}", content)
        return {"path": path, "digest": digest, "size_bytes": len(content)}


class RunningApp:
    """The application on a workspace of its own."""

    def __init__(self, here: ServerContext) -> None:
        self.here = here
        self.app = create_app(here, Followers())

    def asker(self, role: Role = "owner", scopes: Sequence[str] = ()) -> Asker:
        """Somebody with a new token."""
        with self.here.database.write() as connection:
            now = self.here.clock.now()
            made = tokens.create(connection, name=f"a-{role}", role=role, scopes=scopes, now=now)
        return Asker(self.app, made.secret or "")


@contextmanager
def running_app(folder: Path, url: str | None = None, **settings: object) -> Iterator[RunningApp]:
    """On a fresh workspace below ``folder``, or on the one that is there."""
    with server_context(folder, url, **settings) as here:
        yield RunningApp(here)
