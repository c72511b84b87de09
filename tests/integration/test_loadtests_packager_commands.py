"""The comparison of packagers: which docker command it takes, and that a command's failure comes with what the command said."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.packagers.engine import Docker, find_docker, run
from loadtests.scoring.peers import LeftOut


def test_the_first_command_that_can_build_is_taken(tmp_path: Path) -> None:
    for name, version in (("new", "28.2.2"), ("old", "20.10.24")):
        command = tmp_path / name / "docker"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Docker version {version}, build 0"\n')
        command.chmod(0o755)
    assert find_docker([str(tmp_path / "none"), str(tmp_path / "new"), str(tmp_path / "old")]) == tmp_path / "old" / "docker"
    with pytest.raises(LeftOut, match="buildx"):
        find_docker([str(tmp_path / "new")])


def test_a_command_that_fails_ends_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(LeftOut, match=r"sh -c .* ended with 3: .*no such base"):
        run(["sh", "-c", "echo 'no such base' >&2; exit 3"], tmp_path, {"PATH": "/bin:/usr/bin"})
    assert run(["sh", "-c", "echo told"], tmp_path, {"PATH": "/bin:/usr/bin"}) == "told"


def test_archives_that_cannot_be_loaded_are_a_reason_too(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "docker"
    command.write_text("#!/bin/sh\ncat > /dev/null\nexit 5\n")
    command.chmod(0o755)
    with pytest.raises(LeftOut, match="5"):
        Docker(tmp_path, {"PATH": "/bin:/usr/bin"}).load(iter([b"not a tar"]))
