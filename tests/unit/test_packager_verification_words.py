"""How a test is judged and worded: logs, entry points, addresses of engines, containers that nobody owns any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.contracts.oci import ImageConfig, RootFs
from hedgerow.contracts.proof import ProofReport
from packager.engine.docker_bench import published_on
from packager.engine.port import LeftContainer
from packager.errors import VerificationFailed
from packager.image_config import container_config
from packager.oci.documents import read_foreign
from packager.verify.entry_point import Command, installed_command, local_command, proof_command
from packager.verify.in_container import Owner, is_abandoned
from packager.verify.prover import read_reports
from packager.verify.script_words import last_words, script_problem

RAISED = """\
2026-11-21 22:17:41.668 I [13204] hedgerow.runtime - listening on http://127.0.0.1:42129
2026-11-21 22:17:42.397 E [13208] hedgerow.runtime.scripts - score.py: init() raised ValueError
    Traceback (most recent call last):
      File "/opt/hedgerow/source/score.py", line 5, in init
        helper()
      File "/opt/hedgerow/source/lib/parts.py", line 3, in helper
        raise ValueError("boom\\nsecond line")
    ValueError: boom
    second line
2026-11-21 22:17:42.398 C [13206] hedgerow.runtime - Scoring script score.py failed in init(): ValueError: boom second line.
2026-11-21 22:17:42.519 E [13204] gunicorn.error - Worker (pid:13206) exited with code 3.
"""
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_script_that_raised_is_told_by_its_own_last_line() -> None:
    problem = script_problem(RAISED)
    assert (
        problem
        == 'init() of score.py raised ValueError: boom second line (parts.py, line 3: raise ValueError("boom\\nsecond line"))'
    )


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (
            "x E [1] s - score.py: its import raised ModuleNotFoundError\n    ModuleNotFoundError: No module named 'x'\n",
            "No module named 'x'",
        ),
        ("x E [1] s - score.py: init() raised KeyboardInterrupt\n", "init() of score.py raised KeyboardInterrupt"),
        ("x E [1] s - script process 13217 ended: exit code 7\n", "its process ended with exit code 7"),
        ("x E [1] s - script process 13217 ended: signal 9 (SIGKILL)\n", "memory"),
        (
            "x C - Scoring script s4.py cannot be used: it is not Python (expected ':' (s4.py, line 3)). Correct the script: …",
            "it is not Python (expected ':' (s4.py, line 3))",
        ),
        (
            "x E [1] s - score.py: run() returned what JSON has no form for: Object of type set. Return …\n",
            "JSON has no form for",
        ),
    ],
    ids=["import", "interrupt", "exit", "kill", "syntax", "no json"],
)
def test_what_a_script_did_wrong_is_found_in_the_log(log: str, says: str) -> None:
    assert says in (script_problem(log) or "")


def test_a_frame_in_the_middle_of_a_deep_traceback_has_no_code_of_another() -> None:
    trace = """\
x - a.py: run() raised E
    Traceback (most recent call last):
      File "/a.py", line 3
      File "/b.py", line 9, in f
    E: no
