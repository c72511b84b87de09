"""What ``hedgerow image build`` and ``image push`` refuse before they ask a workspace."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hedgerow.cli import image_build
from hedgerow.cli.image_build import build
from hedgerow.cli.image_push import push
from hedgerow.cli.main import cli


def refused(command: click.Command, *words: str) -> Result:
    # Through the whole command line: a command that is run by itself remembers another --help from then on.
    answer = CliRunner().invoke(cli, ["-w", "http://127.0.0.1:9", "image", str(command.name), *words])
    assert answer.exit_code == 2
    return answer


def test_a_script_outside_of_its_source_folder_is_named(tmp_path: Path) -> None:
    script, source = tmp_path / "score.py", tmp_path / "source"
    script.touch()
    source.mkdir()
    answer = refused(build, "churn", "--model=churn:1", "--kind=docker", f"--script={script}", f"--source={source}")
    assert f"The script {script} is not in the source folder {source}." in answer.output


@pytest.mark.parametrize("kind", ["onnx", "fpga"])
@pytest.mark.parametrize("option", ["--script=score.py", "--base=docker:python:3.11-slim", "--dockerfile"])
def test_what_only_a_container_has_is_refused_before_models_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").touch()
    models = "--stage=accelerated=churn:1" if kind == "fpga" else "--model=churn:1"
    answer = refused(build, "churn", models, f"--kind={kind}", option)
    assert f"{option.partition('=')[0]} goes with --kind docker: an image of kind {kind} holds models only." in answer.output


@pytest.mark.parametrize("target", ["churn", "churn:4", "team/churn:4", "http://churn"])
def test_a_target_without_a_registry_is_not_sent_to_docker_hub(target: str) -> None:
    output = refused(push, "churn:4", target).output
    assert f"TARGET '{target}' names no image in a registry: a push names its registry" in " ".join(output.split())


def test_a_base_of_a_platform_that_is_not_built_is_named() -> None:
    answer = refused(build, "churn", "--model=churn:1", "--kind=docker", "--base=linux/arm64=docker:python:3.11")
    assert "--base linux/arm64=docker:python:3.11: linux/arm64 is not built." in " ".join(answer.output.split())


@pytest.mark.parametrize("scheme", ["oci", "docker-archive"])
def test_a_base_on_this_disk_is_sent_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.chdir(tmp_path)
    everywhere, single = image_build._bases((f"{scheme}:here", f"linux/arm/v7={scheme}:/there"), ["linux/armhf", "linux/amd64"])
    assert (everywhere, single) == (f"{scheme}:{tmp_path}/here", {"linux/arm/v7": f"{scheme}:/there"})
    assert image_build._bases(("docker:python:3.11",), ["linux/amd64"]) == ("docker:python:3.11", {})
