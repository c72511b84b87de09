"""A simulated fleet on a control plane of its own: does the hub keep up, and how long does a message take to the database?

    python -m loadtests.bench_fleet [--devices 2000] [--rate 1] [--duration 60] [--churn 0] [--database postgresql://…] [--hubs 2]

Everything runs on this machine: Mosquitto (or the embedded broker), the control plane, and the devices in one process. The time
of a message ends when the hub's answer has come back to the device, so it holds more than the way to the database.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hedgerow.process.memory import pss_bytes
from hedgerow.sdk.connect import connect
from loadtests.bench_skeleton import family, first_line, row, stop
from loadtests.fleet_sim.__main__ import allow_connections, shown
from loadtests.fleet_sim.drive import Load, run
from loadtests.fleet_sim.enrolment import enrolled
from loadtests.fleet_sim.tally import Figures

P95_BAR_S, KEEP_UP_BAR = 1.0, 0.99
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[tuple[str, int]]:
    """(URL, pid) of a broker as a distribution sets it up, but for its port."""
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    port = _free_port()
    conf = folder / "mosquitto.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    process = subprocess.Popen([binary, "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    with contextlib.ExitStack() as parts:
        arguments = ["--workspace", str(folder / "workspace"), "--port", "0", "--broker-port", "0", "--balancer-port", "0"]
        broker_pid = None
        if options.broker == "mosquitto":
            url, broker_pid = parts.enter_context(mosquitto(folder))
            arguments += ["--broker", url]
        if options.database:
            arguments += ["--database", options.database, "--hubs", str(options.hubs)]
        process, _ = first_line([sys.executable, "-P", "-m", "registry.up", *arguments])
        parts.callback(stop, process)
        hubs = [pid for name, pid in family(process.pid) if name.startswith("registry.hub")]
        client = parts.enter_context(connect(folder / "workspace", start=False))
        configs = parts.enter_context(enrolled(client, options.devices, "bench"))
        before = {pid: cpu_s(pid) for pid in [*hubs, *([broker_pid] if broker_pid else [])]}
        figures = run(configs, Load(options.rate, options.size, options.duration, options.churn), _say)
        used = {pid: cpu_s(pid) - before[pid] for pid in before}
        spent = ", ".join(f"{used[pid]:.1f} s ({pss_bytes(pid) / 1e6:.0f} MB)" for pid in hubs)
        print(
            f"hub CPU {spent}; broker {used.get(broker_pid or 0, 0.0):.1f} s, over {figures.seconds} s and connecting", flush=True
        )
        return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--duration", type=float, default=60.0)
    parser.add_argument("--churn", type=float, default=0.0)
    parser.add_argument("--broker", choices=["mosquitto", "embedded"], default="mosquitto")
    parser.add_argument("--database", help="postgresql://… instead of SQLite")
    parser.add_argument("--hubs", type=int, default=1, help="more than one needs --database")
    options = parser.parse_args(arguments)
    allow_connections(options.devices)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.broker}, {options.hubs} hub(s)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    print(shown(figures))
    row("device to database, p95", figures.p95_s, "s", P95_BAR_S)
    row("messages that were late when they ended", 1 - figures.stored_per_s / figures.sent_per_s, "", 1 - KEEP_UP_BAR)
    row("messages lost", float(figures.lost), "", 0.0)


if __name__ == "__main__":
    main()
