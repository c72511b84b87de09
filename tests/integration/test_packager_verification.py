"""The test of an image as a process: what scripts do wrong, what servers answer wrong, and what is on the record."""

from __future__ import annotations

import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hedgerow.clock import SystemClock
from hedgerow.contracts.image import Verification
from hedgerow.process import Supervised
from hedgerow.process.sandbox import SANDBOX_GID, TEST_UIDS
from packager.cache.layers import LayerCache
from packager.cache.scratch import scratch_folder
from packager.errors import VerificationFailed
from packager.recipe import SourceFacts
from packager.source_files import list_files
from packager.verify.drive import Limits, drive
from packager.verify.entry_point import Command
from packager.verify.local_process import LocalProcess
from packager.verify.sandbox import Sandbox, borrowed_sandbox, processes_of
from packager.verify.subject import Sample, Subject, subject_of
from registry.controller.sandbox import make_sandbox
from registry.workspace import open_workspace
from tests.packager_builders import model_of, request_for, run_packager, write_onnx_model
from tests.process_folders import need_root
from tests.verified_images import a_place, facts_of, start_folder, try_script, verify_layout, write_script_image
from tests.waiting import wait_for

ECHO = "import json\ndef init(): pass\ndef run(raw): return {'first': json.loads(raw)['data'][0]}\n"
NO_SAMPLE = Subject((), has_script=True)


def with_sample(body: bytes) -> Subject:
    return Subject((), has_script=True, sample=Sample(body, "sample_input.json beside the script"))


def failure_of(folder: Path, script: str, subject: Subject = NO_SAMPLE, *, ready_s: float = 30.0) -> str:
    with pytest.raises(VerificationFailed) as failed:
        try_script(folder, script, subject, ready_s=ready_s)
    return str(failed.value)


# Artifacts ------------------------------------------------------------------------------------------------------------


def verified(folder: Path, **changes: object) -> Verification:
    """An ONNX artifact, built without its test and then tested."""
    model = model_of(write_onnx_model(folder / "m", **changes))  # type: ignore[arg-type]  # keywords of a test builder
    request = request_for("onnx", [model], folder)
    assert run_packager(request, folder).exit_code == 0
    return verify_layout(msgspec.structs.replace(request, verify=True), folder / "out", folder / "cache")


def test_an_artifact_is_served_and_scored_over_http(tmp_path: Path) -> None:
    found = verified(tmp_path)
    assert (found.state, found.how, found.rows, found.max_abs_error) == ("passed", "process", 4, 0.0)
    assert found.batchable == ["adder"]
    assert "4 recorded rows were scored over HTTP and compared" in found.reason
    assert "as a process on Python 3." in found.reason
    assert found.latency_ms is not None
    assert found.latency_p99_ms is not None
    assert 0 < found.latency_ms <= found.latency_p99_ms
    assert found.started_in_s is not None
    assert 0 < found.started_in_s < 60
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes > 10_000_000


def test_an_artifact_that_answers_wrong_numbers_is_refused_with_them(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed) as failed:
        verified(tmp_path, wrong_by=0.5)
    assert failed.value.fields["max_abs_error"] == "0.5"


