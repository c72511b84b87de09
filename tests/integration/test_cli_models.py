"""``hedgerow model`` and ``hedgerow completion`` as processes against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.parts import search_path
from tests.registry_server import RunningServer

# Its name decides the name of the variable by which shells ask for completions.
_PROGRAM = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hedgerow(server: RunningServer, tmp_path: Path) -> Run:
    def run(*arguments: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=tmp_path,
            env={"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
            | {"HEDGEROW_WORKSPACE": str(server.workspace)}
            | environment,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "sample.json").write_text("[1.0]")
    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def git(folder: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


def test_everything_is_said_and_shown(hedgerow: Run, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "model.onnx")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "rows.csv").write_text("1,2")
    options = ["--framework", "onnx", "--framework-version", "1.17", "--description", "Pump", "-t", "stage=test"]
    options += ["--property", "rows=5", "--alias", "champion", "--sample-input", "sample.json", "--data", "rows=rows.csv"]
    registered = document(hedgerow("model", "register", "told", "model.onnx", *options, "--commit", "--json"))
    assert registered["source"]["dirty"] is True
    assert len(registered["source"]["commit"]) == 40
    assert registered["data"][0]["name"] == "rows"
    shown = hedgerow("model", "show", "told@champion").stdout
    for text in (
        "told:1",
        "champion",
        "onnx 1.17",
        "Pump",
        "stage=test",
        "rows=5",
        "sample.json",
        registered["source"]["commit"],
    ):
        assert text in shown
    assert "with changes beside it" in shown
    without = document(hedgerow("model", "register", "told", "model.onnx", "--json"))
    assert (without["source"], without["version"]) == (None, 2)


def test_lists_are_narrowed(hedgerow: Run) -> None:
    hedgerow("model", "register", "listed-a", "model.onnx", "-t", "zone=n", "--description", "vibration of pumps")
    hedgerow("model", "register", "listed-a", "model.onnx", "-t", "zone=s", "--framework", "f9")
    hedgerow("model", "register", "listed-b", "model.onnx", "-t", "zone=n", "--property", "p=1", "--alias", "best")

    def names(*options: str) -> list[str]:
        return [f"{m['name']}:{m['version']}" for m in document(hedgerow("model", "list", "--json", *options))]

    assert names("--name", "listed-*") == ["listed-b:1", "listed-a:2", "listed-a:1"]
    assert names("--tag", "zone", "--newest") == ["listed-b:1", "listed-a:2"]
    assert names("--tag", "zone=n", "--property", "p=1") == ["listed-b:1"]
    assert names("--search", "vibr* pumps") == ["listed-a:1"]
    assert names("--framework", "f9") == ["listed-a:2"]
    assert names("--alias", "best") == ["listed-b:1"]
    assert names("--name", "listed-a", "--since", "2000-01-01", "--until", "2000-01-02") == []
    assert "No model fits." in hedgerow("model", "list", "--name", "nobody").stdout
    assert "There are more" in hedgerow("model", "list", "--limit", "1").stderr
    assert "There are more" in hedgerow("model", "list", "--limit", "1", "--json").stderr
    assert hedgerow("image", "list", "--name", "nobody").stdout == "No image fits.\n"
    assert hedgerow("env", "list", "--name", "nobody").stdout == "No environment fits.\n"
    assert hedgerow("model", "list", "--since", "yesterday").returncode == 2
    assert hedgerow("model", "list", "--tag", "=x").returncode == 2


def test_tags_and_aliases_change(hedgerow: Run) -> None:
    hedgerow("model", "register", "moving", "model.onnx", "-t", "old=1")
    hedgerow("model", "register", "moving", "model.onnx")
    changed = document(hedgerow("model", "tag", "moving:1", "new=2", "--remove", "old", "--property", "p=1", "--json"))
    assert (changed["tags"], changed["properties"], changed["revision"]) == ({"new": "2"}, {"p": "1"}, 2)
    refused = hedgerow("model", "tag", "moving:1", "--property", "p=2")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "The property p of moving:1" in refused.stderr
    assert hedgerow("model", "tag", "moving:1").returncode == 2
    assert (
        "moving@champion is moving:1, protected" in hedgerow("model", "alias", "set", "moving:1", "champion", "--protect").stdout
    )
    assert document(hedgerow("model", "alias", "set", "moving", "champion", "--json"))["version"] == 2
    assert [one["alias"] for one in document(hedgerow("model", "alias", "list", "moving", "--json"))] == ["champion"]
    in_use = hedgerow("model", "delete", "moving:2", "--yes")
    assert in_use.returncode == 1
    assert "alias moving@champion" in in_use.stderr
    assert hedgerow("model", "delete", "moving:2", "--force", said="y\n").returncode == 2, "a pipe is nobody to ask"
    assert document(hedgerow("model", "show", "moving@champion", "--json"))["version"] == 2
    assert hedgerow("model", "delete", "moving:2", "--force", "--yes").returncode == 0
    gone = hedgerow("model", "show", "moving:2")
    assert gone.returncode == 1
    assert "was deleted by" in gone.stderr
    assert hedgerow("model", "alias", "delete", "moving", "champion").returncode == 1
    assert hedgerow("model", "delete", "moving:1", "-y").stdout == "Deleted moving:1\n"


def test_a_commit_that_was_asked_for_and_is_not_there_is_said(hedgerow: Run) -> None:
    registered = hedgerow("model", "register", "no-git", "model.onnx", "--commit")
    assert registered.returncode == 0
    assert "No commit was recorded" in registered.stderr


def test_what_is_deleted_and_downloaded_is_said_in_json_too(hedgerow: Run) -> None:
    assert "(1 file, " in hedgerow("model", "register", "mine", "model.onnx", "--alias", "champion").stdout
    assert document(hedgerow("model", "download", "mine", "-o", "there", "--json")) == ["there/model.onnx"]
    assert document(hedgerow("model", "alias", "delete", "mine", "champion", "--json")) == {"deleted": "mine@champion"}
    assert document(hedgerow("model", "delete", "mine:1", "--yes", "--json")) == {"deleted": "mine:1"}


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef hedgerow"), ("fish", "complete --no-files")]
)
def test_completion_prints_the_shells_script(hedgerow: Run, shell: str, sign: str) -> None:
    done = hedgerow("completion", shell)
    assert (done.returncode, sign in done.stdout) == (0, True), done.stderr
    assert "_HEDGEROW_COMPLETE" in done.stdout
    assert hedgerow("completion", "cmd.exe").returncode == 2


def offered(hedgerow: Run, line: str, **environment: str) -> list[str]:
    """What bash would be offered for the last word of ``line``."""
    words = line.split(" ")
    asked = {"_HEDGEROW_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = hedgerow(**asked | environment)
    assert done.stderr == "", done.stderr
    return [text.partition(",")[2] for text in done.stdout.splitlines() if text]


def test_names_are_completed_from_the_workspace(hedgerow: Run, tmp_path: Path) -> None:
    for name in ("complete-a", "complete-b", "other"):
        hedgerow("model", "register", name, "model.onnx", "--alias", "champion")
    assert offered(hedgerow, "hedgerow model show comp") == ["complete-a", "complete-b"]
    assert offered(hedgerow, "hedgerow model show complete-a@") == ["complete-a@champion"]
    assert "other" in offered(hedgerow, "hedgerow model delete ")
    assert offered(hedgerow, "hedgerow model sh") == ["show"]
    # Where nothing runs there is nothing to offer, and nothing to say.
    assert offered(hedgerow, "hedgerow model show comp", HEDGEROW_WORKSPACE=str(tmp_path / "empty")) == []
    assert offered(hedgerow, "hedgerow model show comp", HEDGEROW_URL="http://127.0.0.1:9", HEDGEROW_TOKEN="x") == []
    assert offered(hedgerow, "hedgerow model show ..%2F") == []
