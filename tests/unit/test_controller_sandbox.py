"""Which user foreign code gets, and what bars the way of one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from hedgerow.process.sandbox import RUN_GID, SANDBOX_GID, SANDBOX_UID
from registry.controller.errors import SandboxMissing
from registry.controller.own_python import OwnPython
from registry.controller.sandbox import Sandbox, make_sandbox
from registry.workspace import open_workspace
from tests.process_folders import need_root


def test_the_environment_is_what_was_given_and_nothing_else() -> None:
    spec = Sandbox(None).spec(["/bin/true"], Path("/"), {"HOME": "/h", "PATH": "/x"})
    assert spec.environment == {"HOME": "/h", "PATH": "/x", "LANG": "C.UTF-8"}
    assert spec.uid is None


def test_limits_never_exceed_what_this_process_may_have() -> None:
    limits = Sandbox(64_999, memory_bytes=1 << 60).spec(["/bin/true"], Path("/"), {}).limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert limits.open_files is not None
    assert hard == resource.RLIM_INFINITY or limits.open_files <= hard
    assert limits.cpu_time_s is None or limits.cpu_time_s > 365 * 86_400, "a replica may work for years"


def test_without_a_user_of_its_own_it_says_so_or_refuses() -> None:
    barred = Sandbox(None, Path("/secret"))
    barred.check()
    assert "/secret" in barred.note()
    with pytest.raises(SandboxMissing, match="/secret"):
        Sandbox(None, Path("/secret"), required=True).check()
    for fine in (Sandbox(None, required=True), Sandbox(SANDBOX_UID, required=True)):
        fine.check()
        assert fine.note() == ""


def test_as_root_the_workspace_is_opened_for_passing_and_its_databases_closed(tmp_path: Path) -> None:
    need_root()
    import shutil
    import tempfile

    # pytest's own folders are closed to others, as the rule wants it.
    place = Path(tempfile.mkdtemp(prefix="hedgerow-sandbox-"))
    try:
        place.chmod(0o755)
        workspace = open_workspace(place / "workspace")
        (workspace.folder / "records.db").touch(0o644)
        barred = make_sandbox(workspace, [tmp_path], running_as_root=True, required=False)
        assert (barred.uid, barred.barred_by is None) == (None, False)
        assert workspace.folder.stat().st_mode & 0o777 == 0o700, "nothing is opened when it is of no use"
        found = make_sandbox(workspace, [Path("/usr/bin")], running_as_root=True, required=False)
        assert found.uid == SANDBOX_UID
        groups = {workspace.run: RUN_GID, **dict.fromkeys((workspace.folder, workspace.work, workspace.cache), SANDBOX_GID)}
        for folder, group in groups.items():
            assert (folder.stat().st_mode & 0o777, folder.stat().st_gid) == (0o710, group)
        assert workspace.keys.stat().st_mode & 0o077 == 0
        assert (workspace.folder / "records.db").stat().st_mode & 0o777 == 0o600
    finally:
        shutil.rmtree(place)


def test_our_own_helpers_do_not_get_our_secrets() -> None:
    python = OwnPython({"HEDGEROW_DATABASE": "x", "HEDGEROW_TOKEN": "x", "HEDGEROW_BASE_IMAGE": "oci:/b", "HOME": "/h"})
    spec = python.spec("packager", ["build", "r.json"], Path("/"))
    assert spec.environment == {"HEDGEROW_BASE_IMAGE": "oci:/b", "HOME": "/h"}
    assert spec.exit_with_starter
    assert spec.argv[1:] == ["-P", "-m", "packager", "build", "r.json"]


def test_what_opens_the_place_of_contents_reaches_only_helpers_that_need_it() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "x", "HEDGEROW_BLOBS": "s3://b/p", "HEDGEROW_DATABASE": "x"}
    python = OwnPython(environment)
    assert python.spec("packager", [], Path("/")).environment == {}
    found = python.spec("registry.controller.file_work", [], Path("/")).environment
    assert found == {"AWS_SECRET_ACCESS_KEY": "x", "HEDGEROW_BLOBS": "s3://b/p"}
