"""What the command line does alike for every noun: it asks before it deletes, says what it changed as JSON, fits the terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import EmptyFilter, NoSuchFile
from hedgerow.sdk.transport import Transport
from tests.fixtures.parts import search_path
from tests.registry_server import RunningServer

_CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as connected:
        yield connected


def _environment(server: RunningServer, home: Path) -> dict[str, str]:
    top = str(Path(__file__).parents[2])
    return {"PATH": search_path(), "HOME": str(home), "PYTHONPATH": top, "HEDGEROW_WORKSPACE": str(server.workspace)}


@pytest.fixture
def hedgerow(server: RunningServer, tmp_path: Path) -> Run:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = _environment(server, tmp_path) | environment
        done = subprocess.run([*_CLI, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    (tmp_path / "model.onnx").write_bytes(b"weights")
    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def on_a_terminal(
    server: RunningServer, home: Path, *arguments: str, says: str = "", columns: int = 80, stdout: bool = True
) -> tuple[int, str, str]:
    """Exit code, what the terminal showed, and standard output when that is no terminal. ``says`` is typed at once."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = _environment(server, home) | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [*_CLI, *arguments],
        cwd=home,
        env=env,
        stdin=theirs,
        stderr=theirs,
        stdout=theirs if stdout else subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, says.encode())
    shown = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            piece = os.read(ours, 65536)
            if not piece:
                break
            shown += piece
    except OSError:
        pass  # how a terminal ends whose last program is gone
    finally:
        os.close(ours)
    piped, _ = process.communicate(timeout=60)
    return process.returncode, shown.decode().replace("\r\n", "\n"), (piped or b"").decode()


def test_a_name_alone_deletes_no_version(hedgerow: Run, client: Client) -> None:
    hedgerow("model", "register", "bare", "model.onnx")
    client.environments.create("bare-env", ["numpy"])
    for noun, name in (("model", "bare"), ("env", "bare-env"), ("image", "bare-image")):
        refused = hedgerow(noun, "delete", name, "--yes")
        assert refused.returncode == 2
        assert f"'{name}' names no version. Name one ({name}:3), or say --all-versions." in refused.stderr
        mixed = hedgerow(noun, "delete", f"{name}:1", "--all-versions", "--yes")
        assert (mixed.returncode, "names one version" in mixed.stderr) == (2, True)
        assert hedgerow(noun, "delete", "never-there", "--all-versions", "--yes").returncode == 1
    assert client.models.get("bare").version == 1
    assert client.environments.get("bare-env").version == 1


def test_all_versions_of_one_name_and_of_no_other(hedgerow: Run, client: Client) -> None:
    for name in ("every", "every", "every", "every-other"):
        hedgerow("model", "register", name, "model.onnx")
    client.models.set_alias("every", "kept", 2)
    refused = hedgerow("model", "delete", "every", "--all-versions", "--yes", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout) == {"deleted": ["every:3", "every:1"], "refused": ["every:2"]}
    assert "alias every@kept" in refused.stderr
    assert hedgerow("model", "delete", "every*", "--all-versions", "--yes").returncode == 1
    forced = hedgerow("model", "delete", "every", "--all-versions", "--force", "-y")
    assert (forced.returncode, forced.stdout) == (0, "Deleted every:2\n")
    assert client.models.get("every-other").version == 1


def test_at_a_terminal_it_asks(server: RunningServer, hedgerow: Run, client: Client, tmp_path: Path) -> None:
    hedgerow("model", "register", "asked", "model.onnx")
    code, shown, _ = on_a_terminal(server, tmp_path, "model", "delete", "asked:1", says="n\n")
    assert (code, "Delete asked:1? [y/N]:" in shown, "Nothing was done." in shown) == (1, True, True), shown
    assert client.models.get("asked").version == 1
    code, shown, piped = on_a_terminal(server, tmp_path, "model", "delete", "asked:1", "--json", says="y\n", stdout=False)
    assert (code, json.loads(piped)) == (0, {"deleted": "asked:1"}), shown
    assert "There is no model asked" in hedgerow("model", "show", "asked").stderr


