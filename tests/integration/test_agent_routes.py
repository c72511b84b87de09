"""Messages between modules and to the hub by routes, over real sockets and a real buffer; inputs read over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.decisions import DecisionLog
from edge_agent.link.desired import Accepted, DesiredKeeper, Refusal
from edge_agent.observing.metrics import Metrics
from edge_agent.state_store import StateStore
from edge_agent.telemetry.entries import Entry
from edge_agent.telemetry.in_force import put_in_force
from edge_agent.telemetry.intake import Intake
from edge_agent.telemetry.module_inputs import ModuleInputs
from edge_agent.telemetry.outbox import Limits, Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import ModuleMessage
from edge_agent.telemetry.routing.router import Router
from edge_agent.telemetry.tokens import Tokens
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import DesiredModule, DesiredState, Route
from tests.agent_builders import Workspace, desired, shell
from tests.agent_process import AgentProcess
from tests.waiting import wait_for

TOKENS = Tokens(b"k" * 32)
MODULES = {"sensor": "Sensor", "filter": None}
ROUTES = {
    "Hot": Route(
        route="FROM /messages/modules/Sensor/outputs/t WHERE $body.t > 20 OR unit = 'F'"
        ' INTO BrokeredEndpoint("/modules/filter/inputs/In 1")'
    ),
    "alerts": Route(route="FROM /messages/modules/Sensor/outputs/alerts INTO $upstream", priority=0, time_to_live_s=3600),
    "filtered": Route(route="FROM /messages/modules/filter/* INTO $upstream"),
}
INPUT = "/inputs/In%201"


class Local:
    """A buffer with routes, and its port."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(
            folder / "outbox.sqlite", Limits(1_000_000, 100_000), lambda: self.inputs.hurry(), lambda _problem: None
        )
        self.inputs = ModuleInputs(self.outbox)
        self.metrics = Metrics()
        reception = Reception(self.outbox, Router(ROUTES, MODULES, "porch"), self.metrics)
        self.intake = Intake(
            reception, self.inputs, TOKENS, SystemClock(), self.metrics, max_message_bytes=4000, exposition=lambda: ""
        )
        self.port = self.intake.start(0)

    def close(self) -> None:
        self.intake.close()
        self.outbox.close()

    def stored(self, stream: str) -> list[Any]:
        epoch, _ = self.outbox.streams()
        portion = self.outbox.read_after(epoch, stream, self.outbox.settled(stream), max_messages=100, max_bytes=10**6)
        return [json.loads(message.body) for message in portion.messages] if portion else []


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    made.close()


def ask(
    port: int, module: str, method: str, path: str, body: object = None, *, tokens: Tokens = TOKENS, **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"authorization": f"Bearer {tokens.of(module)}"} | names)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def send(port: int, output: str, body: object, **more: Any) -> tuple[int, Any]:
    return ask(port, "sensor", "POST", f"/telemetry?output={output}", body, **more)


def bodies(answer: Mapping[str, Any]) -> list[Any]:
    return [message["body"] for message in answer["messages"]]


def test_a_message_takes_the_routes_that_fit_it(local: Local) -> None:
    assert send(local.port, "t", {"t": 25}) == (201, {"stream": local_stream(local), "sequence": 1})
    assert send(local.port, "t", {"t": 5}) == (200, {"stream": None, "sequence": None})
    assert send(local.port, "t", {"t": 6}, iothub_app_unit="F")[0] == 201
    assert ask(local.port, "sensor", "POST", "/telemetry?output=t&properties=unit%3DF%26n%3Da%2526b", {"t": 7})[0] == 201
    assert send(local.port, "alerts", {"fire": 1}) == (201, {"stream": "route.alerts", "sequence": 1})
    assert ask(local.port, "filter", "POST", "/telemetry", {"mean": 3}) == (201, {"stream": "telemetry", "sequence": 1})
    assert local.stored("route.alerts") == [{"fire": 1}]
    assert local.stored("telemetry") == [{"mean": 3}]
    assert local.outbox.urgency("route.alerts") == 0
    answer = ask(local.port, "filter", "GET", INPUT)[1]
    assert bodies(answer) == [{"t": 25}, {"t": 6}, {"t": 7}]
    assert answer["messages"][2]["properties"] == {"unit": "F", "n": "a&b"}
    assert {message["source"] for message in answer["messages"]} == {"sensor"}
    dropped = [one for one in local.metrics.samples() if one.name == "edgehub_messages_dropped_total"]
    assert [(one.value, one.labels["reason"]) for one in dropped] == [(1, "no_route")]


