"""Which wheels share a layer, and what happens when two bring the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from packager.environment.wheel_metadata import WheelMetadata
from packager.environment.wheels import (
    LARGE_WHEEL_BYTES,
    LARGE_WHEELS_AT_MOST,
    Wheel,
    WheelFile,
    group_wheels,
    is_host_file,
    read_wheels,
)
from packager.errors import UnusableFileName, WheelsCollide


def wheel(name: str, size_bytes: int = 10, path: str | None = None, digest: str = "sha256:x") -> Wheel:
    file = WheelFile(path or f"{name}/__init__.py", Path("/site"), size_bytes, False, digest)
    return Wheel(name, "1.0", f"key-{name}", (file,), WheelMetadata(name=name, version="1.0"))


def test_large_wheels_stand_alone_and_small_ones_together() -> None:
    groups = group_wheels(
        [wheel("zlarge", LARGE_WHEEL_BYTES + 1), wheel("b"), wheel("alarge", 2 * LARGE_WHEEL_BYTES), wheel("a")]
    )
    assert [group.purpose for group in groups] == ["wheel alarge 1.0", "wheel zlarge 1.0", "2 small wheels"]
    assert [found.name for found in groups[-1].wheels] == ["a", "b"]


def test_groups_do_not_depend_on_the_order_of_installation() -> None:
    wheels = [wheel(name, size) for name, size in (("a", 1), ("b", LARGE_WHEEL_BYTES + 1), ("c", 3))]
    assert group_wheels(wheels) == group_wheels(reversed(wheels))


def test_a_change_of_one_small_wheel_changes_only_the_key_of_the_small_ones() -> None:
    large = wheel("large", LARGE_WHEEL_BYTES + 1)
    before = [group.key for group in group_wheels([large, wheel("a")])]
    after = [group.key for group in group_wheels([large, replace(wheel("a"), version="2.0", key="key-a-2")])]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_there_are_never_more_layers_than_engines_take() -> None:
    wheels = [wheel(f"w{number:03}", LARGE_WHEEL_BYTES + number) for number in range(1, 200)]
    groups = group_wheels(wheels)
    assert len(groups) == LARGE_WHEELS_AT_MOST + 1
    assert sum(len(group.wheels) for group in groups) == len(wheels)


def test_no_wheels_no_layers() -> None:
    assert group_wheels([]) == []


def test_equal_files_of_two_wheels_are_no_collision() -> None:
    group_wheels([wheel("a", path="shared/__init__.py"), wheel("b", path="shared/__init__.py")])


def test_different_files_at_one_path_are_refused() -> None:
    with pytest.raises(WheelsCollide, match=r"tests/x\.py comes with different content from a and from b"):
        group_wheels([wheel("a", path="tests/x.py"), wheel("b", path="tests/x.py", digest="sha256:y")])


@pytest.mark.parametrize("path", ["runtime/__init__.py", "hedgerow/__init__.py"])
def test_a_wheel_that_hides_our_own_code_is_refused(path: str) -> None:
    with pytest.raises(WheelsCollide, match="Hedgerow itself"):
        group_wheels([wheel("a", path=path)])


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("bin/flask", True),
        ("../../bin/flask", True),
        ("/etc/passwd", True),
        ("a/../../x", True),
        ("a-1.dist-info/RECORD", True),
        ("a-1.dist-info/INSTALLER", True),
        ("a/__pycache__/m.cpython-311.pyc", True),
        ("a-1.dist-info/METADATA", False),
        ("a-1.dist-info/entry_points.txt", False),
        ("a/bin/tool", False),
        ("a/RECORD", False),
        ("share/a.txt", False),
    ],
)
def test_what_belongs_to_the_installing_machine_is_left_out(path: str, left_out: bool) -> None:
    assert is_host_file(path, "a-1.dist-info") is left_out


def installed(site: Path, record: str) -> list[Wheel]:
    info = site / "one-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(record)
    (site / "one.py").write_text("")
    (site / ".wh.numpy").write_text("")
    lock = EnvironmentLock(
        python_version="3.11",
        platform="linux/amd64",
        requirements=["one"],
        packages=[LockedPackage(name="one", version="1.0", hashes=[])],
        digest="sha256:" + "0" * 64,
    )
    return read_wheels(site, lock)


def test_a_wheel_deletes_nothing_of_the_layers_below(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileName, match=r"\.wh\.numpy"):
        installed(tmp_path, "one.py,,\n.wh.numpy,,\n")


def test_a_hash_that_is_none_is_no_file_s_hash(tmp_path: Path) -> None:
    (only,) = installed(tmp_path, "one.py,sha256=!!!a,0\n")
    assert only.files[0].digest == "sha256:"