def test_each_noun_asks_in_the_same_way(server: RunningServer, hedgerow: Run, client: Client, tmp_path: Path) -> None:
    client.devices.enroll("asked-1")
    client.secrets.set("asked-2", "value")
    client.environments.create("asked-3", ["numpy"])
    made = client.tokens.create("asked-4", "reader").id
    hedgerow("workspace", "create", "asked-5", str(server.workspace))
    for words in (
        ("device", "revoke", "asked-1"),
        ("device", "delete", "asked-1"),
        ("secret", "delete", "asked-2"),
        ("env", "delete", "asked-3:1"),
        ("token", "revoke", made),
        ("workspace", "delete", "asked-5"),
    ):
        refused = hedgerow(*words)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
        assert words[2] in refused.stderr
        assert "--yes" in refused.stderr
        code, shown, _ = on_a_terminal(server, tmp_path, *words, says="n\n")
        assert (code, "Nothing was done." in shown) == (1, True), shown
        verb = "revoked" if words[1] == "revoke" else "deleted"
        assert document(hedgerow(*words, "--yes", "--json")) == {verb: words[2]}
    assert document(hedgerow("workspace", "list", "--json")) == []


def test_workspaces_are_told_to_machines_without_their_tokens(hedgerow: Run) -> None:
    made = hedgerow("workspace", "create", "plant", "https://plant.example", "--token", "hush", "--json")
    assert document(made) == {"name": "plant", "where": "https://plant.example", "in_use": True}
    document(hedgerow("workspace", "create", "lab", "https://lab.example", "--json"))
    assert document(hedgerow("workspace", "use", "lab", "--json"))["in_use"] is True
    assert hedgerow("workspace", "use", "moon", "--json").returncode == 1
    assert "hush" not in hedgerow("workspace", "list", "--json").stdout
    assert hedgerow("workspace", "delete", "plant", "--yes").stdout == "Deleted plant\n"
    assert [one["name"] for one in document(hedgerow("workspace", "list", "--json"))] == ["lab"]


def test_a_table_fits_the_terminal_and_is_whole_elsewhere(server: RunningServer, hedgerow: Run, tmp_path: Path) -> None:
    tags = {f"key-{number}": "value " * 10 for number in range(5)}
    words = [word for key, value in tags.items() for word in ("--tag", f"{key}={value}")]
    hedgerow("model", "register", "a-model-with-a-long-name", "model.onnx", *words)
    asked = ("model", "list", "--name", "a-model-with-a-long-name")
    for columns in (60, 80, 132):
        _, shown, _ = on_a_terminal(server, tmp_path, *asked, columns=columns)
        lines = shown.splitlines()
        assert [len(line) <= columns for line in lines] == [True, True], shown
        assert "…" in lines[1]
        assert columns == 60 or lines[1].startswith("a-model-with-a-long-name:1"), "what names the row is shortened last"
    whole = hedgerow(*asked).stdout
    assert "…" not in whole
    assert all(f"{key}={value}" in whole for key, value in tags.items())
    code, shown, _ = on_a_terminal(server, tmp_path, *asked, "--json", columns=40)
    assert (code, json.loads(shown)[0]["tags"]) == (0, tags)


def test_an_environment_that_is_there_already_is_named(hedgerow: Run) -> None:
    assert "Created twin:1" in hedgerow("env", "create", "twin", "numpy==1.26").stdout
    assert "Created twin:2" in hedgerow("env", "create", "twin", "scipy").stdout
    assert hedgerow("env", "create", "twin", "numpy==1.26").stdout == "It already exists as twin:1, nothing was created.\n"
    again = hedgerow("env", "create", "twin", "numpy==1.26", "--json")
    assert document(again)["version"] == 1
    assert again.stderr == "It already exists as twin:1, nothing was created.\n"
    assert hedgerow("env", "delete", "twin:2", "--yes").returncode == 0
    assert "Created twin:3" in hedgerow("env", "create", "twin", "scipy").stdout
    assert "Created twin-2:1" in hedgerow("env", "create", "twin-2", "numpy==1.26").stdout