def local_stream(local: Local) -> str:
    return next(iter(local.outbox.local_streams()[1]))


def test_what_is_not_acknowledged_comes_again_in_order(local: Local) -> None:
    for number in range(25, 29):
        send(local.port, "t", {"t": number})
    first = ask(local.port, "filter", "GET", f"{INPUT}?max=2")[1]
    assert bodies(first) == [{"t": 25}, {"t": 26}]
    assert bodies(ask(local.port, "filter", "GET", f"{INPUT}?max=3")[1]) == [{"t": 25}, {"t": 26}, {"t": 27}]
    assert ask(local.port, "filter", "POST", f"{INPUT}/ack", {"ack": first["ack"]}) == (200, {})
    rest = ask(local.port, "filter", "GET", INPUT)[1]
    assert bodies(rest) == [{"t": 27}, {"t": 28}]
    assert ask(local.port, "filter", "POST", f"{INPUT}/ack", {"ack": rest["ack"]}) == (200, {})
    assert ask(local.port, "filter", "GET", INPUT) == (200, {"messages": [], "ack": None})
    assert ask(local.port, "filter", "POST", f"{INPUT}/ack", {"ack": first["ack"]}) == (200, {}), "an old one means nothing"
    assert ask(local.port, "filter", "GET", INPUT)[1]["messages"] == []


def test_a_poll_waits_until_something_comes(local: Local) -> None:
    found: list[Any] = []
    poll = threading.Thread(target=lambda: found.append(ask(local.port, "filter", "GET", f"{INPUT}?wait_s=50")))
    poll.start()
    wait_for(lambda: local.inputs.waiting == 1, timeout_s=30, what="the poll to wait")
    send(local.port, "t", {"t": 30})
    poll.join(60)
    assert [(status, bodies(answer)) for status, answer in found] == [(200, [{"t": 30}])]


def test_polls_leave_room_for_telemetry(local: Local) -> None:
    polls = [threading.Thread(target=lambda: ask(local.port, "filter", "GET", f"{INPUT}?wait_s=50")) for _ in range(4)]
    for poll in polls:
        poll.start()
    wait_for(lambda: local.inputs.waiting == 4, timeout_s=30, what="four polls to wait")
    assert ask(local.port, "filter", "GET", f"{INPUT}?wait_s=50") == (200, {"messages": [], "ack": None}), "answered at once"
    local.inputs.close()
    for poll in polls:
        poll.join(60)
    assert local.inputs.waiting == 0


def test_another_modules_input_cannot_be_read_or_written(local: Local) -> None:
    send(local.port, "t", {"t": 25})
    stream = local_stream(local)
    assert ask(local.port, "sensor", "GET", INPUT)[1]["messages"] == []
    assert ask(local.port, "filter", "GET", INPUT, tokens=Tokens(b"x" * 32))[0] == 401
    status, answer = ask(local.port, "sensor", "POST", f"/telemetry?stream={stream}", {"t": 1})
    assert (status, answer["error"]["key"]) == (400, "message_refused")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"{INPUT}/ack", {"ack": '[99,"' + "0" * 64 + '"]'}, 409),
        ("POST", "/inputs/other/ack", {"ack": '[1,"' + "0" * 64 + '"]'}, 409),
        ("POST", f"{INPUT}/ack", {"ack": "[1]"}, 400),
        ("POST", f"{INPUT}/ack", {"acknowledge": "x"}, 400),
        ("POST", f"{INPUT}/ack", "x" * 5000, 413),
        ("GET", f"{INPUT}?wait_s=soon", None, 400),
        ("GET", "/inputs/", None, 400),
        ("GET", f"{INPUT}/ack", None, 404),
        ("GET", "/inputs/a/b", None, 404),
        ("POST", "/telemetry?output=t&properties=unit", {"t": 1}, 400),
        ("POST", "/telemetry?output=" + "o" * 300, {"t": 1}, 400),
    ],
)
def test_what_is_wrong_with_a_request_is_told(local: Local, method: str, path: str, body: object, status: int) -> None:
    send(local.port, "t", {"t": 25})
    found, answer = ask(local.port, "filter", method, path, body)
    assert found == status
    assert answer["error"]["remedy"]