def test_no_test_is_made_when_the_request_says_so(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    request = request_for("onnx", [model], tmp_path)
    run_packager(request, tmp_path)
    found = verify_layout(request, tmp_path / "out", tmp_path / "cache")
    assert (found.state, found.how, found.reason) == ("skipped", "none", "the request said so")


# Scripts --------------------------------------------------------------------------------------------------------------


def test_a_script_that_only_starts_says_that_run_was_not_tried(tmp_path: Path) -> None:
    found = try_script(tmp_path, ECHO, NO_SAMPLE)
    assert found.state == "passed"
    assert "run() was not tried" in found.reason
    assert found.latency_ms is None


def test_a_script_answers_its_sample(tmp_path: Path) -> None:
    found = try_script(tmp_path, ECHO, with_sample(b'{"data": [7]}'))
    assert "run() answered sample_input.json beside the script" in found.reason
    assert found.latency_ms is not None


def test_a_script_that_cannot_score_its_sample_is_told_where(tmp_path: Path) -> None:
    problem = failure_of(tmp_path, ECHO, with_sample(b'{"data": []}'))
    assert "IndexError: list index out of range (score.py, line 3: " in problem


def test_the_example_of_a_script_s_own_schema_is_tried(tmp_path: Path) -> None:
    script = (
        "import numpy as np\n"
        "from inference_schema.schema_decorators import input_schema\n"
        "from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType\n"
        "def init(): pass\n"
        "@input_schema('data', NumpyParameterType(np.array([[1.0, 2.0]])))\n"
        "def run(data): return {'sum': float(data.sum()) / SOMETHING}\n"
    )
    assert "NameError: name 'SOMETHING' is not defined (score.py, line 6" in failure_of(tmp_path / "a", script)
    found = try_script(tmp_path / "b", script.replace("SOMETHING", "2"), NO_SAMPLE)
    assert "run() answered the example of its own input schema" in found.reason


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "import nosuchlibrary\ndef init(): pass\ndef run(d): return d\n",
            "No module named 'nosuchlibrary' (score.py, line 1: import nosuchlibrary)",
        ),
        ("def init():\n  open('/nonexistent/model.pkl')\ndef run(d): return d\n", "FileNotFoundError: [Errno 2]"),
        ("def init():\n  raise SystemExit(4)\ndef run(d): return d\n", "SystemExit: 4 (score.py, line 2: raise SystemExit(4))"),
        ("import os\ndef init(): os._exit(7)\ndef run(d): return d\n", "its process ended with exit code 7"),
        ("import os\ndef init(): os.kill(os.getpid(), 11)\ndef run(d): return d\n", "signal 11 (SIGSEGV)"),
        ("def init(): pass\n", "it has no function run()"),
        ("def init(): pass\ndef run(d)\n", "it is not Python"),
        (
            "def init():\n  for n in range(30000): print('x' * 100)\n  raise ValueError('after much')\ndef run(d): return d\n",
            "ValueError: after much (score.py, line 3",
        ),
    ],
    ids=["import", "file", "exit", "_exit", "crash", "no run", "syntax", "prints"],
)
def test_a_script_that_does_not_come_up_is_told_in_its_own_words(tmp_path: Path, script: str, says: str) -> None:
    problem = failure_of(tmp_path, script)
    assert says in problem
    assert "it ended before it was ready" in problem


def test_a_script_that_hangs_in_init_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    problem = failure_of(tmp_path, "import time\ndef init(): time.sleep(600)\ndef run(d): return d\n", ready_s=3.0)
    assert "not ready after 3 s" in problem
    assert "init() did not return" in problem


def test_a_script_that_eats_memory_ends_by_its_limit(tmp_path: Path) -> None:
    script = "def init():\n  eaten = []\n  while True: eaten.append(bytearray(50_000_000))\ndef run(d): return d\n"
    with a_place(tmp_path) as place:
        small = replace(place, memory_bytes=700_000_000)
        write_script_image(small.root, script)
        with pytest.raises(VerificationFailed, match="MemoryError"):
            drive(start_folder(small), NO_SAMPLE, SystemClock(), Limits(60.0, 30.0))


def test_a_script_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDGEROW_TOKEN", "very-secret")
    script = (
        "import os\n"
        "def init():\n"
        "  assert 'HEDGEROW_TOKEN' not in os.environ, 'it is there'\n"
        "  assert os.environ['HOME'].endswith('/home'), os.environ['HOME']\n"
        "def run(d): return d\n"
    )
    assert try_script(tmp_path, script, NO_SAMPLE).state == "passed"


# Servers that misbehave -----------------------------------------------------------------------------------------------

