"""The balancer is reloaded, or ended, while callers keep their connections to it: nobody who asks is left without an answer."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hedgerow.clock import SystemClock
from hedgerow.process import Supervised
from hedgerow.sdk.client import Client
from registry.controller.balancer.haproxy_config import HaproxyOptions
from registry.controller.balancer.haproxy_process import HaproxyBalancer
from registry.controller.balancer.haproxy_socket import HaproxySocket
from registry.controller.balancer.port import Pool, RoutingTable, Slot
from registry.controller.event_loop import EventLoop
from tests.controller_process import ROW, Plane, delete, deploy, doubling_model, plane
from tests.scoring_server import ScoringServer
from tests.steady_load import Load, steady_load
from tests.waiting import accepts_connections, free_port, wait_for

BODY = json.dumps(ROW).encode()
PATH = "/services/twice/score"
IDLE_CALLERS = 40
RELOADS = 6
# The controller gives its services eight seconds to end; idle callers must not use them up.
ENDED_S = 7.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("reloads"), "--stop-services-on-exit") as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Iterator[Client]:
    yield made.client
    if made.controller.is_running:
        for endpoint in made.client.services.list().items:
            delete(made, endpoint.name)


def info(made: Plane, name: str) -> str:
    """What the process that takes new connections says of itself."""
    lines = HaproxySocket(made.folder / "run" / "balancer").ask("show info").splitlines()
    return next(line for line in lines if line.startswith(f"{name}: "))


class Callers:
    """Makes connections that are made once and never again by themselves."""

    def __init__(self, made: Plane, closing: ExitStack) -> None:
        self._port, self._closing = made.balancer_port, closing

    def new(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.connect()
        connection.auto_open = 0
        self._closing.callback(connection.close)
        return connection


@pytest.fixture
def callers(made: Plane) -> Iterator[Callers]:
    with ExitStack() as closing:
        yield Callers(made, closing)


def ask(connection: http.client.HTTPConnection) -> tuple[int, float, bool]:
    """Status, the model's factor, and whether the answer says that it is the last one."""
    connection.request("POST", PATH, BODY, {"Content-Type": "application/json"})
    return answer(connection)


def answer(connection: http.client.HTTPConnection) -> tuple[int, float, bool]:
    response = connection.getresponse()
    value = json.loads(response.read())[0][0]
    return response.status, value, response.will_close


def some_load(load: Load) -> None:
    before = load.good
    wait_for(lambda: load.good > before + 50, what="load")


@pytest.fixture
def balancer(haproxy_binary: Path, tmp_path: Path) -> Iterator[HaproxyBalancer]:
    """One without a controller."""
    clock = SystemClock()
    made = HaproxyBalancer(
        program=haproxy_binary,
        folder=tmp_path / "balancer",
        process=Supervised(tmp_path / "process"),
        options=HaproxyOptions(port=free_port(), threads=2, max_connections=500),
        loop=EventLoop(clock),
        clock=clock,
        on_end=lambda: None,
    )
    yield made
    made.stop(0.0)


def test_idle_callers_are_answered_once_more_by_whoever_serves_then(
    made: Plane, client: Client, callers: Callers, double: str, triple: str
) -> None:
    deploy(client, double)
    before = info(made, "description")
    idle, silent = [callers.new() for _ in range(IDLE_CALLERS)], callers.new()
    assert {ask(one) for one in idle} == {(200, 2.0, False)}
    deploy(client, double, replicas=3)
    assert info(made, "description") != before, "this scaling reloads the balancer"
    # Of the replicas that the process before knows of, none is left.
    old = made.running("replica-")
    deploy(client, triple, replicas=3)
    wait_for(lambda: not set(old) & set(made.running("replica-")), timeout_s=20, what="the end of the old replicas")
    assert {ask(one) for one in idle} == {(200, 3.0, True)}
    assert ask(silent) == (200, 3.0, True), "one that had not asked anything yet"


def test_callers_that_never_pause_lose_nothing_in_many_reloads(balancer: HaproxyBalancer, tmp_path: Path) -> None:
    def apply(timeout_ms: int) -> str:
        """A number that the balancer has not seen is a reload."""
        pool = Pool(
            "twice", "blue", max_concurrent=8, queue_wait_ms=500, timeout_ms=timeout_ms, slots=(Slot("ready", server.port),)
        )
        table = RoutingTable((pool,), {"twice": {"blue": 100}})
        return wait_for(lambda: balancer.apply(table).urls.get("twice"), what="the balancer") or ""

    with ScoringServer(tmp_path / "replica", "--model", doubling_model(tmp_path / "model")) as server:
        url = apply(timeout_ms=60_000)
        with steady_load(url, ROW, clients=6) as load:
            for number in range(1, RELOADS + 1):
                apply(timeout_ms=60_000 + number)
                some_load(load)
    assert not load.bad


def test_the_end_waits_for_requests_inside_not_for_idle_callers(
    made: Plane, client: Client, callers: Callers, double: str
) -> None:
    deploy(client, double)
    before = info(made, "description")
    idle, inside = [callers.new()], callers.new()
    inside.putrequest("POST", PATH)
    inside.putheader("Content-Length", str(len(BODY)))
    inside.endheaders(BODY[:5])
    deploy(client, double, replicas=3)
    assert info(made, "description") != before, "the request is inside the process before"
    idle.append(callers.new())
    assert [ask(one) for one in idle] == [(200, 2.0, True), (200, 2.0, False)]
    master, told_at = made.one_running("balancer"), time.monotonic()
    made.controller.send(signal.SIGTERM)
    wait_for(lambda: not accepts_connections(made.balancer_port), what="the balancer taking nothing new")
    assert made.running("balancer") == [master], "it waits"
    inside.send(BODY[5:])
    assert answer(inside)[:2] == (200, 2.0)
    wait_for(lambda: not made.controller.is_running, timeout_s=20, what="the end of the controller")
    assert time.monotonic() - told_at < ENDED_S
    assert not made.supervised("balancer")