def test_a_buffer_that_lost_messages_goes_on_behind_them(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", Limits(100_000, 0), lambda: None, lambda _problem: None)
    try:
        body = json.dumps({"source": "sensor", "body": json.dumps("x" * 900)})
        for number in range(200):
            outbox.append_all([Entry("input.filter.in", "sensor", number, body, local=True)])
        inputs = ModuleInputs(outbox)
        answer = inputs.poll("filter", "in", {})
        assert answer.messages[0].sequence > 1
        assert answer.ack is not None
        inputs.acknowledge("filter", "in", json.dumps({"ack": answer.ack}).encode())
        assert all(later.sequence > answer.messages[-1].sequence for later in inputs.poll("filter", "in", {}).messages)
    finally:
        outbox.close()


def test_an_agent_routes_as_its_desired_state_says_also_after_a_kill(tmp_path: Path) -> None:
    workspace = Workspace()
    tokens = Tokens(workspace.device_key)
    agent = AgentProcess(workspace, tmp_path / "device")
    agent.state.mkdir()
    (agent.state / "desired.dsse.json").write_bytes(workspace.signed(routed()))
    with agent:
        assert send(agent.port, "t", {"t": 25}, tokens=tokens)[0] == 201
        # It fits no route, but one of the routes cannot be used: nothing is lost for that.
        assert send(agent.port, "t", {"t": 5}, tokens=tokens)[1]["stream"] == "telemetry"
        assert send(agent.port, "alerts", {"fire": 1}, tokens=tokens)[1]["stream"] == "route.alerts"
        refused = [decision.reason for decision in agent.decisions() if decision.action == "refuse-route"]
        assert refused == [f"route typo: {refused[0].split(': ', 1)[1]}"]
        assert "there is no sink $up" in refused[0]
        agent.kill()
        agent.start()
        answer = ask(agent.port, "filter", "GET", f"{INPUT}?wait_s=20", tokens=tokens)[1]
        assert bodies(answer) == [{"t": 25}]
        assert ask(agent.port, "filter", "POST", f"{INPUT}/ack", {"ack": answer["ack"]}, tokens=tokens) == (200, {})
        assert ask(agent.port, "filter", "GET", INPUT, tokens=tokens)[1]["messages"] == []


def routed() -> DesiredState:
    sleeper = shell("exec sleep 1000")
    named = DesiredModule(spec=msgspec.structs.replace(sleeper.spec, display_name="Sensor"))
    routes = {**ROUTES, "typo": Route(route="FROM /messages/modules/nobody INTO $up")}
    return msgspec.structs.replace(desired({"sensor": named, "filter": sleeper}), routes=routes)


def test_routes_follow_the_desired_state_in_force(tmp_path: Path) -> None:
    workspace, store = Workspace(), StateStore(tmp_path)
    keeper = DesiredKeeper(workspace.config, store)
    outbox = Outbox(store.outbox, Limits(1_000_000, 0), lambda: None, lambda _problem: None)
    decisions = DecisionLog(store.decisions, SystemClock())
    try:
        reception = Reception(outbox, Router({}, {}, "porch"), Metrics())
        keeper.on_state = lambda state: put_in_force(state, "porch", reception, outbox, decisions)
        message = ModuleMessage(module="sensor", body="{}", time_ms=1, output="alerts")
        assert reception.take(message)[0].stream == "telemetry"
        assert isinstance(keeper.offer(workspace.signed(routed()), "inc-1"), Accepted)
        assert reception.take(message)[0].stream == "route.alerts"
        plain = msgspec.structs.replace(routed(), routes={}, version=2)
        assert isinstance(keeper.offer(workspace.signed(plain), "another"), Refusal)
        assert reception.take(message)[0].stream == "route.alerts", "a refused state changes nothing"
        assert isinstance(keeper.offer(workspace.signed(plain), "inc-1"), Accepted)
        assert reception.take(message)[0].stream == "telemetry"
        again = DesiredKeeper(workspace.config, store)
        seen: list[int] = []
        again.on_state = lambda state: seen.append(state.version)
        again.load()
        assert seen == [2]
    finally:
        outbox.close()
