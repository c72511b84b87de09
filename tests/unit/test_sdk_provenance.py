"""The commit of a folder and the digests of data sets, from real repositories and files."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from hedgerow.contracts.model import digest_of_files
from hedgerow.errors import HedgerowError
from hedgerow.sdk.files import collect
from hedgerow.sdk.provenance import commit_of, data_refs, without_credentials

GIT = shutil.which("git")


def git(folder: Path, *arguments: str) -> str:
    assert GIT is not None
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        [GIT, *identity, "-C", str(folder), *arguments], env={"HOME": str(folder)}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "code" / "training"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "--quiet")
    (folder / "train.py").write_text("print(1)")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_the_commit_of_a_folder(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://me:secret@git.example/team/code.git")
    found = commit_of(repository)
    assert found is not None
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert (found.branch, found.repository, found.dirty) == ("main", "https://git.example/team/code.git", False)


def test_changes_in_the_folder_make_it_dirty_those_elsewhere_do_not(repository: Path) -> None:
    (repository.parent / "elsewhere.py").write_text("1")
    assert commit_of(repository) is not None
    assert not getattr(commit_of(repository), "dirty", True)
    (repository / "new.py").write_text("2")
    assert getattr(commit_of(repository), "dirty", False)


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    found = commit_of(repository)
    assert found is not None
    assert found.branch == ""


def test_without_a_repository_or_a_commit_there_is_none(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "nowhere") is None


def test_a_repository_cannot_have_git_run_its_programs(repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    hook = tmp_path / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert commit_of(repository) is not None
    assert not mark.exists()


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://user:token@host/x.git?private=1#y", "https://host/x.git"),
        ("https://token@host:8443/x", "https://host:8443/x"),
        ("ssh://git@host/x", "ssh://host/x"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("/srv/git/x.git", "/srv/git/x.git"),
        ("http://[broken", ""),
        ("", ""),
    ],
)
def test_credentials_are_left_out(address: str, kept: str) -> None:
    assert without_credentials(address) == kept


def test_data_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(b"x")
    given = "sha256:" + "0" * 64
    file, tree, known = data_refs({"readings": tmp_path / "a.csv", "images": str(folder), "labels": given})
    assert file.digest == f"sha256:{sha256(b'1,2').hexdigest()}"
    assert file.uri == (tmp_path / "a.csv").resolve().as_uri()
    assert tree.digest == digest_of_files([found.entry for found in collect([folder])])
    assert (known.digest, known.uri) == (given, "")


@pytest.mark.parametrize(("name", "where"), [("Not A Name", "sha256:" + "0" * 64), ("empty", "")])
def test_wrong_data_is_refused(tmp_path: Path, name: str, where: str) -> None:
    with pytest.raises((HedgerowError, OSError)):
        data_refs({name: where or tmp_path / "nothing"})
