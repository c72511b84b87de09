"""`hedgerow edge`: files of every format, what lint and plan print, and what show makes of all parts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import markdown
from tests.fixtures.parts import search_path
from tests.registry_server import RunningServer

TOP = Path(__file__).parents[2]
FIXTURES = TOP / "tests" / "fixtures" / "iot_edge"
_CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
DIGEST = "sha256:" + "a" * 64


def run_offline(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": search_path(), "HOME": str(folder), "PYTHONPATH": str(TOP)} | environment
    done = subprocess.run([*_CLI, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def hedgerow(server: RunningServer, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_offline(tmp_path, *arguments, HEDGEROW_WORKSPACE=str(server.workspace))

    return run


def test_one_deployment_in_three_formats_is_one_revision(hedgerow: Run, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(
        'target = "tags.a = \'1\'"\npriority = 4\n[modules.m]\ncommand = ["x"]\n[twins.m]\nrate = 5\n'
    )
    (tmp_path / "m.yaml").write_text("target: tags.a = '1'\npriority: 4\nmodules: {m: {command: [x]}}\ntwins: {m: {rate: 5}}\n")
    body = {"target": "tags.a = '1'", "priority": 4, "modules": {"m": {"command": ["x"]}}, "twins": {"m": {"rate": 5}}}
    (tmp_path / "m.json").write_text(json.dumps(body))
    for name in ("m.toml", "m.yaml", "m.json"):
        done = hedgerow("edge", "deploy", "formats", "--manifest", name)
        assert done.stdout == "Deployed formats (revision 1) to devices where tags.a = '1'\n", done.stderr
    other = hedgerow(
        "edge", "deploy", "formats", "--manifest", "m.json", "--target", "deviceId = 'x'", "--priority", "-1", "--json"
    )
    assert (json.loads(other.stdout)["target"], json.loads(other.stdout)["priority"]) == ("deviceId = 'x'", -1)
    (tmp_path / "bare.toml").write_text('[modules.m]\ncommand = ["x"]\n')
    refused = hedgerow("edge", "deploy", "bare", "--manifest", "bare.toml")
    assert (refused.returncode, "--target CONDITION" in refused.stderr) == (2, True)


def test_a_deployment_of_iot_edge_is_deployed_shown_and_listed(hedgerow: Run, tmp_path: Path) -> None:
    document = json.loads((FIXTURES / "temperature_sensor.json").read_text())
    for module in document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"].values():
        module["settings"]["image"] = f"registry.example/app:1@{DIGEST}"
    (tmp_path / "sensors.json").write_text(json.dumps(document))
    done = hedgerow("edge", "deploy", "sensors", "--manifest", "sensors.json", "--target", "tags.b = '1'", "--priority", "2")
    assert (done.returncode, "docker login plant.azurecr.io" in done.stderr) == (0, True), done.stderr
    assert "correct-horse" not in done.stderr + done.stdout
    shown = hedgerow("edge", "show", "sensors").stdout
    parts = ("SimulatedTemperatureSensor", "sensorToFilter", "86400", '"SendInterval":5', "kept for 7200 s", "options=HostConfig")
    assert [part for part in parts if part not in shown] == []
    shutil.copy(FIXTURES / "layered.json", tmp_path / "layer.json")
    layer = hedgerow("edge", "deploy", "layer", "--manifest", "layer.json", "--target", "tags.b = '1'")
    assert "as a layer" in layer.stdout, layer.stderr
    lines = hedgerow("edge", "list").stdout.splitlines()
    assert next(line for line in lines if line.startswith("layer")).split()[3] == "tags.b"
    assert "layer" in next(line for line in lines if line.startswith("layer")).split()[1:]
    assert "layer" not in next(line for line in lines if line.startswith("sensors"))
    assert "correct-horse" not in json.dumps(json.loads(hedgerow("edge", "show", "sensors", "--json").stdout))


def test_a_plan_says_the_steps_and_changes_nothing(hedgerow: Run, tmp_path: Path) -> None:
    for name in ("planned-1", "planned-2"):
        assert hedgerow("device", "enroll", name, "-t", "c=1").returncode == 0
    (tmp_path / "line.toml").write_text(
        "target = \"tags.c = '1'\"\n[modules.b]\ncommand = ['b']\nstartup_order = 2\n"
        "[modules.a]\ncommand = ['a']\nstartup_order = 1\n[routes]\nup = 'FROM /messages/* INTO $upstream'\n"
    )
    one = hedgerow("edge", "plan", "line.toml", "--device", "planned-1")
    assert one.returncode == 0, one.stderr
    steps = [line.split() for line in one.stdout.splitlines()[1:]]
    assert [words[1:3] for words in steps] == [["route", "up"], ["start", "a"], ["start", "b"]]
    assert "has not reported yet" in one.stdout
    everywhere = hedgerow("edge", "plan", "line.toml").stdout
    assert "line is for 2 devices." in everywhere
    assert "2 devices: planned-1 planned-2" in everywhere
    document = json.loads(hedgerow("edge", "plan", "line.toml", "--json").stdout)
    assert [group["count"] for group in document["groups"]] == [2]
    assert hedgerow("edge", "list", "--name", "line").stdout == "No edge deployment fits.\n"
    elsewhere = hedgerow("edge", "plan", "line.toml", "--device", "planned-1", "--target", "deviceId = 'x'")
    assert elsewhere.stdout == "The target does not match planned-1.\nNothing would change on planned-1.\n"
    assert hedgerow("edge", "plan", "line.toml", "--device", "nobody").returncode == 1


def test_lint_needs_nobody_and_ends_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(
        'target = "*"\npriority = 0\n[modules.m]\ncommand = ["x"]\n'
        'limits = { memory_bytes = 1000000 }\nrestart_policy = "on-failure"\n'
    )
    (tmp_path / "poor.toml").write_text('[modules.m]\ncommand = ["x"]\nrestart_policy = "never"\n')
    (tmp_path / "bad.toml").write_text('[modules.m]\ncommand = ["x"]\nrestart = "never"\n')
    codes = {}
    for name in ("good", "poor", "bad"):
        for option in ("--quiet", "--strict"):
            codes[name, option] = run_offline(tmp_path, "edge", "lint", f"{name}.toml", option).returncode
    assert codes == {
        ("good", "--quiet"): 0,
        ("good", "--strict"): 0,
        ("poor", "--quiet"): 0,
        ("poor", "--strict"): 1,
        ("bad", "--quiet"): 1,
        ("bad", "--strict"): 1,
    }
    printed = run_offline(tmp_path, "edge", "lint", "bad.toml")
    assert printed.stdout == "error   $.modules.m.restart: there is no key 'restart'. Did you mean 'restart_policy'?\n"
    assert printed.stderr == "1 error, 0 warnings, 0 notes\n"
    found = json.loads(run_offline(tmp_path, "edge", "lint", "poor.toml", "--json").stdout)
    assert {one["level"] for one in found} == {"warning", "note"}
    assert set(found[0]) == {"level", "place", "message", "remedy"}


@pytest.mark.parametrize("page", ["iot-edge.md", "devices.md"])
def test_the_manifests_in_the_docs_have_no_errors(page: str, tmp_path: Path) -> None:
    blocks = [block for block in markdown.blocks(TOP / "docs" / page) if block.language in ("toml", "json")]
    # Others are fragments.
    manifests = [block for block in blocks if re.match(r"# \w+\.toml\n|\{|target = ", block.text)]
    assert manifests
    for block in manifests:
        path = tmp_path / f"manifest.{block.language}"
        path.write_text(block.text)
        done = run_offline(tmp_path, "edge", "lint", path.name)
        assert done.returncode == 0, f"{block.where}: {done.stdout}"


def test_the_two_forms_in_the_docs_are_one_deployment(tmp_path: Path) -> None:
    from hedgerow.sdk.edge_files import read_manifest_text

    first, second = [block for block in markdown.blocks(TOP / "docs" / "iot-edge.md") if block.language in ("json", "toml")]
    theirs, _ = read_manifest_text(first.text, Path("m.json"), "line", "*", 0)
    ours, _ = read_manifest_text(second.text, Path("m.toml"), "line", "*", 0)
    assert (theirs.routes, theirs.telemetry, theirs.twins) == (ours.routes, ours.telemetry, ours.twins)
    one, other = theirs.modules["tempsensor"], ours.modules["tempsensor"]
    assert (one.image, one.variables, one.display_name, one.kind) == (
        other.image,
        other.variables,
        other.display_name,
        other.kind,
    )
    # Docker's own way to say it, and ours.
    assert one.create_options["HostConfig"] == {"Memory": other.limits.memory_bytes}
