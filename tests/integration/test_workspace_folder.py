"""A workspace's folder: made once, by whoever comes first, and never half."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import NotAWorkspace, WorkspaceTooNew
from registry.wakeups_socket import SocketReceiver, SocketWakeups
from registry.workspace import open_workspace

OPEN = """
import sys
from pathlib import Path
from registry.workspace import open_workspace
workspace = open_workspace(Path(sys.argv[1]))
print(workspace.id, workspace.trusted_key.keyid, workspace.device_master.hex())
"""


def test_processes_that_make_it_at_once_agree_who_it_is(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-c", OPEN, str(tmp_path / "w")]
    makers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    answers = {maker.communicate(timeout=60)[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0] * 6
    assert len(answers) == 1


@pytest.mark.parametrize("name", [".format.json.1f2e3d4c", "..format.json.1f2e3d4c.x7k2.tmp"])
def test_half_a_format_file_of_somebody_else_is_no_strangers_file(name: str, tmp_path: Path) -> None:
    """Another process is at it now, or was killed at it."""
    (tmp_path / name).write_text("{")
    assert open_workspace(tmp_path).id


def test_one_cut_off_half_way_is_finished(tmp_path: Path) -> None:
    whole = open_workspace(tmp_path)
    keyid, master = whole.trusted_key.keyid, whole.device_master
    (tmp_path / "format.json").unlink()
    again = open_workspace(tmp_path)
    assert (again.trusted_key.keyid, again.device_master) == (keyid, master), "keys that devices may know already stay"


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "w")
    assert {path.stat().st_mode & 0o777 for path in workspace.keys.iterdir()} == {0o600}
    assert workspace.folder.stat().st_mode & 0o777 == 0o700


def test_foreign_folders_and_newer_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").touch()
    with pytest.raises(NotAWorkspace):
        open_workspace(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.tex"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "format.json").write_text('{"format": 2, "workspace_id": "x"}')
    with pytest.raises(WorkspaceTooNew, match="format 2, this one knows 1"):
        open_workspace(tmp_path / "b")


def test_a_wake_up_is_heard_whatever_the_depth_of_the_folder(tmp_path: Path) -> None:
    run = tmp_path / ("d" * 120) / "run"
    run.mkdir(parents=True)
    sender = SocketWakeups(run)
    sender.wake("hub")  # nobody listens yet: nothing happens
    receiver = SocketReceiver(run, "hub")
    try:
        assert not receiver.wait(0)
        for _ in range(10_000):
            sender.wake("hub")  # never blocks, however many are pending
        assert receiver.wait(5)
        assert not receiver.wait(0), "pending ones are one"
    finally:
        receiver.close()
        sender.close()
