"""The command line as a process, with what people get wrong: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import FileChanged
from hedgerow.sdk.files import collect
from hedgerow.sdk.transport import Transport
from tests.registry_server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("wrong-input")).start()
    yield running
    running.process.stop()


def hedgerow(*arguments: str | bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from hedgerow.cli.main import main; main()", *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(cwd), "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    text = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"))
    assert "Traceback" not in text.stderr, text.stderr
    return text


@pytest.fixture
def at(server: RunningServer) -> list[str]:
    return ["--workspace", str(server.workspace)]


def test_a_name_never_leads_to_another_noun(server: RunningServer, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    assert hedgerow(*at, "model", "register", "precious", "model.bin", cwd=tmp_path).returncode == 0
    for name in ("precious#x", "precious?x", "../models/precious", "nope/../precious", "", ".."):
        for words in ((name, "--all-versions"), (f"{name}:1",)):
            refused = hedgerow(*at, "model", "delete", *words, "--yes", cwd=tmp_path)
            assert refused.returncode == 1, words
    shown = hedgerow(*at, "model", "show", "../workspace", cwd=tmp_path)
    assert "is not a reference" in shown.stderr
    assert hedgerow(*at, "model", "show", "precious", cwd=tmp_path).returncode == 0


def test_files_with_names_that_mean_something_in_a_url_come_back(server: RunningServer, at: list[str], tmp_path: Path) -> None:
    odd = "a?b#c%2F d.bin"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / odd).write_bytes(b"weights")
    assert hedgerow(*at, "model", "register", "odd", "odd", cwd=tmp_path).returncode == 0
    assert hedgerow(*at, "model", "download", "odd", "-o", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / odd).read_bytes() == b"weights"


def test_a_file_is_never_taken_for_a_package(at: list[str], tmp_path: Path) -> None:
    (tmp_path / "env.yml").write_text("dependencies: [python=3.11]\n")
    refused = hedgerow(*at, "env", "create", "taken", "env.yml", cwd=tmp_path)
    assert (refused.returncode, "'env.yml' is a file; give it with --conda or --requirements" in refused.stderr) == (2, True)
    assert hedgerow(*at, "env", "create", "taken", "ruamel.yaml", cwd=tmp_path).returncode == 0


def test_a_device_is_not_made_when_its_key_has_no_place_to_go(server: RunningServer, at: list[str], tmp_path: Path) -> None:
    assert hedgerow(*at, "device", "enroll", "lost", "-o", "no/such/folder/x.toml", cwd=tmp_path).returncode == 1
    assert "lost" not in hedgerow(*at, "device", "list", cwd=tmp_path).stdout
    assert hedgerow(*at, "device", "enroll", "Not A Name", "-o", "x.toml", cwd=tmp_path).returncode == 1
    assert not (tmp_path / "x.toml").exists()
    assert hedgerow(*at, "device", "enroll", "found", "-o", "x.toml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "x.toml").stat().st_mode & 0o777 == 0o600
    again = hedgerow(*at, "device", "enroll", "other", "-o", "x.toml", cwd=tmp_path)
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model", "register", b"\xff", "file"], "Expected a name (1 to 128"),
        (["model", "register", "m", "file", "--tag", b"k=\xff"], "is no text"),
        (["model", "register", "Churn", "file"], "Expected a name (1 to 128 of a-z and 0-9"),
        (["model", "alias", "delete", "m", "a" * 10_000], "is longer than"),
        (["modle"], "Did you mean 'model'?"),
        (["service", "traffic", "e", "blue=\u00b2"], "whole numbers"),
        (["service", "traffic", "e", "blue=" + "9" * 5000], "whole numbers"),
        (["service", "score", "e", "--data", "[" * 100_000], "nested too deeply"),
        (["service", "score", "e", "--data", "@/dev/zero"], "MiB"),
        (["edge", "deploy", "d", "--manifest", "binary", "--target", "*"], "not UTF-8"),
        (["run", "submit", "-e", "e", "--source", "empty", "file"], "does not lie in the folder"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_input_is_a_sentence(at: list[str], tmp_path: Path, arguments: list[str | bytes], says: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").mkdir()
    refused = hedgerow(*at, *arguments, cwd=tmp_path)
    assert refused.returncode in (1, 2)
    assert says in refused.stderr


@pytest.mark.parametrize(
    ("where", "token", "says"),
    [("http://[::1", "", "no address"), ("http://", "", "no address"), ("http://127.0.0.1:1", "\u00fc", "header cannot carry")],
)
def test_an_address_or_token_that_no_request_can_carry(tmp_path: Path, where: str, token: str, says: str) -> None:
    refused = hedgerow("-w", where, "model", "list", cwd=tmp_path, **({"HEDGEROW_TOKEN": token} if token else {}))
    assert refused.returncode == 1
    assert says in refused.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_check_marks_gets_all_the_words(tmp_path: Path, encoding: str) -> None:
    looked = hedgerow("doctor", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert "python" in looked.stdout
    assert "workspace" in looked.stdout


def test_a_file_that_shrinks_while_it_is_sent_is_not_called_a_missing_server(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1234567890")
    found = collect([path])
    path.write_bytes(b"12345")
    with (
        Client(Transport(server.url, server.owner_token)) as client,
        pytest.raises(FileChanged, match="changed while it was read"),
    ):
        upload_missing(client.transport, found)
