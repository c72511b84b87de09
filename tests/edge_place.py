"""A whole edge: broker, hub and agent as real processes, modules that hand over numbers, and the invariant that they come once.

The invariant: what was acknowledged to a module is in the hub's database exactly once. (Nothing here fills the buffer, so a
gap would be a loss as well.)
"""

from __future__ import annotations

import base64
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.seal import device_key
from hedgerow.process import Supervised
from registry.store import fleet, telemetry
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.hub_parts import HubPlace
from tests.waiting import wait_for

# Posts numbered messages and writes each number to the file "told" once it was acknowledged. What it got no answer for it posts
# again under the same idempotency key. Arguments: seconds between messages, and a file whose presence lets it rest.
POSTER = """
import os, sys, time, urllib.request
pause_s, rest = float(sys.argv[1]), sys.argv[2]
url, token = os.environ["HEDGEROW_TELEMETRY_URL"], os.environ["HEDGEROW_TELEMETRY_TOKEN"]
lines = open("told").read().split("\\n")[:-1] if os.path.exists("told") else []
number = int(lines[-1]) + 1 if lines else 0
with open("told", "a") as told:
    while True:
        time.sleep(pause_s)
        if os.path.exists(rest):
            continue
        request = urllib.request.Request(url, data=str(number).encode(), method="POST",
            headers={"authorization": "Bearer " + token, "idempotency-key": f"k{number}"})
        try:
            urllib.request.urlopen(request, timeout=20).read()
        except OSError:
            time.sleep(0.02)
            continue
        told.write(f"{number}\\n")
        while True:
            try:
                told.flush()
                break
            except OSError:  # a full disk; what was not written stays in the buffer
                time.sleep(0.02)
        number += 1
"""
MODULES = ("a", "b")


class DeviceFile:
    """device.toml of a device of this place, enrolled now."""

    def __init__(self, place: HubPlace, name: str, broker_url: str | None = None) -> None:
        self.uuid = place.enroll(name)
        key = device_key(place.workspace.device_master, self.uuid, fleet.FIRST_KEY_GENERATION)
        self.config = DeviceConfig(
            device_uuid=self.uuid,
            name=name,
            workspace_id=place.workspace.id,
            topic_prefix=place.workspace.topic_prefix,
            broker_url=broker_url or f"mqtt://127.0.0.1:{place.port}",
            registry_url="http://127.0.0.1:9",
            device_key=base64.b64encode(key).decode(),
            pull_token="none",
            trusted_keys=[place.workspace.trusted_key],
        )

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


