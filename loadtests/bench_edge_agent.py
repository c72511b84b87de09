"""The figures of the edge agent: memory and CPU at rest, a killed module's return, a killed agent's successor.

    python -m loadtests.bench_edge_agent [--rounds 15] [--idle-s 60] [--image IMAGE] [--docker-host URL]

With ``--image`` (one that the Docker engine has already, with a shell in it) also the memory with two containers.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.state_store import StateStore, intake_port
from hedgerow.contracts.device import DeviceConfig, TrustedKey, to_toml
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, ModuleSpec
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import sign
from hedgerow.contracts.status import StatusReport
from hedgerow.process import Running, Supervised
from hedgerow.process.memory import pss_bytes

PAUSE_S = 0.002
WAIT_S = 60.0


class Device:
    """An agent on a folder of its own. No broker answers, as on a device that is offline: that path costs most."""

    def __init__(self, folder: Path, modules: dict[str, DesiredModule], environment: dict[str, str]) -> None:
        key = Ed25519PrivateKey.generate()
        self.store = StateStore(folder / "state")
        self.store.folder.mkdir(parents=True)
        self.config = folder / "device.toml"
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
        config = DeviceConfig(
            device_uuid=secrets.token_hex(16),
            name="bench",
            workspace_id="bench",
            topic_prefix="hedgerow/bench",
            broker_url="mqtt://127.0.0.1:1",
            registry_url="http://127.0.0.1:1",
            device_key=base64.b64encode(os.urandom(32)).decode(),
            pull_token="none",
            trusted_keys=[TrustedKey(keyid="k", key=base64.b64encode(key.public_key().public_bytes_raw()).decode())],
        )
        self.uuid = config.device_uuid
        self.config.write_text(to_toml(config))
        self.config.chmod(0o600)
        state = DesiredState(
            device_uuid=config.device_uuid,
            version=1,
            incarnation="i",
            issued_at=datetime.now(UTC),
            edge_deployment="bench",
            modules=modules,
        )
        self.store.desired.write_bytes(sign(PAYLOAD_DESIRED_STATE, encode(state), {"k": key.sign}))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(self.config), "--log-level", "warning"]
        self.process = subprocess.Popen(argv, env=self._environment, stderr=subprocess.DEVNULL)
        return self.process.pid

    def stop(self, signum: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(signum)
        self.process.wait(WAIT_S)

    def pid_of(self, module: str) -> int | None:
        seen = Supervised(self.store.modules / module / "process").observe()
        return seen.pid if isinstance(seen, Running) else None

    def report(self) -> StatusReport | None:
        try:
            return decode(self.store.report.read_bytes(), StatusReport)
        except FileNotFoundError:
            return None

    def running(self) -> int:
        report = self.report()
        return sum(module.state == "running" for module in report.modules.values()) if report else 0

    @property
    def port(self) -> int:
        return intake_port(self.store)

    def end_modules(self) -> None:
        for path in self.store.modules.iterdir() if self.store.modules.is_dir() else []:
            Supervised(path / "process").stop(0.0)


@contextmanager
def device(modules: dict[str, DesiredModule], **environment: str) -> Iterator[Device]:
    with tempfile.TemporaryDirectory() as scratch:
        made = Device(Path(scratch), modules, environment)
        made.start()
        try:
            until(lambda: made.running() == len(modules), "all modules to run")
            yield made
        finally:
            made.stop()
            made.end_modules()


def until(ready: Callable[[], bool], what: str) -> float:
    """Seconds until ``ready``."""
    began = time.perf_counter()
    while not ready():
        if time.perf_counter() - began > WAIT_S:
            raise SystemExit(f"waited {WAIT_S:.0f} s for {what}")
        time.sleep(PAUSE_S)
    return time.perf_counter() - began


def rss_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(what: str, value: float, unit: str, bar: float, beside: str = "") -> None:
    print(f"{what:46} {value:8.2f} {unit:3} bar {bar:6.2f}  {'within' if value <= bar else 'OVER':6} {beside}", flush=True)


def sleeper(**spec: object) -> DesiredModule:
    return DesiredModule(spec=ModuleSpec(command=["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"], **spec))  # type: ignore[arg-type]  # fields of the struct


def at_rest(made: Device, idle_s: float, bar_mb: float, what: str) -> None:
    assert made.process is not None
    pid = made.process.pid
    time.sleep(5.0)
    before, began = cpu_s(pid), time.perf_counter()
    time.sleep(idle_s)
    percent = 100 * (cpu_s(pid) - before) / (time.perf_counter() - began)
    row(f"agent, RSS at rest, {what}", rss_mb(pid), "MB", bar_mb, f"PSS {pss_bytes(pid) / 1e6:.1f} MB")
    row(f"agent, CPU at rest over {idle_s:.0f} s, {what}", percent, "%", 1.0, "of one core")


def killed_module(made: Device, rounds: int) -> None:
    """The first failure is answered at once; for the next round a new life of the agent would be needed, so modules differ."""
    times = []
    for number in range(rounds):
        name = f"m{number}"
        pid = made.pid_of(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        def is_back(name: str = name, pid: int = pid) -> bool:
            return made.pid_of(name) not in (None, pid)

        times.append(until(is_back, "the module to be back"))
    row("module killed to running again (first time)", statistics.median(times), "s", 1.0, f"slowest {max(times):.3f} s")


def killed_agent(made: Device, rounds: int) -> None:
    times, busy, restarts = [], [], 0
    names = sorted(path.name for path in made.store.modules.iterdir())
    for _ in range(rounds):
        pids = [made.pid_of(name) for name in names]
        made.stop(signal.SIGKILL)
        made.store.report.unlink()
        made.start()
        times.append(until(lambda: made.running() == len(names), "the adoption"))
        assert made.process is not None
        busy.append(cpu_s(made.process.pid))
        restarts += sum(before != made.pid_of(name) for before, name in zip(pids, names, strict=True))
    row("agent kill -9: start to all adopted", statistics.median(times), "s", 2.0, f"slowest {max(times):.2f} s")
    row("of that, CPU of the agent", statistics.median(busy), "s", 2.0, f"load average {os.getloadavg()[0]:.1f}")
    row(f"module restarts in {rounds} kills of the agent", restarts, "", 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--image")
    parser.add_argument("--docker-host", default=os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {options.rounds} rounds")
    with device({"a": sleeper(), "b": sleeper()}) as made:
        at_rest(made, options.idle_s, 52.0, "two processes")
        killed_agent(made, options.rounds)
    with device({f"m{number}": sleeper() for number in range(options.rounds)}) as made:
        killed_module(made, options.rounds)
    if options.image:
        box = sleeper(kind="docker", image=options.image, pull_policy="never")
        with device({"a": box, "b": box}, DOCKER_HOST=options.docker_host) as made:
            at_rest(made, options.idle_s, 60.0, "two containers")
        # Not before: an agent would start them again.
        _end_containers(options.docker_host, made.uuid)


def _end_containers(host: str, uuid: str) -> None:
    import docker

    client = docker.DockerClient(base_url=host)
    for container in client.containers.list(all=True, filters={"label": f"hedgerow.owner={uuid}"}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"hedgerow.owner={uuid}"}):
        network.remove()
    client.close()


if __name__ == "__main__":
    main()
