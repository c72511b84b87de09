"""Which folder keeps another user out; asked with numbers of users that nobody needs to have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hedgerow.process.reach import first_barred
from tests.process_folders import need_root

SOMEBODY = 4_000_000_000


def test_the_first_folder_that_is_closed_is_named(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o700)
    mine, group = outer.stat().st_uid, outer.stat().st_gid
    assert first_barred(inner, mine, group) is None
    assert first_barred(inner, SOMEBODY, SOMEBODY) in (inner, *inner.parents)
    for folder in (outer, inner):
        folder.chmod(0o710)
    tmp_path.chmod(0o711)
    barred = first_barred(inner, SOMEBODY, group)
    assert barred is None or barred in tmp_path.parents, "its group may pass through"
    inner.chmod(0o701)
    assert first_barred(inner, SOMEBODY, group) in (inner, *tmp_path.parents), "the group's own bits count, not those of others"


def test_a_link_is_followed_and_a_file_bars_nobody(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / "file").touch(mode=0o600)
    link.symlink_to(real)
    me = real.stat()
    assert first_barred(link / "file", me.st_uid, me.st_gid) is None
    with pytest.raises(FileNotFoundError):
        first_barred(tmp_path / "absent", me.st_uid, me.st_gid)


def test_a_program_of_the_machine_can_be_reached() -> None:
    assert first_barred(Path("/bin/sh"), SOMEBODY, SOMEBODY) is None


def test_rights_of_the_owner_count(tmp_path: Path) -> None:
    need_root()
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    os.chown(folder, SOMEBODY, SOMEBODY)
    barred_above = [path for path in tmp_path.parents if not path.stat().st_mode & 0o001]
    assert first_barred(folder, SOMEBODY, SOMEBODY) == (barred_above[-1] if barred_above else None)