SERVER = """\
import http.server, json, os, signal, sys, time
kind, ready, marker = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.say(b"{}")
    def do_POST(self):
        if kind == "dies": os._exit(9)
        if kind == "garbage": self.say(b"<html>")
        if kind == "text": self.say(json.dumps({"outputs": [{"name": "y", "data": [["a"], {}, "b"]}]}).encode())
        if kind == "few": self.say(json.dumps({"outputs": [{"name": "y", "data": [1]}]}).encode())
        if kind == "error": self.send_error(503, "no")
        if kind == "wrong": self.say(json.dumps({"outputs": [{"name": "y", "data": [0, 0, 0]}]}).encode())
        if kind == "silent": time.sleep(600)
        while kind == "continues": self.wfile.write(b"HTTP/1.1 100 Continue\\r\\n\\r\\n"); time.sleep(0.01)
        if kind == "drips":
            self.send_response(200); self.end_headers()
            while True: self.wfile.write(b" "); self.wfile.flush(); time.sleep(0.05)
        if kind == "huge":
            self.send_response(200); self.end_headers()
            while True: self.wfile.write(bytes(1 << 20))
    def say(self, body):
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
if kind == "stays": signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind == "crashes": sys.exit("no such model file")
if kind == "late": time.sleep(1)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
port = 1 if kind == "liar" else server.server_port
host = "192.0.2.1" if kind == "elsewhere" else "127.0.0.1"
if kind == "pipe": os.mkfifo(ready); time.sleep(600)
with open(ready, "w") as file: json.dump({"address": f"http://{host}:{port}"}, file)
open(marker, "w").write(str(os.getpid()))
server.serve_forever()
"""


