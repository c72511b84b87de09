"""A scoring server as a real process on a port of its own, for tests."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

from tests.fixtures.real_process import RealProcess
from tests.waiting import wait_for


class ScoringServer:
    """``python -P -m runtime ARGUMENTS --port 0``; a context manager that waits until it is ready."""

    def __init__(self, folder: Path, *arguments: object, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ready_file = folder / "ready.json"
        self._wait = wait
        argv = [sys.executable, "-P", "-m", "runtime", *map(str, arguments), "--port", "0", "--ready-file", str(self._ready_file)]
        self.process = RealProcess(argv, log=folder / "server.log", env={"HOME": str(folder), **(env or {})}, cwd=folder)
        # Kept-alive connections hide what happens to new ones; tests that want them say so.
        self.client = httpx.Client(timeout=20.0, trust_env=False, headers={"connection": "close"})

    def __enter__(self) -> ScoringServer:
        self.process.start()
        try:
            if self._wait:
                self.process.wait_until(self._ready_file.exists, what="the scoring server's ready-file")
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        self.process.stop()

    @property
    def ready(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self._ready_file.read_text())
        return document

    @property
    def ready_file(self) -> Path:
        return self._ready_file

    @property
    def url(self) -> str:
        return str(self.ready["address"])

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path: str, **options: object) -> httpx.Response:
        return self.client.get(self.url + path, **options)  # type: ignore[arg-type]  # httpx's own keywords

    def post(self, path: str, content: bytes | str = b"", **options: object) -> httpx.Response:
        return self.client.post(self.url + path, content=content, **options)  # type: ignore[arg-type]  # httpx's own keywords

    def score(self, body: object, **options: object) -> httpx.Response:
        return self.post("/score", json.dumps(body), **options)

    def infer(self, model: str, body: object) -> httpx.Response:
        return self.post(f"/v2/models/{model}/infer", json.dumps(body))

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        child = self.process._child
        return child.poll() if child is not None else None

    def workers(self) -> list[int]:
        """Pids of the worker processes now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def metric(self, line_start: str) -> float:
        """The value of the one series whose line starts so."""
        found = [line for line in self.get("/metrics").text.splitlines() if line.startswith(line_start)]
        assert len(found) == 1, f"{line_start!r} is on {len(found)} lines"
        return float(found[0].rsplit(" ", 1)[1])

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.process.log_text(), what=f"{text!r} in the server's log")


def script(folder: Path, body: str, name: str = "score.py") -> Path:
    """A scoring script in a source folder of its own."""
    source = folder / "source"
    source.mkdir(parents=True, exist_ok=True)
    file = source / name
    file.write_text(textwrap.dedent(body), encoding="utf-8")
    return file
