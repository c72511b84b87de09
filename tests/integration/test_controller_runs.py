"""Training runs with the real controller: a copy of the snapshot, a token of its own, outputs kept, ends told."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from hedgerow.contracts.work import Activity, Run
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from tests.controller_process import Plane, ended, plane, said, source
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("runs")) as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Client:
    return made.client


def run(client: Client, folder: Path, *arguments: str, **variables: str) -> tuple[Run, Activity]:
    submitted = client.runs.submit("churn", folder, "train.py", list(arguments), variables)
    activity = ended(client, submitted.activity_id)
    return client.runs.get(submitted.id), activity


def test_a_run_logs_prints_and_leaves_outputs(made: Plane, client: Client, tmp_path: Path) -> None:
    script = """
import os, sys, helper, hedgerow
run = hedgerow.current_run()
run.parameter("trees", sys.argv[1])
run.log("auc", 0.5, 1); run.log("auc", helper.VALUE, 2)
print("hello from", os.path.basename(os.getcwd()), os.environ["EXTRA"])
(run.outputs / "model").mkdir()
(run.outputs / "model" / "weights.bin").write_bytes(b"w" * 10)
open("outputs/also.txt", "w").write("by the old way")
"""
    found, activity = run(client, source(tmp_path / "src", script, helper_py="VALUE = 0.75"), "9", EXTRA="extra")
    assert (found.state, found.exit_code, found.problem) == ("succeeded", 0, None), said(client, activity.id)
    assert (found.parameters, found.metrics) == ({"trees": "9"}, {"auc": 0.75})
    assert [(point.step, point.value) for point in client.runs.metrics(found.id)] == [(1, 0.5), (2, 0.75)]
    assert [(file.path, file.size_bytes) for file in found.outputs] == [("also.txt", 14), ("model/weights.bin", 10)]
    written = client.runs.download(found.id, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.bin") in written
    assert "hello from snapshot extra" in said(client, activity.id)
    assert activity.result == {"run": found.id}
    assert found.started_at is not None
    assert not list((made.folder / "work" / "runs").iterdir()), "its folder is gone"
    assert not made.supervised("job-")


def test_a_secret_reaches_the_script_and_nothing_else(made: Plane, client: Client, tmp_path: Path) -> None:
    value = "v4lue-of-the-secret"
    client.secrets.set("mail", value)
    script = "import hashlib, os; print('digest', hashlib.sha256(os.environ['MAIL'].encode()).hexdigest(), os.environ['PLAIN'])"
    found, activity = run(client, source(tmp_path / "src", script), MAIL="secret:mail", PLAIN="secret")
    log = said(client, activity.id)
    assert found.state == "succeeded", log
    assert f"digest {sha256(value.encode()).hexdigest()} secret" in log
    assert value not in log
    assert value not in str(found) + str(activity)
    held = [path for path in made.folder.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]
    assert not held, "it lies nowhere on the disk"
    with pytest.raises(ApiError, match="no secret nosuch"):
        run(client, source(tmp_path / "other", script), MAIL="secret:nosuch")


def test_a_secret_that_is_gone_when_the_run_starts_ends_it_with_a_sentence(made: Plane, client: Client, tmp_path: Path) -> None:
    client.secrets.set("brief", "x")
    controller = psutil.Process(made.controller.pid)
    controller.suspend()
    try:
        submitted = client.runs.submit("churn", source(tmp_path / "src", "print(1)"), "train.py", [], {"A": "secret:brief"})
        client.secrets.delete("brief")
    finally:
        controller.resume()
    activity = ended(client, submitted.activity_id)
    assert activity.problem is not None
    assert "no secret brief" in activity.problem.message
    assert client.runs.get(submitted.id).state == "failed"


def test_the_script_gets_nothing_of_the_control_planes_environment(client: Client, tmp_path: Path) -> None:
    script = """
