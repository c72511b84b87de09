"""Foreign code under its own user, for real: what it is, what it may write, what it cannot read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.process import Supervised
from hedgerow.process.sandbox import RUN_GID, SANDBOX_UID
from registry.controller.sandbox import Sandbox, make_sandbox
from registry.workspace import Workspace, open_workspace
from tests.process_folders import ended, need_root


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    need_root()
    # Not below pytest's own folder, which nobody else may enter.
    place = Path(tempfile.mkdtemp(prefix="hedgerow-sandbox-"))
    place.chmod(0o755)
    try:
        made = open_workspace(place / "workspace")
        (made.folder / "records.db").write_text("secret")
        made.owner_token_file.write_text("secret")
        made.owner_token_file.chmod(0o600)
        yield made
    finally:
        shutil.rmtree(place)


def run(workspace: Workspace, sandbox: Sandbox, script: str) -> str:
    """What ``script`` prints, run as foreign code in a folder of its own inside the workspace."""
    folder = workspace.work / "runs" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o711)
    sandbox.give(folder)
    process = Supervised(workspace.processes / "job-one")
    process.start(sandbox.spec(["/bin/sh", "-c", script], folder, {}))
    ended(process)
    return process.tail(50)


def test_it_is_nobody_here_and_has_its_own_folder_only(workspace: Workspace) -> None:
    sandbox = make_sandbox(workspace, [Path("/bin")], running_as_root=True, required=True)
    assert sandbox.uid == SANDBOX_UID
    own = workspace.work / "runs" / "one"
    assert run(workspace, sandbox, f"id -u; id -G; echo mine > {own}/file; cat {own}/file").split() == [
        str(SANDBOX_UID),
        str(SANDBOX_UID),
        str(RUN_GID),
        "mine",
    ]
    secrets = [workspace.folder / "records.db", workspace.owner_token_file, workspace.keys / "signing.key", workspace.blobs]
    for secret in secrets:
        assert "Permission denied" in run(workspace, sandbox, f"cat {secret} 2>&1; ls {secret} 2>&1 || true"), secret
    deployed = workspace.run / "images" / "model.onnx"
    deployed.parent.mkdir(mode=0o711)
    deployed.write_text("weights")
    assert run(workspace, sandbox, f"cat {deployed}").split()[-1] == "weights"
    for folder in (workspace.folder, workspace.run, workspace.work):
        assert "Permission denied" in run(workspace, sandbox, f"ls {folder} 2>&1"), "it passes through and sees nothing"
