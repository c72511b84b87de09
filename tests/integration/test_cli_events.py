"""``hedgerow event`` and ``hedgerow webhook`` as processes, and the receiver of docs/events.md as it is printed there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controller_process import Plane, plane
from tests.fixtures.real_process import RealProcess
from tests.waiting import free_port, wait_for
from tests.webhook_receivers import receiver

TOP = Path(__file__).parents[2]
QUICK = ("--webhook-first-retry-s", "0.3", "--webhook-longest-retry-s", "1", "--webhook-timeout-s", "3")
CLI = [sys.executable, "-c", "from hedgerow.cli.main import main; main()"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("cli"), *QUICK, environment={"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"}) as made:
        yield made


def hedgerow(here: Plane, *arguments: str, code: int = 0) -> str:
    """Standard output of the command, or, when it must fail, its sentence."""
    done = subprocess.run(
        [*CLI, "--workspace", str(here.folder), *arguments],
        env={"PATH": os.defpath, "HOME": str(here.logs), "PYTHONPATH": str(TOP)},
        cwd=here.logs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_events_are_listed_newest_first(here: Plane) -> None:
    made = [here.client.tokens.create(name, "reader").id for name in ("a", "b")]
    rows = hedgerow(here, "event", "list", "--kind", "token.*", "--limit", "2").splitlines()
    assert rows[0].split() == ["EVENT", "WHEN", "KIND", "SUBJECT", "BY", "DETAILS"]
    assert [f"token/{one}" in row for one, row in zip(reversed(made), rows[1:], strict=True)] == [True, True]
    found = json.loads(hedgerow(here, "event", "list", "--subject", f"token/{made[0]}", "--since", "1h", "--json"))
    assert [event["subject"] for event in found] == [f"token/{made[0]}"]
    assert hedgerow(here, "event", "list", "--actor", "nobody").strip() == "No such event."
    assert "2030-01" not in hedgerow(here, "event", "list", "--since", "2030-01-01")
    assert "is no time" in hedgerow(here, "event", "list", "--since", "soon", code=2)
    for command in ("list", "follow"):
        for wrong in ("x", "modle.registered", "modle.*", "*.registered", "zz*"):
            assert f"{wrong!r} is no kind: use NOUN.VERB" in hedgerow(here, "event", command, "--kind", wrong, code=2)
    assert "token.created" in hedgerow(here, "event", "list", "--kind", "tok*")


def test_events_are_followed_line_by_line(here: Plane) -> None:
    argv = [*CLI, "--workspace", str(here.folder), "event", "follow", "--kind", "token.created", "--json"]
    log = here.logs / "follow.log"
    follower = RealProcess(
        [*argv, "--since", "10s"], log=log, env={"PYTHONPATH": str(TOP), "HOME": str(here.logs)}, cwd=here.logs
    )
    follower.start()
    try:
        subject = f"token/{here.client.tokens.create('followed', 'reader').id}"
        wait_for(lambda: subject in follower.log_text(), timeout_s=20, what="the event being printed")
        lines = follower.log_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["token.created"] * len(lines)
    finally:
        follower.stop()


def test_a_webhook_from_its_creation_to_its_end(here: Plane) -> None:
    with receiver() as there:
        secret = hedgerow(here, "webhook", "create", "chat", there.url, "--kind", "token.*", "-k", "secret.set").strip()
        assert secret.startswith("whsec_")
        assert secret not in hedgerow(here, "webhook", "show", "chat") + hedgerow(here, "webhook", "list")
        assert hedgerow(here, "webhook", "test", "chat").strip() == "chat took the ping (200)"
        there.statuses = [500]
        assert "the receiver answered 500" in hedgerow(here, "webhook", "test", "chat", code=1)
        here.client.tokens.create("a", "reader")
        there.wait_for(3)
        assert "chat is paused; 0 events wait" in hedgerow(here, "webhook", "pause", "chat")
        assert "is paused" in hedgerow(here, "webhook", "test", "chat", code=1)
        assert json.loads(hedgerow(here, "webhook", "resume", "chat", "--json"))["state"] == "active"
        assert hedgerow(here, "webhook", "rotate-secret", "chat").strip() not in ("", secret)
        rows = hedgerow(here, "webhook", "deliveries", "chat").splitlines()
        assert rows[0].split()[:4] == ["EVENT", "KIND", "SUBJECT", "STATE"]
        number = json.loads(hedgerow(here, "webhook", "deliveries", "chat", "--state", "delivered", "--json"))[0]["event_number"]
        assert hedgerow(here, "webhook", "redeliver", "chat", "--event", str(number)).strip() == "1 delivery waits again"
        assert hedgerow(here, "webhook", "delete", "chat", "--yes").strip() == "Deleted chat"
        assert "There is no webhook chat" in hedgerow(here, "webhook", "show", "chat", code=1)
        assert hedgerow(here, "webhook", "list").strip() == "No webhooks."


def test_wrong_input_is_a_sentence(here: Plane) -> None:
    said = hedgerow(here, "webhook", "create", "x", "http://10.0.0.1/", code=1)
    assert "10.0.0.1 cannot be called: it is no public address" in said
    assert "--egress-allow" in said
    hedgerow(here, "webhook", "deliveries", "x", "--state", "lost", code=2)
    hedgerow(here, "webhook", "redeliver", "x", "--event", "0", code=2)


def test_the_receiver_of_the_page_takes_what_is_genuine_and_nothing_else(here: Plane, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(import hashlib.*?)```", (TOP / "docs" / "events.md").read_text(), re.DOTALL)
    (tmp_path / "receiver.py").write_text(script)
    port = free_port()
    secret = hedgerow(here, "webhook", "create", "page", f"http://127.0.0.1:{port}/", "--kind", "token.*").strip()
    for given, state in ((secret, "delivered"), ("whsec_wrong", "dead")):
        environment = {"WEBHOOK_SECRET": given, "PORT": str(port)}
        process = RealProcess([sys.executable, "receiver.py"], log=tmp_path / f"{state}.log", env=environment, cwd=tmp_path)
        process.start()
        try:
            process.wait_until(lambda: "listening on" in process.log_text(), what="the receiver listening")  # noqa: B023 - called at once
            sent = here.client.webhooks.test("page")
            assert (sent.state, sent.status_code) == (state, 204 if state == "delivered" else 401)
            assert (sent.id in process.log_text()) is (state == "delivered")
        finally:
            process.stop()
