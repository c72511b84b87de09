"""Files on their way into and out of a workspace."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hedgerow.contracts.model import FileEntry
from hedgerow.sdk.errors import DownloadDamaged, FileChanged, FileNamesCollide, NotARegularFile, NothingToRegister
from hedgerow.sdk.files import collect, read_again, save


def names(*paths: Path) -> list[str]:
    return [file.entry.path for file in collect(paths)]


def test_a_file_keeps_its_name_and_a_folder_gives_its_tree(tmp_path: Path) -> None:
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "b.bin").write_bytes(b"b")
    (tmp_path / "m" / "sub" / "a.bin").write_bytes(b"a")
    (tmp_path / "single.onnx").write_bytes(b"x")
    assert names(tmp_path / "m", tmp_path / "single.onnx") == ["b.bin", "single.onnx", "sub/a.bin"]


def test_what_no_model_is_made_of_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_bytes(b"")
    (tmp_path / "train.py").write_text("")
    assert names(tmp_path) == ["train.py"]


def test_an_empty_folder_and_a_missing_file_are_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(NothingToRegister, match="holds no files"):
        collect([tmp_path])
    with pytest.raises(FileNotFoundError):
        collect([tmp_path / "missing.onnx"])


def test_no_file_takes_the_place_of_another_of_the_same_name(tmp_path: Path) -> None:
    for name in ("a/m.bin", "b/m.bin", "b/other.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for paths in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "a" / "m.bin", tmp_path / "b" / "m.bin")):
        with pytest.raises(FileNamesCollide, match=r"a/m\.bin and .*b/m\.bin would both be the file m\.bin"):
            collect(paths)


def test_a_fifo_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotARegularFile, match="FIFO"):
        collect([tmp_path])


def test_links_must_stay_inside(tmp_path: Path) -> None:
    inside = tmp_path / "m"
    inside.mkdir()
    (inside / "real.bin").write_bytes(b"r")
    (inside / "alias.bin").symlink_to("real.bin")
    assert names(inside) == ["alias.bin", "real.bin"]
    (tmp_path / "secret").write_bytes(b"s")
    (inside / "out.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(NotARegularFile, match="leaves the folder"):
        collect([inside])


def test_a_name_that_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    for name in ("two\nlines", "back\\slash"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(NotARegularFile, match="a file whose name holds a control character or a backslash"):
            collect([tmp_path])
        (tmp_path / name).unlink()


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff")).write_bytes(b"")
    with pytest.raises(NotARegularFile, match="not UTF-8"):
        collect([tmp_path])


def test_a_link_to_a_folder_is_refused_and_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.bin").write_bytes(b"")
    (tmp_path / "m" / "weights").symlink_to(tmp_path / "shared")
    with pytest.raises(NotARegularFile, match="link to a folder"):
        collect([tmp_path / "m"])


def test_a_download_is_verified_and_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"12345")
    entry = FileEntry(path="deep/copy.bin", digest=collect([source])[0].entry.digest, size_bytes=5)
    assert save([b"123", b"45"], entry, tmp_path / "out").read_bytes() == b"12345"
    with pytest.raises(DownloadDamaged):
        save([b"123"], entry, tmp_path / "cut")
    assert [path for path in (tmp_path / "cut").rglob("*") if path.is_file()] == []


def test_a_download_cannot_leave_its_folder_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(outside)
    entry = FileEntry(path="deep/x", digest="sha256:" + "0" * 64, size_bytes=0)
    with pytest.raises(NotARegularFile, match="leaves its folder"):
        save([b""], entry, tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_devices_and_sockets_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotARegularFile, match="/dev/null cannot be registered: it is a device"):
        collect([Path("/dev/null")])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(NotARegularFile, match="socket"):
            collect([tmp_path])


@pytest.mark.parametrize("change", ["append", "cut", "rewrite", "replace", "fifo"])
def test_a_file_that_changed_since_it_was_hashed_is_not_read_to_its_end(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    os.utime(path, (1, 1))
    (file,) = collect([path])
    assert b"".join(read_again(file)) == b"12345"
    if change == "append":
        with path.open("ab") as more:
            more.write(b"6")
    elif change == "cut":
        os.truncate(path, 2)
    elif change == "rewrite":
        path.write_bytes(b"54321")
    else:
        path.unlink()
        if change == "fifo":
            os.mkfifo(path)
        else:
            path.write_bytes(b"12345")
    expected = NotARegularFile if change == "fifo" else FileChanged
    with pytest.raises(expected, match="/f "):
        list(read_again(file))


def test_a_file_that_is_written_to_while_it_is_sent_is_never_sent_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 << 20))
    (file,) = collect([path])
    received: list[int] = []

    def send() -> None:
        for piece in read_again(file):
            received.append(len(piece))
            with path.open("r+b") as other:
                other.write(b"x")

    with pytest.raises(FileChanged, match="changed while it was read"):
        send()
    assert sum(received) < 3 << 20
