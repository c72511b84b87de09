"""Pickles that mean no good: whatever they do when they are opened stays in the sandbox, and the answer is a sentence."""

from __future__ import annotations

import os
import pickle
import socket
import time
from pathlib import Path

import pytest

from tests.convert_builders import Converted, run_convert

# What leaves by the only door that the sandbox has, a failure's text: the model says what it saw.
_TELL = "import sys; sys.stderr.write('\\nsaw ' + repr(seen) + '\\n'); import os; os._exit(9)"


class _Code:
    """Unpickling it runs ``code``."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return exec, (self.code, {})


def _convert(tmp_path: Path, code: str, **environment: str) -> Converted:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(_Code(code)))
    done = run_convert(folder, tmp_path / "work", {"HEDGEROW_CONVERT_TIMEOUT_S": "20", **environment})
    assert done.exit_code == 1
    assert list(done.out.iterdir()) == []
    assert not list((tmp_path / "work" / "cache" / "scratch").glob("build-*"))
    return done


def test_it_reads_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the vault's key")
    files = ["/etc/shadow", str(secret), f"/proc/{os.getpid()}/environ", "/proc/1/environ"]
    code = f"""
seen = []
for name in {files!r}:
    try: seen.append(open(name, 'rb').read(20))
    except OSError as problem: seen.append(type(problem).__name__)
{_TELL}"""
    done = _convert(tmp_path, code)
    assert done.problem_code == "model_crashed"
    assert "saw " in done.problem_text
    assert "vault" not in done.problem_text
    assert "b'" not in done.problem_text


def test_it_writes_nowhere_but_its_own_folder(tmp_path: Path) -> None:
    places = [str(tmp_path), "/tmp", "/var/tmp", "/usr/lib", "/etc"]
    code = f"""
import os
seen = []
for name in {places!r}:
    try: open(os.path.join(name, 'convert-was-here'), 'w').close(); seen.append('WROTE ' + name)
    except OSError as problem: seen.append(type(problem).__name__)
open(os.path.join(os.environ['HOME'], 'mine'), 'w').write('x'); seen.append('own folder')
{_TELL}"""
    done = _convert(tmp_path, code)
    assert "own folder" in done.problem_text
    assert "WROTE" not in done.problem_text
    assert not list(tmp_path.rglob("convert-was-here"))


def test_it_has_no_network_no_environment_and_no_rights(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import os, socket
seen = [os.getuid() != 0, sorted(set(os.environ) & {{'SECRET_OF_OURS', 'PATH'}})]
for where in (('127.0.0.1', {port}), ('10.0.0.1', 80)):
    try: socket.create_connection(where, 2); seen.append('CONNECTED')
    except OSError as problem: seen.append('refused')
try: os.setuid(0); seen.append('ROOT')
except OSError: seen.append('no root')
seen.append(len([name for name in os.listdir('/proc') if name.isdigit()]) < 6)
{_TELL}"""
        done = _convert(tmp_path, code, SECRET_OF_OURS="1")
    assert "saw [True, ['PATH'], 'refused', 'refused', 'no root', True]" in done.problem_text


def test_eating_memory_is_stopped_and_said(tmp_path: Path) -> None:
    done = _convert(tmp_path, "hold = [bytearray(64 << 20) for _ in range(100)]", HEDGEROW_CONVERT_MEMORY_BYTES=str(512 << 20))
    assert done.problem_code == "conversion_too_large"
    assert "512 MB" in done.problem_text


def test_hanging_is_ended_with_all_it_started(tmp_path: Path) -> None:
    marker = f"never-ending-{os.getpid()}"
    code = f"""
import os, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid(); os.execv('/bin/sleep', ['{marker}', '600'])
time.sleep(600)"""
    begun = time.monotonic()
    done = _convert(tmp_path, code, HEDGEROW_CONVERT_TIMEOUT_S="2")
    assert done.problem_code == "conversion_too_slow"
    assert time.monotonic() - begun < 15
    assert marker not in _all_commands()


def test_printing_garbage_without_end_fills_nothing(tmp_path: Path) -> None:
    done = _convert(tmp_path, "import os\nwhile True: os.write(1, b'\\xff\\x00{}' * 4096)", HEDGEROW_CONVERT_TIMEOUT_S="2")
    assert done.problem_code == "conversion_too_slow"
    assert len(done.stderr) < 100_000


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import os; os._exit(0)", "it left no usable candidate.onnx"),
        ("import os; os.kill(os.getpid(), 9)", "exit code 137"),
        ("raise ValueError('boom')", "boom"),
    ],
    ids=["exit", "kill", "raise"],
)
def test_ending_early_is_a_sentence(tmp_path: Path, code: str, word: str) -> None:
    done = _convert(tmp_path, code)
    assert done.problem_code in ("model_crashed", "model_unreadable")
    assert word in done.problem_text


@pytest.mark.parametrize(
    "handed_back",
    [
        "os.symlink('/etc/passwd', 'candidate.onnx')",
        "os.mkfifo('candidate.onnx')",
        "open('candidate.onnx', 'wb').write(b'no onnx')",
        "open('candidate.onnx', 'wb').truncate(3 << 30)",
    ],
    ids=["link", "pipe", "garbage", "huge"],
)
def test_what_it_hands_back_is_believed_in_nothing(tmp_path: Path, handed_back: str) -> None:
    code = f"""
import os, json
os.chdir(os.environ['HOME'])
open('facts.json', 'w').write(json.dumps({{'tools': {{}}, 'inputs': ['x'], 'outputs': ['y']}}))
open('rows.npz', 'wb').write(b'PK')
try: {handed_back}
except OSError: pass
os._exit(0)"""
    assert _convert(tmp_path, code).problem_code == "model_crashed"


def _all_commands() -> str:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)
