"""What modules, the agent and the machine use: CPU, memory, processes, disk, network, as the kernel counts them.

A module in a control group of its own (a container, or a process module under cgroup limits) is read from that group, any
other from the processes of its session. Looked at when somebody scrapes, at most every ``LOOK_S`` seconds: one walk over
``/proc`` for all modules together, nothing in between.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.observing.metrics import Sample
from hedgerow.clock import Clock

LOOK_S = 5.0
AGENT, HOST = "edgeAgent", "host"
CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of one module; None is what cannot be told apart from others."""

    cpu_s: float
    memory_bytes: int
    pids: int
    memory_limit: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    net_in: int | None = None
    net_out: int | None = None


class UsageView:
    """Remembers the last look, for rates and so that a frequent scraper costs nothing. Thread-safe."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._lock = threading.Lock()
        self._at_s = float("-inf")
        self._cpu: dict[str, float] = {}
        self._samples: list[Sample] = []

    def samples(self, modules: Mapping[str, int]) -> list[Sample]:
        """Samples of the modules (name → pid), of this agent and of the machine."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._at_s >= LOOK_S:
                used = usage_of(modules)
                elapsed_s, self._at_s = now_s - self._at_s, now_s
                self._samples = [
                    *(sample for name, usage in used.items() for sample in _of_usage(name, usage)),
                    *self._percentages({name: usage.cpu_s for name, usage in used.items()}, elapsed_s),
                    *of_machine(self._folder, now_s - self._started_s),
                    *of_this_process(),
                ]
            return self._samples

    def _percentages(self, cpu: dict[str, float], elapsed_s: float) -> Iterator[Sample]:
        """CPU since the last look; what was not there then has no rate yet."""
        cpu = {**cpu, AGENT: _own_cpu_s(), HOST: _host_cpu_s()}
        before, self._cpu = self._cpu, cpu
        for name, used in cpu.items():
            if name in before and used >= before[name] and elapsed_s > 0:
                percent = 100 * (used - before[name]) / elapsed_s / (os.cpu_count() or 1)
                yield Sample("edgeAgent_used_cpu_percent", percent, {"module_name": name})


def usage_of(modules: Mapping[str, int]) -> dict[str, Usage]:
    """What each module uses, by name; one that has just ended is left out."""
    own, found, rest = _groups(os.getpid()), dict[str, Usage](), dict[str, int]()
    for name, pid in modules.items():
        groups = _groups(pid)
        usage = _of_group(groups, pid) if groups and groups.get("memory") not in (None, own.get("memory")) else None
        if usage is not None:
            found[name] = usage
        else:
            rest[name] = pid
    return found | _of_sessions(rest)


def _of_usage(name: str, usage: Usage) -> list[Sample]:
    values = {
        "edgeAgent_used_memory_bytes": usage.memory_bytes,
        "edgeAgent_total_memory_bytes": usage.memory_limit,
        "edgeAgent_created_pids_total": usage.pids,
        "edgeAgent_total_network_in_bytes": usage.net_in,
        "edgeAgent_total_network_out_bytes": usage.net_out,
        "edgeAgent_total_disk_read_bytes": usage.read_bytes,
        "edgeAgent_total_disk_write_bytes": usage.write_bytes,
    }
    return [Sample(metric, value, {"module_name": name}) for metric, value in values.items() if value is not None]


def of_machine(folder: Path, uptime_s: float) -> list[Sample]:
    """Disk, memory, network and uptime as the kernel tells them; ``uptime_s`` is the agent's own."""
    disk = shutil.disk_usage(folder)
    total, free = os.sysconf("SC_PHYS_PAGES") * _PAGE, os.sysconf("SC_AVPHYS_PAGES") * _PAGE
    host_uptime = float((_PROC / "uptime").read_text(encoding="ascii").split()[0])
    net_in, net_out = _network(os.getpid())
    return [
        Sample("edgeAgent_available_disk_space_bytes", disk.free, {"disk_name": "state"}),
        Sample("edgeAgent_total_disk_space_bytes", disk.total, {"disk_name": "state"}),
        Sample("edgeAgent_used_memory_bytes", total - free, {"module_name": HOST}),
        Sample("edgeAgent_total_memory_bytes", total, {"module_name": HOST}),
        Sample("edgeAgent_total_network_in_bytes", net_in, {"module_name": HOST}),
        Sample("edgeAgent_total_network_out_bytes", net_out, {"module_name": HOST}),
        Sample("edgeAgent_host_uptime_seconds", host_uptime),
        Sample("edgeAgent_iotedged_uptime_seconds", uptime_s),
    ]