def test_devices_are_tagged_found_and_revoked(hedgerow: Run, client: Client) -> None:
    for number in (1, 2):
        document(hedgerow("device", "enroll", f"press-{number}", "-t", "site=north", "--json"))
    tagged = document(hedgerow("device", "tag", "press-1", "site=south", "line=4", "--json"))
    assert tagged["tags"] == {"site": "south", "line": "4"}
    assert hedgerow("device", "tag", "press-1", "--remove", "site", "--tag", "line=5").stdout == "press-1  line=5\n"

    def names(*words: str) -> list[str]:
        return [one["name"] for one in document(hedgerow("device", "list", "--json", *words))]

    assert names("--tag", "line") == ["press-1"]
    assert names("--tag", "site=north") == ["press-2"]
    assert names("--name", "press-*", "--state", "offline") == ["press-1", "press-2"]
    assert names("--edge-deployment", "nobodys") == []
    assert hedgerow("device", "list", "--tag", "moon").stdout == "No device fits.\n"
    assert hedgerow("device", "revoke", "press-2", "--yes").stdout == "Revoked press-2\n"
    assert names("--state", "revoked") == ["press-2"]
    assert "revoked" in hedgerow("device", "show", "press-2").stdout
    assert document(hedgerow("device", "twin", "press-1", "--json"))["device"] == "press-1"
    assert hedgerow("device", "twin", "press-1").stdout == "No modules.\n"
    kinds = [one["kind"] for one in document(hedgerow("device", "events", "press-2", "--json"))]
    assert kinds == ["revoked", "enrolled"]
    assert [event.kind for event in client.devices.iterate_events("press-2")] == kinds


def test_an_edge_deployment_says_beforehand_what_it_would_change(hedgerow: Run, client: Client, tmp_path: Path) -> None:
    client.devices.enroll("saw-1", {"kind": "saw"})
    (tmp_path / "m.json").write_text(json.dumps({"modules": {"hum": {"command": ["sleep", "60"]}}}))
    words = ("edge", "deploy", "saws", "--manifest", "m.json", "--target", "tags.kind = 'saw'")
    planned = document(hedgerow(*words, "--dry-run", "--json"))
    assert (planned["targeted"], planned["changes"][0]["add"]) == (["saw-1"], ["hum"])
    assert hedgerow("edge", "list", "--name", "saws").stdout == "No edge deployment fits.\n"
    assert hedgerow(*words).returncode == 0
    # No hub has composed it for the device yet, so nothing would change again.
    gone = hedgerow("edge", "delete", "saws", "--dry-run")
    assert (gone.returncode, gone.stdout, gone.stderr) == (0, "Nothing would change.\n", "")
    assert [one["name"] for one in document(hedgerow("edge", "list", "--name", "sa*", "--json"))] == ["saws"]
    assert document(hedgerow("edge", "delete", "saws", "--yes", "--json")) == {"deleted": "saws"}


def test_one_file_of_a_version(hedgerow: Run, client: Client, tmp_path: Path) -> None:
    (tmp_path / "saved" / "data").mkdir(parents=True)
    (tmp_path / "saved" / "data" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "saved" / "notes.txt").write_text("notes")
    hedgerow("model", "register", "parts", "saved")
    paths = [file.path for file in client.models.get("parts").files]
    (weights,) = (path for path in paths if path.endswith("weights.bin"))
    got = document(hedgerow("model", "download", "parts:1", "--file", weights, "-o", "out", "--json"))
    assert got == [f"out/{weights}"]
    assert (tmp_path / "out" / weights).read_bytes() == b"weights"
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 1
    missing = hedgerow("model", "download", "parts:1", "--file", f"{weights}x", "-o", "none")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert f"parts:1 has no file {weights}x. Did you mean {weights}?" in missing.stderr
    assert hedgerow("model", "download", "parts:1", "--file", "../../etc/passwd").returncode == 1
    assert not (tmp_path / "none").exists()
    with pytest.raises(NoSuchFile):
        client.models.download("parts", tmp_path, files=[""])