import json, os, pathlib
pathlib.Path("outputs/env.json").write_text(json.dumps(dict(os.environ)))
pathlib.Path("train.py").write_text("changed by the run itself")
"""
    folder = source(tmp_path / "src", script)
    found, _ = run(client, folder)
    client.runs.download(found.id, tmp_path / "out")
    import json

    environment = json.loads((tmp_path / "out" / "env.json").read_text())
    assert set(environment) <= {
        "PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PYTHONUNBUFFERED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS", "ORT_DISABLE_TELEMETRY", "HEDGEROW_URL", "HEDGEROW_TOKEN", "HEDGEROW_RUN_ID", "HEDGEROW_OUTPUTS",
    }  # fmt: skip
    assert environment["HEDGEROW_RUN_ID"] == found.id
    again, _ = run(client, folder)
    assert again.state == "succeeded", "the first run wrote into its own copy, never into the stored snapshot"


def test_the_token_is_worth_nothing_afterwards(made: Plane, client: Client, tmp_path: Path) -> None:
    script = "import os, pathlib; pathlib.Path('outputs/token').write_text(os.environ['HEDGEROW_TOKEN'])"
    found, _ = run(client, source(tmp_path / "src", script))
    client.runs.download(found.id, tmp_path / "out")
    import httpx

    token = (tmp_path / "out" / "token").read_text()
    answered = httpx.get(f"{client.info().url}/api/v1/runs/{found.id}", headers={"authorization": f"Bearer {token}"})
    assert answered.status_code == 401


def test_a_script_that_fails_says_why_and_its_outputs_stay(client: Client, tmp_path: Path) -> None:
    script = "open('outputs/partial', 'w').write('x'); raise ValueError('no such column: age')"
    found, activity = run(client, source(tmp_path / "src", script))
    assert (found.state, found.exit_code, activity.state) == ("failed", 1, "failed")
    assert found.problem is not None
    assert found.problem.code == "script_failed"
    assert "train.py ended with exit code 1: ValueError: no such column: age" in found.problem.message
    assert [file.path for file in found.outputs] == ["partial"]


def test_links_and_pipes_in_outputs_are_left_out_and_named(client: Client, tmp_path: Path) -> None:
    script = """
import os
os.symlink("/etc/passwd", "outputs/passwd"); os.symlink("/etc", "outputs/etc"); os.mkfifo("outputs/pipe")
open("outputs/bad\\nname", "w").close(); open("outputs/fine", "w").close()
"""
    found, activity = run(client, source(tmp_path / "src", script))
    assert [file.path for file in found.outputs] == ["fine"]
    log = said(client, activity.id)
    for name in ("'passwd'", "'etc'", "'pipe'", r"'bad\nname'"):
        assert f"left out of the outputs: {name}" in log


def test_a_script_cannot_forge_our_own_words(client: Client, tmp_path: Path) -> None:
    script = """print('{"progress":1.0,"result":{"files":[]}}'); print('{"problem":{"code":"x","message":"forged"}}')"""
    found, activity = run(client, source(tmp_path / "src", script))
    assert found.state == "succeeded"
    assert "forged" in said(client, activity.id)


def test_a_run_can_be_cancelled_while_it_runs_and_before(made: Plane, client: Client, tmp_path: Path) -> None:
    folder = source(tmp_path / "src", "import time; print('sleeping', flush=True); time.sleep(600)")
    running = [client.runs.submit("churn", folder, "train.py") for _ in range(2)]
    wait_for(lambda: len(made.running("job-")) == 2, timeout_s=20, what="both runs to run")
    waiting = client.runs.submit("churn", folder, "train.py")
    assert client.activities.get(waiting.activity_id).state == "queued", "two at once are all"
    for one in (waiting, *running):
        client.activities.cancel(one.activity_id)
    for one in (waiting, *running):
        assert ended(client, one.activity_id).state == "cancelled"
        wait_for(lambda one=one: client.runs.get(one.id).state == "cancelled", what="the run to follow its activity")  # type: ignore[misc]  # bound in the loop
    wait_for(lambda: not made.supervised("job-"), what="the end of the scripts")


def test_output_that_never_ends_is_bounded(client: Client, tmp_path: Path) -> None:
    script = "for number in range(200_000): print('line', number)"
    found, activity = run(client, source(tmp_path / "src", script))
    assert found.state == "succeeded"
    log = said(client, activity.id)
    assert len(log) < 700_000
    assert "no more than 512 kB of it are kept" in log
