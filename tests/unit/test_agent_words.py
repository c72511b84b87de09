"""What a device says of itself: outcomes, probe findings, metrics text, status codes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge_agent.engines.probes import Finding, judge, target_of
from edge_agent.errors import ForeignDesired, ImageRefused, OlderDesired, PullFailed, WrongIncarnation
from edge_agent.link.reported import status_code
from edge_agent.observing.metrics import Metrics, Sample, exposition
from edge_agent.observing.usage import of_machine
from edge_agent.reconcile.outcome import desired_outcome, module_statuses
from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.situation import History, ImageState, Seen, Situation, Wanted
from hedgerow.contracts.edge import Probe
from hedgerow.contracts.signed import SignatureRefused
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus
from hedgerow.errors import DocumentTooNew, HedgerowError, InvalidDocument
from tests.agent_builders import BOOT, command, desired, exited, pin, running, wanted

PROBE = Probe(path="/health", failure_threshold=3)


def say(modules: list[Wanted], seen: list[Seen] | None = None, **fields: Any) -> tuple[DesiredOutcome, dict[str, ModuleStatus]]:
    now = Situation(
        wanted={m.name: m for m in modules}, seen={s.name: s for s in seen or []}, now_s=100.0, boot_id=BOOT, **fields
    )
    steps = plan(now)
    statuses = module_statuses(now, steps)
    return desired_outcome(desired({"m": command("x")}, version=4), now, statuses, steps), statuses


def test_applied_means_that_all_is_as_wanted() -> None:
    stopped = wanted("b", status="stopped")
    outcome, statuses = say([wanted("a"), stopped], [running(wanted("a"), address="http://127.0.0.1:80")])
    assert (outcome.version, outcome.code, outcome.message) == (4, 200, "applied")
    assert (statuses["a"].state, statuses["a"].address, statuses["b"].state) == ("running", "http://127.0.0.1:80", "stopped")


def test_on_the_way_and_in_trouble_have_their_own_codes_and_name_the_module() -> None:
    assert say([wanted("a")])[0].code == 202
    starting = say([wanted("a")], [running(wanted("a"), health="starting", detail="it loads")])
    assert (starting[0].code, starting[1]["a"].state, starting[1]["a"].reason) == (202, "starting", "it loads")
    history = {"a": History(boot_id=BOOT, failures=3, retry_at_s=130.0, counted_run="r1", restarts=3)}
    outcome, statuses = say([wanted("a")], [exited(wanted("a"))], history=history)
    assert outcome.code == 500
    assert "a is backoff" in outcome.message
    assert (statuses["a"].restart_count, statuses["a"].exit_code) == (3, 1)


def test_a_pull_that_fails_is_told_with_its_reason() -> None:
    module = wanted("a", image=pin())
    images = {pin().digest: ImageState(ready=False, failures=2, detail="answered 401 (tried 2 times)")}
    outcome, statuses = say([module], images=images)
    assert outcome.code == 500
    assert statuses["a"].state == "pending"
    assert "answered 401" in statuses["a"].reason


def test_before_the_first_desired_state_there_is_nothing_to_apply() -> None:
    now = Situation(wanted=None, seen={}, now_s=0.0, boot_id=BOOT)
    assert desired_outcome(None, now, {}, []).version == 0


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (SignatureRefused(payload_type="x", problem="y"), 401),
        (ForeignDesired(version=1, found="a", expected="b"), 403),
        (OlderDesired(version=1, accepted=2), 409),
        (WrongIncarnation(version=1, found="a", expected="b"), 409),
        (DocumentTooNew(document="DesiredState", found=2, supported=1), 412),
        (InvalidDocument(document="DesiredState", problem="y"), 400),
        (ImageRefused(image="i", problem="p"), 400),
        (PullFailed(image="i", registry="r", problem="p"), 500),
    ],
)
def test_errors_have_reported_codes(problem: HedgerowError, code: int) -> None:
    assert status_code(problem) == code


def test_a_probe_finds_ready_then_unhealthy_then_ready_again() -> None:
    finding, failures, seen = Finding("starting", ""), 0, []
    for problem in ("refused", "", "", "timeout", "timeout", "timeout", "timeout", ""):
        failures = failures + 1 if problem else 0
        finding = judge(finding, problem, failures, PROBE, waited_s=1.0)
        seen.append(finding.health)
    assert seen == ["starting", "ready", "ready", "ready", "ready", "unhealthy", "unhealthy", "ready"]


def test_a_module_that_never_becomes_ready_is_unhealthy_in_the_end() -> None:
    assert judge(Finding("starting", ""), "refused", 1, PROBE, waited_s=PROBE.start_patience_s).health == "unhealthy"


def test_what_is_probed_and_how() -> None:
    onnx = wanted(image=pin(), command=[])
    target = target_of(onnx, running(onnx))
    assert target is not None
    assert target.probe.path == "/v2/health/ready"
    plain = wanted()
    assert target_of(plain, running(plain)) is None
    probed = wanted(probe=PROBE)
    target = target_of(probed, running(probed))
    assert target is not None
    assert target.probe == PROBE
    assert target_of(probed, running(wanted(command=["older"]))) is None


def test_metrics_are_prometheus_text(tmp_path: Any) -> None:
    metrics = Metrics()
    metrics.count("edgeAgent_module_start_total", module_name='quo"te\n')
    metrics.count("edgeAgent_module_start_total", module_name="b")
    metrics.count("edgeAgent_module_start_total", module_name="b")
    text = exposition(
        [*metrics.samples(), *of_machine(tmp_path, 12.5), Sample("hedgerow_agent_connected", 1.0)], {"edge_device": "porch"}
    )
    assert text.count("# TYPE edgeAgent_module_start_total counter") == 1
    assert 'edgeAgent_module_start_total{edge_device="porch",module_name="b"} 2\n' in text
    assert 'module_name="quo\\"te\\n"' in text
    assert "edgeAgent_iotedged_uptime_seconds" in text
    line = re.compile(r'^[a-zA-Z_]\w*\{(\w+="(?:[^"\\\n]|\\.)*",?)+\} [0-9.e+-]+$')
    assert all(line.match(row) for row in text.splitlines() if not row.startswith("#")), text
