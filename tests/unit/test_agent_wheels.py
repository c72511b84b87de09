"""What may be uploaded as a release of the agent."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from hedgerow.sdk.agent_release import read_release
from hedgerow.sdk.errors import AgentWheelInvalid
from tests.agent_releases import wheel


def test_a_wheel_of_the_agent(tmp_path: Path) -> None:
    path = wheel(tmp_path, "", version="0.3.0rc1")
    release, file = read_release(path)
    assert (release.version, release.wheel) == ("0.3.0rc1", f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    assert file.source == path


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hedgerow-1.0-py3-none-any.whl", "it is no wheel"),
        ("hedgerow-9.9.9-cp311-cp311-linux_x86_64.whl", "its name is not"),
        ("other-9.9.9-py3-none-any.whl", "its name is not"),
        ("hedgerow.zip", "its name is not"),
    ],
)
def test_a_wheel_under_another_name_is_none(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(AgentWheelInvalid, match=problem):
        read_release(renamed(wheel(tmp_path, ""), name))


def test_what_is_no_wheel_of_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "hedgerow-9.9.9-py3-none-any.whl"
    path.write_bytes(b"no archive")
    with pytest.raises(AgentWheelInvalid, match="no wheel"):
        read_release(path)
    for files, problem in (
        ({"other/__init__.py": ""}, "there is no agent in it"),
        ({"edge_agent/__main__.py": ""}, "no wheel"),
        ({"edge_agent/__main__.py": "", "hedgerow-9.9.9.dist-info/METADATA": "Name: other\nVersion: 9.9.9\n"}, "other 9.9.9"),
        ({"edge_agent/__main__.py": "", "hedgerow-9.9.9.dist-info/METADATA": "Name: hedgerow\nVersion: 1\n"}, "hedgerow 1"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        with pytest.raises(AgentWheelInvalid, match=problem):
            read_release(path)