def test_runs_take_variables_and_secrets(hedgerow: Run, client: Client, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('hi')")
    client.secrets.set("mail-password", "correct horse")
    words = ("run", "submit", "-e", "kept", "--no-commit", "--detach", "--json")
    given = ("--secret", "MAIL=mail-password", "--variable", "DEPTH=3", "code/train.py", "--secret", "for=script")
    run = document(hedgerow(*words, *given))
    assert run["arguments"] == ["--secret", "for=script"]
    assert document(hedgerow("run", "list", "--experiment", "ke*", "--state", "queued", "--json"))[0]["id"] == run["id"]
    assert hedgerow("run", "list", "--state", "failed").stdout == "No run fits.\n"
    refused = hedgerow(*words, "--secret", "MAIL=no-such-secret", "code/train.py")
    assert (refused.returncode, "no-such-secret" in refused.stderr) == (1, True), refused.stderr
    for wrong in (("--secret", "A=mail-password", "--variable", "A=1"), ("--secret", "A="), ("--secret", "A")):
        assert hedgerow(*words, *wrong, "code/train.py").returncode == 2
    cancelled = document(hedgerow("run", "cancel", run["id"], "--json"))
    assert cancelled["state"] == "cancelled"
    logged = hedgerow("run", "logs", run["id"], "--json")
    assert logged.returncode == 0
    assert [json.loads(line)["log"] for line in logged.stdout.splitlines()] == []
    assert document(hedgerow("run", "download", run["id"], "--json")) == []
    found = document(hedgerow("activity", "list", "--kind", "run", "--subject", run["id"], "--state", "cancelled", "--json"))
    assert [one["id"] for one in found] in ([run["activity_id"]], [])
    assert document(hedgerow("activity", "cancel", run["activity_id"], "--json"))["state"] == "cancelled"


def test_empty_filters_are_refused_by_the_sdk_too(client: Client) -> None:
    for ask in (
        lambda: client.models.list(""),
        lambda: client.models.list(tags={"": None}),
        lambda: client.devices.list(name=""),
        lambda: client.images.list(digest=""),
        lambda: next(client.runs.iterate("")),
    ):
        with pytest.raises(EmptyFilter, match="is empty"):
            ask()


def test_every_list_can_be_walked(client: Client) -> None:
    for number in range(3):
        client.devices.enroll(f"walked-{number}", {"walk": "yes"})
        client.secrets.set(f"walked-{number}", "value")
    assert [device.name for device in client.devices.iterate(tags={"walk": None})] == ["walked-0", "walked-1", "walked-2"]
    assert {"walked-0", "walked-2"} <= {secret.name for secret in client.secrets.iterate()}
    walks: list[Iterator[object]] = [client.services.iterate(), client.images.iterate(), client.webhooks.iterate()]
    walks += [client.edge.iterate(name="no-such"), client.runs.iterate("no-such"), client.activities.iterate(kind="no-such")]
    walks += [client.telemetry.iterate(), client.telemetry.iterate_gaps()]
    assert [list(walked) for walked in walks] == [[]] * len(walks)
    assert list(client.tokens.iterate())


def offered(hedgerow: Run, line: str) -> list[str]:
    """What bash would be offered for the last word of ``line``."""
    asked = {"_HEDGEROW_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = hedgerow(**asked)
    assert done.stderr == "", done.stderr
    return [text.partition(",")[2] for text in done.stdout.splitlines() if text]


def test_new_options_and_names_are_completed(hedgerow: Run, client: Client, tmp_path: Path) -> None:
    client.devices.enroll("offered-1")
    client.environments.create("offered-env", ["numpy"])
    client.secrets.set("offered-secret", "value")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "offered.bin").write_bytes(b"x")
    hedgerow("model", "register", "offered", "saved")
    assert offered(hedgerow, "hedgerow model delete --al") == ["--all-versions"]
    assert offered(hedgerow, "hedgerow device tag offered") == ["offered-1"]
    assert offered(hedgerow, "hedgerow device list --name offered") == ["offered-1"]
    assert offered(hedgerow, "hedgerow env delete offered") == ["offered-env"]
    assert offered(hedgerow, "hedgerow secret delete offered") == ["offered-secret"]
    assert offered(hedgerow, "hedgerow run submit --secret KEY=offered") == ["KEY=offered-secret"]
    assert [name.endswith("offered.bin") for name in offered(hedgerow, "hedgerow model download offered --file ")] == [True]
    assert offered(hedgerow, "hedgerow run list --state que") == ["queued"]
    assert offered(hedgerow, "hedgerow service show zzz") == []


@pytest.mark.parametrize("words", [("up",), ("serve",), ("agent", "run"), ("agent", "check"), ("restore",)])
def test_commands_that_become_another_program_show_real_defaults(hedgerow: Run, words: tuple[str, ...]) -> None:
    said = hedgerow(*words, "--help")
    assert said.returncode == 0, said.stderr
    flat = " ".join(said.stdout.split())
    assert "--help" in flat
    for wrong in ("default None", "None unless", "default ,", "default )", "default ]", "; unless", "; if not", "False unless"):
        assert wrong not in flat, flat
