"""A real agent as a child process for tests, with everything it started ended afterwards."""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from edge_agent.state_store import StateStore, intake_port
from hedgerow.contracts.document import decode
from hedgerow.contracts.status import Decision, ModuleStatus, StatusReport
from hedgerow.errors import InvalidDocument
from hedgerow.process import Running, Supervised
from tests.fixtures.real_process import RealProcess
from tests.waiting import wait_for

T = TypeVar("T")


class WritesToml(Protocol):
    """Whose device.toml the agent gets."""

    def write_toml(self, path: Path) -> Path:
        """``path``, with the file there and readable by its owner only."""


class AgentProcess:
    """``python -P -m edge_agent run`` on a folder of its own. Leaving the ``with`` block also ends all its modules."""

    def __init__(self, device: WritesToml, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.config = device.write_toml(folder / "device.toml")
        argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(self.config), *options]
        self.process = RealProcess(argv, log=folder / "agent.log", env={"HOME": str(folder), **(env or {})})

    def __enter__(self) -> AgentProcess:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.stop(grace_s=20)
        modules = self.state / "modules"
        for path in modules.iterdir() if modules.is_dir() else []:
            Supervised(path / "process").stop(1.0)

    def start(self) -> AgentProcess:
        """Start, and wait until its local port answers."""
        self.process.start()
        self.process.wait_until(self._answers, what="the agent's local port")
        return self

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop(grace_s=20)

    @property
    def port(self) -> int:
        return intake_port(StateStore(self.state))

    def log_text(self) -> str:
        return self.process.log_text()

    def report(self) -> StatusReport | None:
        """The last report on disk; None while there is none, or a damaged one from before."""
        try:
            return decode((self.state / "report.json").read_bytes(), StatusReport)
        except (FileNotFoundError, InvalidDocument):
            return None

    def module(self, name: str) -> ModuleStatus | None:
        report = self.report()
        return report.modules.get(name) if report else None

    def decisions(self) -> list[Decision]:
        path = self.state / "decisions.jsonl"
        return [decode(line, Decision) for line in path.read_bytes().splitlines()] if path.exists() else []

    def pid_of(self, name: str) -> int | None:
        """Pid of a process module as its shim recorded it; None when it does not run."""
        seen = Supervised(self.state / "modules" / name / "process").observe()
        return seen.pid if isinstance(seen, Running) else None

    def wait_state(self, name: str, state: str, *, timeout_s: float = 30.0) -> ModuleStatus:
        def look() -> ModuleStatus | None:
            status = self.module(name)
            return status if status is not None and status.state == state else None

        found = wait_for_or_show(self, look, timeout_s, f"module {name} to be {state}")
        assert found is not None
        return found

    def wait_pid(self, name: str, *, other_than: int | None = None, timeout_s: float = 30.0) -> int:
        def look() -> int | None:
            pid = self.pid_of(name)
            return pid if pid != other_than else None

        found = wait_for_or_show(self, look, timeout_s, f"module {name} to run with a pid other than {other_than}")
        assert found is not None
        return found

    def get(self, path: str) -> tuple[int, str]:
        return self._request("GET", path, None, {})

    def post(self, body: object, *, token: str, stream: str = "telemetry", key: str = "") -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {token}"} | ({"idempotency-key": key} if key else {})
        status, text = self._request("POST", f"/telemetry?stream={stream}", json.dumps(body), headers)
        return status, json.loads(text)

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        _, text = self.get("/metrics")
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def _request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self.port != 0 and self.get("/metrics")[0] == 200
        except OSError:
            return False


def wait_for_or_show(agent: AgentProcess, look: Callable[[], T], timeout_s: float, what: str) -> T:
    try:
        return wait_for(look, timeout_s=timeout_s, what=what)
    except AssertionError as problem:
        raise AssertionError(f"{problem}\nthe agent's log ends:\n{agent.log_text()[-4000:]}") from None