class EdgePlace:
    """An agent with the modules ``MODULES`` on a started ``HubPlace``."""

    def __init__(self, hub: HubPlace, agent: AgentProcess, uuid: str) -> None:
        self.hub, self.agent, self.uuid = hub, agent, uuid
        self._rest = agent.folder / "rest"

    def deploy(self, *, pause_s: float = 0.002, variables: dict[str, str] | None = None) -> None:
        """Start the posters, and wait until each was answered."""
        command = [sys.executable, "-c", POSTER, str(pause_s), str(self._rest)]
        modules = {name: ModuleSpec(command=command, variables=dict(variables or {})) for name in MODULES}
        self.hub.deploy(EdgeDeployment(name="posting", target="*", modules=modules))
        wait_for_or_show(self.agent, lambda: all(self.told(name) for name in MODULES), 60, "the first messages")

    def told(self, module: str) -> list[int]:
        """Numbers that this module knows to be safe."""
        path = self.agent.state / "modules" / module / "work" / "told"
        return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def told_bytes(self) -> int:
        """Grows with every acknowledged message."""
        paths = [self.agent.state / "modules" / module / "work" / "told" for module in MODULES]
        return sum(path.stat().st_size for path in paths if path.exists())

    def wait_for_more(self, what: str, timeout_s: float = 60.0) -> None:
        """Until messages were handed over and acknowledged to modules again."""
        before = self.told_bytes()
        wait_for_or_show(self.agent, lambda: self.told_bytes() > before + 50, timeout_s, f"messages {what}")

    def arrived(self) -> dict[str, Counter[str]]:
        """How often each body of a module is in the hub's database."""
        with self.hub.database.read_series() as connection:
            rows = telemetry.after(connection, 10_000_000, 0, device_uuid=self.uuid)
        found: dict[str, Counter[str]] = {module: Counter() for module in MODULES}
        for row in rows:
            found[row.module][row.body] += 1
        return found

    def count(self) -> int:
        """Messages in the hub's database."""
        with self.hub.database.read_series() as connection:
            return sum(total.stored for total in telemetry.totals(connection) if total.device_uuid == self.uuid)

    def wait_for_arrivals(self, what: str, timeout_s: float = 90.0) -> None:
        """Until more has arrived at the hub than there was."""
        before = self.count()
        wait_for_or_show(self.agent, lambda: self.count() > before, timeout_s, f"arrivals at the hub {what}")

    def pause(self) -> None:
        """The modules hand nothing over until :meth:`go_on`; what they handed over is at the hub when this returns."""
        self._rest.touch()
        wait_for_or_show(self.agent, self._all_arrived, 90, "everything at the hub")
        # A buffer that is damaged while acknowledgements are on their way may send those messages again.
        wait_for_or_show(self.agent, lambda: self.agent.metric("edgehub_queue_length") == 0, 90, "the acknowledgements")

    def pause_after(self, excused: Mapping[str, set[int]]) -> None:
        """Like :meth:`pause`, but ``excused`` numbers of modules need not come."""
        self._rest.touch()
        wait_for_or_show(self.agent, lambda: self._all_arrived(excused), 90, "everything else at the hub")

    def hold(self) -> None:
        """The modules hand nothing over until :meth:`go_on`."""
        self._rest.touch()

    def go_on(self) -> None:
        self._rest.unlink()

    def _all_arrived(self, excused: Mapping[str, set[int]] | None = None) -> bool:
        return all(
            {str(number) for number in set(self.told(module)) - (excused or {}).get(module, set())} <= found.keys()
            for module, found in self.arrived().items()
        )

    def rest(self) -> None:
        """The modules hand nothing over any more."""
        self._rest.touch()
        for module in MODULES:
            process = Supervised(self.agent.state / "modules" / module / "process")
            process.signal(signal.SIGSTOP)

    def check(self, timeout_s: float = 120.0) -> None:
        """The modules rest; everything that they were acknowledged comes, and came once, and nothing was reported lost."""
        self.rest()
        told = {module: {str(number) for number in self.told(module)} for module in MODULES}
        wanted = sum(len(numbers) for numbers in told.values())
        assert wanted > 10

        def all_there() -> bool:
            return self.count() >= wanted and all(told[module] <= found.keys() for module, found in self.arrived().items())

        wait_for_or_show(self.agent, all_there, timeout_s, f"all {wanted} acknowledged messages at the hub")
        for module, found in self.arrived().items():
            assert {body: times for body, times in found.items() if times != 1} == {}, "stored more than once"
            # One message may have been stored without its module having heard of it.
            assert len(found.keys() - told[module]) <= 1
        with self.hub.database.read_series() as connection:
            assert telemetry.recorded_gaps(connection, 10) == []


@contextmanager
def edge_place(
    hub: HubPlace,
    folder: Path,
    *options: str,
    broker_url: str | None = None,
    env: dict[str, str] | None = None,
    agent_type: type[AgentProcess] = AgentProcess,
    inside: Sequence[str] = (),
    name: str = "porch",
) -> Iterator[EdgePlace]:
    """An enrolled, started agent. ``inside``: the beginning of its command line, for an agent in another namespace."""
    device = DeviceFile(hub, name, broker_url)
    folder.mkdir(parents=True, exist_ok=True)
    agent = agent_type(device, folder, *options, env=env)
    agent.process.argv = [*inside, *agent.process.argv]
    with agent:
        yield EdgePlace(hub, agent, device.uuid)


def online(place: EdgePlace) -> bool:
    """Whether the agent says that it has a session."""
    return "hedgerow_agent_connected 1" in place.agent.get("/metrics")[1]


def wait_started(place: EdgePlace) -> None:
    """The agent's local port answers (again)."""
    wait_for(place.agent._answers, timeout_s=60, what="the agent's local port")
