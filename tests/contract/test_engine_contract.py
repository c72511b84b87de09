"""One suite for every engine that runs modules: what the agent may rely on, on real processes and on a real Docker engine."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest

from edge_agent.engines.engine import Engine, Launch
from edge_agent.engines.engine_docker import DockerEngine
from edge_agent.engines.engine_process import ProcessEngine
from edge_agent.errors import EngineBlind
from edge_agent.reconcile.situation import EngineKind, Exited, Running, Seen, Wanted, fingerprint
from hedgerow.contracts.edge import DesiredModule, Limits, ModuleSpec
from hedgerow.contracts.names import LABEL_OWNER
from hedgerow.errors import HedgerowError
from tests.agent_builders import Workspace
from tests.waiting import wait_for

S = TypeVar("S", Running, Exited)


@dataclass
class Bench:
    """An engine under test. ``again`` gives another one that looks at the same modules, as the next agent would."""

    kind: EngineKind
    engine: Engine
    again: Callable[[], Engine]
    image: str | None

    def wanted(self, script: str, name: str = "m", **spec: Any) -> Wanted:
        module = DesiredModule(spec=ModuleSpec(kind=self.kind, image=self.image, command=["/bin/sh", "-c", script], **spec))
        return Wanted(name, module.spec, None, fingerprint(module))

    def start(self, wanted: Wanted, **environment: str) -> None:
        self.engine.start(Launch(wanted, environment))

    def seen(self, name: str = "m", engine: Engine | None = None) -> Seen | None:
        return next((seen for seen in (engine or self.engine).look() if seen.name == name), None)

    def wait(self, kind: type[S], name: str = "m", engine: Engine | None = None) -> S:
        def look() -> S | None:
            seen = self.seen(name, engine)
            return seen if isinstance(seen, kind) else None

        found = wait_for(look, timeout_s=30, what=f"{name} to be {kind.__name__}")
        assert found is not None
        return found


@contextmanager
def process_bench(tmp_path: Path) -> Iterator[Bench]:
    engines: list[ProcessEngine] = []

    def make() -> ProcessEngine:
        engines.append(ProcessEngine(tmp_path / "modules", lambda _image: tmp_path / "none", {"PATH": "/usr/bin:/bin"}))
        engines[-1].watch(lambda: None)
        return engines[-1]

    first = make()
    yield Bench("process", first, make, None)
    for seen in first.look():
        first.stop(seen.name, 0.0)
    for engine in engines:
        engine.close()


@contextmanager
def docker_bench(client: docker.DockerClient, host: str, image: str) -> Iterator[Bench]:
    config = Workspace(uuid=uuid.uuid4().hex).config
    engines: list[DockerEngine] = []

    def make() -> DockerEngine:
        engines.append(DockerEngine(config, [], lambda _host: None, base_url=host))
        engines[-1].watch(lambda: None)
        wait_for(lambda: _sees(engines[-1]), timeout_s=30, what="the first look at the Docker engine")
        return engines[-1]

    yield Bench("docker", make(), make, image)
    for engine in engines:
        engine.close()
    for container in client.containers.list(all=True, filters={"label": f"{LABEL_OWNER}={config.device_uuid}"}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"{LABEL_OWNER}={config.device_uuid}"}):
        network.remove()


def _sees(engine: Engine) -> bool:
    try:
        engine.look()
    except EngineBlind:
        return False
    return True


@pytest.fixture(params=["process", "docker"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "process":
        with process_bench(tmp_path) as made:
            yield made
    else:
        client, host = request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_host")
        with docker_bench(client, host, request.getfixturevalue("python_base_image")) as made:
            yield made


def test_what_was_started_is_seen_running_with_its_fingerprint(bench: Bench) -> None:
    assert bench.engine.look() == []
    wanted = bench.wanted("exec sleep 1000")
    bench.start(wanted)
    seen = bench.wait(Running)
    assert (seen.name, seen.kind, seen.fingerprint) == ("m", bench.kind, wanted.fingerprint)
    assert seen.pid
    assert Path(f"/proc/{seen.pid}").exists()
    assert seen.started_at.tzinfo is not None


def test_variables_of_spec_and_agent_reach_the_module_and_its_exit_code_comes_back(bench: Bench) -> None:
    bench.start(bench.wanted('test "$A$B" = xy && exit 7; exit 1', variables={"A": "x"}), B="y")
    ended = bench.wait(Exited)
    assert ended.exit_code == 7
    assert "7" in ended.reason
    assert ended.exited_at is not None
    assert ended.exited_at >= ended.started_at


def test_a_run_keeps_its_identity_from_start_to_end_and_the_next_has_another(bench: Bench) -> None:
    wanted = bench.wanted("exec sleep 1000")
    bench.start(wanted)
    first = bench.wait(Running)
    bench.engine.stop("m", 0.2)
    ended = bench.wait(Exited)
    assert (ended.run, ended.fingerprint) == (first.run, wanted.fingerprint)
    bench.start(wanted)
    assert bench.wait(Running).run != first.run


def test_an_end_is_told_at_once(bench: Bench) -> None:
    told = threading.Event()
    if isinstance(bench.engine, ProcessEngine):
        bench.engine.close()
    bench.engine.watch(told.set)
    bench.start(bench.wanted("exec sleep 1000"))
    pid = bench.wait(Running).pid
    told.clear()
    assert pid is not None
    os.kill(pid, 9)
    assert told.wait(30), "nobody was told"
    assert bench.wait(Exited).exit_code == 137


def test_stop_asks_first_and_kills_after_the_grace(bench: Bench) -> None:
    bench.start(bench.wanted("trap 'exit 5' TERM; while :; do sleep 0.1; done", name="polite"))
    bench.start(bench.wanted("trap '' TERM; while :; do sleep 0.1; done", name="stubborn"))
    bench.wait(Running, "polite")
    bench.wait(Running, "stubborn")
    # A signal that comes before the shell has set its trap would end it politely too.
    wait_for(lambda: _catches_term(bench, "polite") and _catches_term(bench, "stubborn"), what="the traps")
    bench.engine.stop("polite", 20.0)
    assert bench.wait(Exited, "polite").exit_code == 5
    bench.engine.stop("stubborn", 1.0)
    assert bench.wait(Exited, "stubborn").exit_code == 137


def _catches_term(bench: Bench, name: str) -> bool:
    seen = bench.seen(name)
    assert isinstance(seen, Running)
    masks = [
        line.split()[1]
        for line in Path(f"/proc/{seen.pid}/status").read_text().splitlines()
        if line.startswith(("SigCgt", "SigIgn"))
    ]
    return any(int(mask, 16) & (1 << 14) for mask in masks)


def test_stop_and_remove_of_what_is_not_there_are_fine(bench: Bench) -> None:
    bench.engine.stop("nobody", 0.1)
    bench.engine.remove("nobody", purge=True)
    assert bench.engine.look() == []


def test_remove_leaves_nothing_to_be_seen(bench: Bench) -> None:
    bench.start(bench.wanted("exit 0"))
    bench.wait(Exited)
    bench.engine.remove("m", purge=True)
    assert bench.seen() is None
    assert bench.engine.look() == []


def test_the_next_agent_adopts_what_runs_and_what_has_ended(bench: Bench) -> None:
    bench.start(bench.wanted("exec sleep 1000", name="runs"))
    bench.start(bench.wanted("exit 4", name="ended"))
    runs, ended = bench.wait(Running, "runs"), bench.wait(Exited, "ended")
    successor = bench.again()
    assert bench.wait(Running, "runs", successor) == runs
    assert bench.wait(Exited, "ended", successor) == ended
    successor.stop("runs", 0.2)
    assert bench.wait(Exited, "runs", bench.engine).run == runs.run


def test_two_modules_live_side_by_side(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.start(bench.wanted("exec sleep 1000", name=name))
    assert bench.wait(Running, "a").pid != bench.wait(Running, "b").pid
    bench.engine.stop("a", 0.2)
    bench.wait(Exited, "a")
    assert isinstance(bench.seen("b"), Running)


def test_what_cannot_run_is_an_error_with_words_and_leaves_room_for_the_next_try(bench: Bench) -> None:
    broken = bench.wanted("irrelevant")
    spec = ModuleSpec(kind=bench.kind, image=bench.image, command=["/no/such/program"])
    with pytest.raises(HedgerowError) as refused:
        bench.start(replace(broken, spec=spec))
    assert "/no/such/program" in str(refused.value)
    working = bench.wanted("exec sleep 1000")
    if bench.seen() is not None:
        bench.engine.remove("m", purge=False)
    bench.start(working)
    assert bench.wait(Running).fingerprint == working.fingerprint


def test_the_limit_of_open_files_holds(bench: Bench) -> None:
    bench.start(bench.wanted("ulimit -n | grep -qx 64 && exit 3; exit 1", limits=Limits(open_files=64)))
    assert bench.wait(Exited).exit_code == 3