def of_this_process() -> list[Sample]:
    """The agent itself, under the names that Prometheus' client libraries use and under IoT Edge's."""
    fields = _stat(os.getpid())
    virtual, resident = int(fields[20]), int(fields[21]) * _PAGE
    boot_s = next(
        int(line.split()[1]) for line in (_PROC / "stat").read_text(encoding="ascii").splitlines() if line.startswith("btime")
    )
    read, written = _disk(os.getpid()) or (0, 0)
    return [
        *_of_usage(AGENT, Usage(0.0, resident, 1, read_bytes=read, write_bytes=written)),
        Sample("process_resident_memory_bytes", resident),
        Sample("process_virtual_memory_bytes", virtual),
        Sample("process_cpu_seconds_total", _own_cpu_s()),
        Sample("process_open_fds", sum(1 for _ in (_PROC / "self/fd").iterdir())),
        Sample("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        Sample("process_start_time_seconds", boot_s + int(fields[19]) / _TICKS),
    ]


def _of_group(groups: Mapping[str, str], pid: int) -> Usage | None:
    """The control group of ``pid``, version 2 or 1. None when it cannot be read from here (another cgroup namespace)."""
    try:
        unified = CGROUPS / groups["memory"].lstrip("/")
        usage = _of_unified(unified) if (unified / "memory.current").exists() else _of_separate(groups)
        if _own_network(pid):
            net_in, net_out = _network(pid)
            usage = replace(usage, net_in=net_in, net_out=net_out)
    except (OSError, KeyError, ValueError):
        return None
    return usage


def _of_unified(group: Path) -> Usage:
    cpu = dict(line.split() for line in (group / "cpu.stat").read_text(encoding="ascii").splitlines())
    disk = (group / "io.stat").read_text(encoding="ascii").split() if (group / "io.stat").exists() else []
    return Usage(
        cpu_s=int(cpu["usage_usec"]) / 1e6,
        memory_bytes=_number(group / "memory.current"),
        pids=_number(group / "pids.current"),
        memory_limit=_limit(group / "memory.max"),
        read_bytes=_sum_of("rbytes=", disk),
        write_bytes=_sum_of("wbytes=", disk),
    )


def _of_separate(groups: Mapping[str, str]) -> Usage:
    memory, cpu, pids = (CGROUPS / name / groups[name].lstrip("/") for name in ("memory", "cpuacct", "pids"))
    return Usage(
        cpu_s=_number(cpu / "cpuacct.usage") / 1e9,
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        pids=_number(pids / "pids.current"),
        memory_limit=_limit(memory / "memory.limit_in_bytes"),
    )


def _of_sessions(modules: Mapping[str, int]) -> dict[str, Usage]:
    """Sums over the processes of each module's session, its leader's pid being the session's number."""
    names = {str(pid): name for name, pid in modules.items()}
    cpu, memory, pids = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    disk = {number: [0, 0] for number in names}
    for entry in os.scandir(_PROC) if names else []:
        if not entry.name.isdigit():
            continue
        fields = _stat(int(entry.name))
        number = fields[3] if len(fields) > 3 else ""
        if number not in names:
            continue
        cpu[number] += (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS
        memory[number] += int(fields[21]) * _PAGE
        pids[number] += 1
        for place, value in enumerate(_disk(int(entry.name)) or (0, 0)):
            disk[number][place] += value
    return {
        name: Usage(cpu[number], memory[number], pids[number], read_bytes=disk[number][0], write_bytes=disk[number][1])
        for number, name in names.items()
        if pids[number]
    }


def _groups(pid: int) -> dict[str, str]:
    """Path of the control group by controller; under version 2 one path for all."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    if "memory" not in groups and "" in groups:
        groups |= dict.fromkeys(("memory", "cpuacct", "pids"), groups[""])
    return groups


def _stat(pid: int) -> list[str]:
    """``/proc/PID/stat`` after the name: ``[0]`` is the state (field 3 of proc(5)), ``[3]`` the session, …; [] when it ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _disk(pid: int) -> tuple[int, int] | None:
    try:
        lines = (_PROC / str(pid) / "io").read_text(encoding="ascii").splitlines()
    except OSError:  # another user's process
        return None
    values = dict(line.split(": ") for line in lines)
    return int(values["read_bytes"]), int(values["write_bytes"])


def _own_network(pid: int) -> bool:
    """False for a module that shares the machine's network: its traffic cannot be told from the rest."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "ns/net").readlink() != (_PROC / "self/ns/net").readlink()
    return False


def _network(pid: int) -> tuple[int, int]:
    """Bytes in and out over all interfaces but the loopback."""
    received = sent = 0
    for line in (_PROC / str(pid) / "net/dev").read_text(encoding="ascii").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            values = numbers.split()
            received, sent = received + int(values[0]), sent + int(values[8])
    return received, sent


def _sum_of(prefix: str, words: list[str]) -> int:
    return sum(int(word.removeprefix(prefix)) for word in words if word.startswith(prefix))


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _limit(path: Path) -> int | None:
    text = path.read_text(encoding="ascii").strip()
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return None if text == "max" or int(text) > machine else int(text)


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _host_cpu_s() -> float:
    with (_PROC / "stat").open(encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(value) for value in file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS
