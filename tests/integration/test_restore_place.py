"""The hidden folder that a restore builds in: only one that is our own is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.backup.errors import RestorePlaceTaken
from registry.backup.place import building_place


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    return tmp_path / ".new.restoring"


def test_a_folder_of_ours_is_cleared_and_used(tmp_path: Path, hidden: Path) -> None:
    hidden.mkdir(mode=0o700)
    (hidden / "left").write_text("by a killed restore")
    with building_place(tmp_path / "new") as place:
        place.clear()
        (place.folder / "a").write_text("b")
        assert place.folder.stat().st_mode & 0o777 == 0o700
        place.publish()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_is_no_folder_is_refused_and_nothing_behind_it_touched(tmp_path: Path, hidden: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    if kind == "file":
        hidden.write_text("x")
    else:
        hidden.symlink_to(victim)
    if kind == "link":
        victim.mkdir()
        (victim / "precious").write_text("x")
    with pytest.raises(RestorePlaceTaken, match="link or a file"), building_place(tmp_path / "new"):
        pass
    assert kind != "link" or (victim / "precious").exists()
    assert victim.exists() is (kind == "link")


def test_somebody_elses_folder_is_refused(tmp_path: Path, hidden: Path) -> None:
    assert os.geteuid() == 0, "this test gives a folder away and needs root"
    hidden.mkdir(mode=0o700)
    (hidden / "restored.json").write_text("{}")
    os.chown(hidden, 12345, -1)
    with pytest.raises(RestorePlaceTaken, match="12345"), building_place(tmp_path / "new"):
        pass
    assert (hidden / "restored.json").exists()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, hidden: Path) -> None:
    hidden.mkdir()
    hidden.chmod(0o777)
    with pytest.raises(RestorePlaceTaken, match="others may write"), building_place(tmp_path / "new"):
        pass
    assert hidden.exists()