"""
    assert script_problem(trace) == "run() of a.py raised E: no (b.py, line 9)"


def test_a_log_without_a_complaint_says_nothing_of_a_script() -> None:
    assert script_problem("2026 I [1] hedgerow.runtime - ready\nsomebody - raised a flag\n") is None
    assert last_words("") == "nothing"
    assert last_words("a" * 5000) == "a" * 1500


def test_an_endless_message_is_cut() -> None:
    log = f"x - score.py: init() raised E\n    Traceback (most recent call last):\n    E: {'long ' * 10_000}\n"
    assert len(script_problem(log) or "") <= 400


def config_of_an_image() -> dict[str, object]:
    """What the packager itself writes for a docker image."""
    base = ImageConfig(
        architecture="amd64",
        os="linux",
        config={"Env": ["PATH=/base/bin", "PYTHONPATH=/base/lib", "LD_PRELOAD=/base/x.so", "LANG=C.UTF-8"], "Cmd": ["bash"]},
        rootfs=RootFs(diff_ids=[]),
    )
    found = read_foreign(container_config(base, "sha256:" + "0" * 64, [], [], "1"), ImageConfig, "image")
    return found.config or {}


def test_an_entry_point_runs_here_word_for_word_but_for_where_things_stand() -> None:
    command = local_command(config_of_an_image(), Path("/r"), Path("/usr/bin/python3.11"), Path("/h/ready.json"))
    assert command.argv == (
        *("/usr/bin/python3.11", "-S", "-P", "-m", "runtime", "--image", "/r/opt/hedgerow"),
        *("--host", "127.0.0.1", "--port", "0", "--ready-file", "/h/ready.json"),
    )
    assert command.environment == {
        "HEDGEROW_LOG_FORMAT": "text",
        "LANG": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/r/opt/hedgerow-site",
    }


def test_the_proof_runs_as_the_server_does() -> None:
    server = local_command(config_of_an_image(), Path("/r"), Path("/p"), Path("/h/ready.json"))
    assert proof_command(server, Path("/r/opt/hedgerow")).argv == (
        *("/p", "-S", "-P", "-m", "runtime.prove", "--image", "/r/opt/hedgerow"),
    )
    installed = installed_command(Path("/r"), Path("/p"), {"PYTHONPATH": "/code"}, Path("/h/ready.json"))
    proof = proof_command(installed, Path("/r"))
    assert proof == Command(("/p", "-P", "-m", "runtime.prove", "--image", "/r"), installed.environment)


@pytest.mark.parametrize("config", [{}, {"Entrypoint": ["/bin/sh", "-c", "x"]}, {"Entrypoint": None}])
def test_an_entry_point_that_is_not_ours_is_not_run(config: dict[str, object]) -> None:
    with pytest.raises(VerificationFailed, match="entry point"):
        local_command(config, Path("/r"), Path("/p"), Path("/h"))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("unix:///var/run/docker.sock", "127.0.0.1"),
        ("tcp://127.0.0.1:2375", "127.0.0.1"),
        ("tcp://198.18.0.7:2376", "198.18.0.7"),
        ("ssh://somebody@somewhere", None),
        ("", None),
    ],
)
def test_a_port_is_published_where_we_can_reach_it_and_nowhere_else(host: str, address: str | None) -> None:
    assert published_on(host) == address


def left(owner: Owner | None, age: timedelta) -> LeftContainer:
    labels = {} if owner is None else {"hedgerow.verify.owner": owner.text}
    return LeftContainer("id", labels, NOW - age)


def test_a_container_is_abandoned_when_its_packager_is_gone() -> None:
    me = Owner.here()
    assert Owner.parse(me.text) == me
    assert not is_abandoned(left(me, timedelta(days=9)), me, NOW), "it lives"
    assert is_abandoned(left(replace(me, ticks=me.ticks - 1), timedelta(0)), me, NOW), "another process had this pid before"


def test_of_a_packager_elsewhere_only_age_tells() -> None:
    me = Owner.here()
    for owner in (replace(me, view="other pid:[2]"), None):
        assert not is_abandoned(left(owner, timedelta(hours=1)), me, NOW)
        assert is_abandoned(left(owner, timedelta(hours=3)), me, NOW)


def report_line(**changes: object) -> str:
    import msgspec

    report = ProofReport(
        model="m",
        rows=1,
        passed=True,
        max_abs_error=0.0,
        tolerance=1e-4,
        batchable=True,
        latency=None,
        peak_memory_bytes=1,
        provider="x",
    )
    return msgspec.json.encode([msgspec.structs.replace(report, **changes)]).decode()


def test_a_proof_is_found_among_what_else_was_written() -> None:
    said = f"[not json\na warning\n{report_line()}\nlast words of a library\n"
    assert [report.model for report in read_reports(said, "exit code 0")] == ["m"]
    failed = read_reports(report_line(passed=False), "exit code 1")
    assert not failed[0].passed


@pytest.mark.parametrize(
    ("said", "ended"), [("", "exit code 3"), ("[]x\nboom", "killed by signal 11 (SIGSEGV)"), (report_line(), "exit code 1")]
)
def test_a_proof_that_gave_no_answer_fails_with_how_it_ended(said: str, ended: str) -> None:
    with pytest.raises(VerificationFailed, match=ended.replace("(", r"\(").replace(")", r"\)")):
        read_reports(said, ended)