def drive_server(folder: Path, kind: str, *, ready_s: float = 20.0, whole_s: float = 20.0, parity: bool = True) -> Verification:
    """A server that does one thing wrong, in the place of an image with one model."""
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(SERVER)
    model = facts_of(model_of(write_onnx_model(folder / "m", parity=parity)))
    with a_place(folder) as place:
        ready = str(place.home / "ready.json")
        argv = (sys.executable, "-I", "-S", str(folder / "server.py"), kind, ready, str(folder / "pid"))
        started = LocalProcess(place, Command(argv, {}), None, 10.0).start()
        return drive(started, Subject((model,)), SystemClock(), Limits(ready_s, whole_s))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("dies", r"row 0 of adder:1 got no answer \(it ended: exit code 9\)"),
        ("garbage", "an answer that is none of the protocol"),
        ("text", "output 'y' should be numbers"),
        ("few", "output 'y' should have 3 values and has 1"),
        ("error", "was answered with 503"),
        ("wrong", r"does not answer as recorded \(largest difference 3, tolerance 0.0001, 4 rows\)"),
        ("huge", "larger than"),
        ("crashes", r"it ended before it was ready \(exit code 1\). It said: no such model file"),
    ],
)
def test_a_server_that_answers_wrong_is_refused(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(VerificationFailed, match=says):
        drive_server(tmp_path, kind)


@pytest.mark.parametrize("kind", ["silent", "drips", "continues"])
def test_a_server_that_does_not_finish_answering_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    with pytest.raises(VerificationFailed, match="took longer than 2 s"):
        drive_server(tmp_path, kind, whole_s=2.0)


@pytest.mark.parametrize("kind", ["elsewhere", "liar", "pipe"])
def test_an_address_that_is_not_its_own_is_not_asked_for_long(tmp_path: Path, kind: str) -> None:
    with pytest.raises(VerificationFailed, match="not ready after 2 s"):
        drive_server(tmp_path, kind, ready_s=2.0)


def test_a_server_that_listens_late_is_waited_for(tmp_path: Path) -> None:
    found = drive_server(tmp_path, "late", parity=False)
    assert found.started_in_s is not None
    assert found.started_in_s > 1


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    drive_server(tmp_path, "stays", parity=False)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the server to be gone")


# A user of its own ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own may not be."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="hedgerow-verify-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run_shell(folder: Path, script: str) -> tuple[int, str]:
    """``script`` as foreign code: its user, and what it wrote."""
    cache, scratch = folder / "cache", folder / "cache" / "scratch" / "build-1"
    scratch.mkdir(parents=True, mode=0o700)
    (cache / "secret").write_text("secret")
    (cache / "secret").chmod(0o600)
    with borrowed_sandbox(scratch, cache, [Path("/bin/sh")]) as place:
        assert place.uid is not None, place.note
        (place.root / "model").mkdir(mode=0o700)
        (place.root / "model" / "weights").write_text("weights")
        place.open_for_reading()
        said = said_inside(place, script, ROOT=str(place.root), CACHE=str(cache))
    assert processes_of(place.uid) == []
    return place.uid, said


def said_inside(place: Sandbox, script: str, **environment: str) -> str:
    """What a shell in ``place`` wrote, up to its "done"."""
    process = Supervised(place.records / "one")
    process.start(place.spec(["/bin/sh", "-c", script], environment))
    wait_for(lambda: process.tail(1).strip().endswith("done"), what="the script to finish", timeout_s=30)
    said = process.tail(100)
    process.stop(0.0)
    return said


def test_foreign_code_has_a_user_of_its_own_and_one_folder(open_folder: Path) -> None:
    uid, said = run_shell(
        open_folder,
        "id -u; cat $ROOT/model/weights; echo; echo x > $HOME/file && cat $HOME/file;"
        " echo y > $ROOT/model/weights; cat $CACHE/secret; ls $CACHE; ls $HOME/../records; echo done",
    )
    assert said.split()[:3] == [str(uid), "weights", "x"]
    assert said.count("ermission denied") == 4, said


def test_what_hides_in_a_session_of_its_own_is_ended_as_well(open_folder: Path) -> None:
    run_shell(open_folder, "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & sleep 0.2; echo done")


@pytest.mark.alone
def test_a_fork_bomb_is_bounded_and_ended(open_folder: Path) -> None:
    scratch = open_folder / "cache" / "scratch"
    scratch.mkdir(parents=True)
    with borrowed_sandbox(scratch, open_folder / "cache", [Path("/bin/sh")]) as place:
        process = Supervised(place.records / "bomb")
        # The shell itself forks once, at the beginning: later it could not.
        process.start(place.spec(["/bin/sh", "-c", "b() { b | b & }; b; exec sleep 60"], {}))
        wait_for(lambda: "Cannot fork" in process.tail(50), what="the limit to be reached", timeout_s=30)
        process.stop(0.0)
    assert place.uid is not None
    assert processes_of(place.uid) == []


def test_two_tests_at_once_have_two_users(open_folder: Path) -> None:
    places = []
    for name in ("a", "b"):
        scratch = open_folder / name / "scratch"
        scratch.mkdir(parents=True)
        places.append(borrowed_sandbox(scratch, open_folder / name, [Path("/bin/sh")]))
    with places[0] as first, places[1] as second:
        assert first.uid != second.uid


def test_two_tests_at_once_see_nothing_of_each_other(open_folder: Path) -> None:
    cache = open_folder / "cache"
    for name in ("a", "b"):
        (cache / "scratch" / name).mkdir(parents=True)
    sandboxes = [borrowed_sandbox(cache / "scratch" / name, cache, [Path("/bin/sh")]) for name in ("a", "b")]
    with sandboxes[0] as first, sandboxes[1] as second:
        (first.root / "weights").write_text("weights")
        first.open_for_reading()
        words = "id -g; id -G; cat $FIRST/weights; ls $FIRST; touch $HOME/x && stat -c %g $HOME/x; echo done"
        for place, denied in ((first, 0), (second, 2)):
            said = said_inside(place, words, FIRST=str(first.root))
            assert said.splitlines()[:2] == [str(place.uid), f"{place.uid} {SANDBOX_GID}"], said
            assert said.count("ermission denied") == denied, said
            assert said.splitlines()[-2] == str(place.uid), "what it makes is its group's alone"


def test_in_a_workspace_it_has_a_user_that_reads_nothing_of_other_images(open_folder: Path) -> None:
    workspace = open_workspace(open_folder / "workspace")
    assert make_sandbox(workspace, [Path("/bin/sh")], running_as_root=True, required=True).uid is not None
    layers = workspace.cache / "layers"
    with scratch_folder(layers) as scratch:
        blobs = LayerCache(layers, scratch).blobs
        blob = blobs.path(blobs.add([b"weights of somebody else"]).digest)
        deployed = workspace.run / "images" / "sha256-1" / "model.onnx"
        deployed.parent.mkdir(parents=True)
        deployed.parent.parent.chmod(0o711)
        deployed.write_text("weights that are served")
        assert deployed.stat().st_mode & 0o044 == 0o044, "for the replicas, whose user is another one"
        with borrowed_sandbox(scratch, layers, [Path("/bin/sh")]) as place:
            assert place.uid is not None, place.note
            process = Supervised(place.records / "one")
            process.start(place.spec(["/bin/sh", "-c", f"cat {blob}; ls {blob.parent}; cat {deployed}; echo done"], {}))
            wait_for(lambda: process.tail(1).strip().endswith("done"), what="the script to finish", timeout_s=30)
            assert process.tail(100).count("ermission denied") == 3
            process.stop(0.0)


@pytest.mark.alone
def test_who_takes_all_users_of_tests_gains_nothing(open_folder: Path) -> None:
    scratch = open_folder / "cache" / "scratch"
    scratch.mkdir(parents=True)
    with ExitStack() as taken:
        for uid in TEST_UIDS:
            held = taken.enter_context(socket.socket(socket.AF_UNIX))
            with suppress(OSError):  # another test has it
                held.bind(f"\0hedgerow-test-user-{uid}")
        with pytest.raises(VerificationFailed, match="are taken"), borrowed_sandbox(scratch, open_folder / "cache", []):
            pytest.fail("it runs as somebody")


def test_where_its_user_cannot_go_it_is_said(open_folder: Path) -> None:
    closed = open_folder / "closed"
    scratch = closed / "cache" / "scratch"
    scratch.mkdir(parents=True)
    closed.chmod(0o700)
    with borrowed_sandbox(scratch, closed / "cache", [Path("/bin/sh")]) as place:
        assert place.uid is None
        assert str(closed) in place.note
    wanted = pytest.raises(VerificationFailed, match="without a user of its own")
    with wanted, borrowed_sandbox(closed / "again", closed / "cache", [Path("/bin/sh")], required=True):
        pytest.fail("it runs as root")
    assert stat.S_IMODE((closed / "cache").stat().st_mode) == stat.S_IMODE(scratch.stat().st_mode), "left as it was"


# Samples --------------------------------------------------------------------------------------------------------------


def source_of(folder: Path) -> SourceFacts:
    files = tuple(list_files(folder))
    return SourceFacts("score.py", files, "sha256:" + "0" * 64)


def test_a_sample_is_found_beside_the_script_and_then_with_the_model(tmp_path: Path) -> None:
    source, mine = tmp_path / "source", tmp_path / "mine.json"
    source.mkdir()
    (source / "score.py").write_text(ECHO)
    mine.write_text("[2]")
    model = msgspec.structs.replace(model_of(write_onnx_model(tmp_path / "m")), sample_input=str(mine))
    request = request_for("docker", [model], tmp_path)
    assert subject_of(request, [], None).sample is None
    assert subject_of(request, [], source_of(source)).sample == Sample(b"[2]", "the sample input of model adder:1")
    (source / "sample_input.json").write_text("[1]")
    assert subject_of(request, [], source_of(source)).sample == Sample(b"[1]", "sample_input.json beside the script")


def test_a_sample_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "score.py").write_text(ECHO)
    model = msgspec.structs.replace(model_of(write_onnx_model(tmp_path / "m")), sample_input="/nonexistent/sample.json")
    with pytest.raises(VerificationFailed, match=r"/nonexistent/sample\.json cannot be read"):
        subject_of(request_for("docker", [model], tmp_path), [], source_of(source))
