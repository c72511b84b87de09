"""The figures of the walking skeleton: command line, control plane, quickstart, a killed module.

    python -m loadtests.bench_skeleton [--rounds 5]

Each time is a median over rounds, beside what the same machine needs for the least that could do it (a bare
interpreter, a bare gunicorn + Flask), measured in turn, so that the ratio holds on a noisy or slower machine.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hedgerow.process.memory import pss_bytes

_BARE_SERVER = """
import sys
from flask import Flask
from gunicorn.app.base import BaseApplication

class Server(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("when_ready", lambda server: print("ready", flush=True))
    def load(self):
        app = Flask("bare")
        app.get("/")(lambda: "ok")
        return app

Server().run()
"""


def seconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def hedgerow_help() -> None:
    subprocess.run([str(Path(sys.executable).with_name("hedgerow")), "--help"], check=True, stdout=subprocess.DEVNULL)


def bare_interpreter() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def first_line(argv: list[str]) -> tuple[subprocess.Popen[bytes], float]:
    """Start ``argv``; seconds until its first line of output."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(60) or not process.stdout.readline():
            process.kill()
            raise SystemExit(f"{argv} did not come up")
    return process, time.perf_counter() - started


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


def bare_server() -> float:
    process, took = first_line([sys.executable, "-c", _BARE_SERVER])
    stop(process)
    return took


def up(folder: Path, idle_s: float) -> tuple[float, dict[str, float]]:
    """Seconds to ready, and PSS in MB by process after ``idle_s``."""
    ports = ["--port", "0", "--broker-port", "0", "--balancer-port", "0"]
    process, took = first_line([sys.executable, "-P", "-m", "registry.up", "--workspace", str(folder), *ports])
    time.sleep(idle_s)
    memory = {name: pss_bytes(pid) / 1e6 for name, pid in family(process.pid)}
    stop(process)
    return took, memory


def family(root: int) -> list[tuple[str, int]]:
    """A process and all below it: (what it is, pid)."""
    found = [("supervisor", root)]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid, parents = int(entry.name), []
        while pid > 1:
            parents.append(pid)
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                break
        if root in parents[1:]:
            words = Path(entry, "cmdline").read_bytes().split(b"\0")
            name = next((word.decode() for word in words if word.startswith(b"registry.")), "other")
            found.append((f"{name} {entry.name}", int(entry.name)))
    return found


def quickstart(folder: Path) -> dict[str, float]:
    argv = [str(Path(sys.executable).with_name("hedgerow")), "quickstart", "--json", "--folder", str(folder)]
    answer = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    figures: dict[str, float] = json.loads(answer)["figures"]
    return figures


def row(what: str, value: float, unit: str, bar: float, beside: str = "") -> None:
    verdict = "within" if value <= bar else "OVER"
    print(f"{what:42} {value:8.2f} {unit:3} bar {bar:6.2f}  {verdict:6} {beside}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=5.0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {options.rounds} rounds")

    pairs = [(seconds(hedgerow_help), seconds(bare_interpreter)) for _ in range(options.rounds + 1)][1:]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    row("hedgerow --help", statistics.median(ours for ours, _ in pairs), "s", 0.15, f"{ratio:.1f}x a bare interpreter")

    with tempfile.TemporaryDirectory() as scratch:
        rounds = [(up(Path(scratch, f"w{n}"), options.idle_s if n == 0 else 0), bare_server()) for n in range(options.rounds)]
        ratio = statistics.median(took / bare for (took, _), bare in rounds)
        row(
            "up to ready (new workspace)",
            statistics.median(t for (t, _), _ in rounds),
            "s",
            2.0,
            f"{ratio:.1f}x a bare gunicorn + Flask",
        )
        memory = rounds[0][0][1]
        row("all of up, idle, PSS", sum(memory.values()), "MB", 220.0, ", ".join(f"{k} {v:.0f}" for k, v in memory.items()))
        figures = [quickstart(Path(scratch, "quickstart")) for _ in range(min(options.rounds, 3))]
        row("quickstart", statistics.median(f["total_s"] for f in figures), "s", 60.0)
        row("killed module running and reported again", statistics.median(f["module_back_s"] for f in figures), "s", 1.0)


if __name__ == "__main__":
    main()
