"""Real files, real links, real damage: what is listed, what is refused, what survives."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.secret_files import SecretInSource
from hedgerow.safe_tar import UnsafeArchive
from packager.cache.layers import LayerCache
from packager.cache.scratch import scratch_folder
from packager.errors import (
    BlobCorrupt,
    LinkOutside,
    PackedFileChanged,
    ReservedName,
    ScriptNotFound,
    SpecialFile,
    UnreadableFile,
    UnusableFileName,
)
from packager.oci.blobs import BlobFolder
from packager.oci.tar_layer import DiskEntry, tar_chunks
from packager.source_files import list_files, list_source, locate_script
from packager.verify.unpack import unpack_layers
from tests.packager_builders import model_of, request_for, run_packager, write_onnx_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "b.txt").write_text("b")
    (made / "a.txt").write_text("a")
    return made


def test_files_come_sorted_and_links_inside_are_followed(folder: Path) -> None:
    (folder / "link.txt").symlink_to("sub/b.txt")
    found = list_files(folder)
    assert [file.path for file in found] == ["a.txt", "link.txt", "sub/b.txt"]
    assert found[1].source.read_text() == "b"


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), LinkOutside),
        (lambda path: path.symlink_to("../../outside"), LinkOutside),
        (lambda path: path.symlink_to("missing"), LinkOutside),
        (lambda path: path.symlink_to("bad"), LinkOutside),
        (lambda path: path.symlink_to("."), LinkOutside),
        (lambda path: path.symlink_to("/dev/null"), LinkOutside),
        (os.mkfifo, SpecialFile),
        (_make_socket, SpecialFile),
        (lambda path: path.with_name(".wh.model").write_text(""), UnusableFileName),
        (lambda path: path.with_name("a\nb").write_text(""), UnusableFileName),
        (lambda path: path.with_name("a\\b").write_text(""), UnusableFileName),
        (lambda path: Path(os.fsdecode(os.fsencode(path) + b"\xff")).write_text(""), UnusableFileName),
    ],
)
def test_what_must_not_enter_an_image_is_named(folder: Path, make: Callable[[Path], None], error: type[Exception]) -> None:
    make(folder / "sub" / "bad")
    with pytest.raises(error, match="sub/"):
        list_files(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="nowhere"):
        list_files(tmp_path / "nowhere")


def test_source_leaves_out_what_tools_made(folder: Path) -> None:
    for path in (".git/config", "sub/__pycache__/b.cpython-311.pyc", ".venv/bin/python", "old.pyc"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
    assert [file.path for file in list_source(folder, frozenset())] == ["a.txt", "sub/b.txt"]


def test_a_secret_is_refused_unless_named(folder: Path) -> None:
    (folder / "sub" / ".env").write_text("TOKEN=1")
    with pytest.raises(SecretInSource, match=r"sub/\.env"):
        list_source(folder, frozenset())
    assert "sub/.env" in [file.path for file in list_source(folder, frozenset({"sub/.env"}))]


def test_our_own_names_are_refused_in_a_source(folder: Path) -> None:
    (folder / "runtime.py").write_text("")
    with pytest.raises(ReservedName, match=r"runtime\.py"):
        list_source(folder, frozenset())


def test_a_script_alone_brings_nothing_of_its_folder(folder: Path) -> None:
    (folder / ".env").write_text("TOKEN=1")
    (folder / "score.py").write_text("def run(data): return data")
    place, script = locate_script(folder / "score.py", None)
    assert [file.path for file in list_source(place, frozenset(), only=script)] == ["score.py"]


def test_a_script_must_lie_in_its_source(folder: Path) -> None:
    (folder / "score.py").write_text("")
    assert locate_script(Path("score.py"), folder) == (folder, "score.py")
    for script in (Path("../other.py"), Path("missing.py"), Path("/etc/passwd")):
        with pytest.raises(ScriptNotFound):
            locate_script(script, folder)


def entry(path: Path, size_bytes: int) -> DiskEntry:
    return DiskEntry("file", path, size_bytes)


@pytest.mark.parametrize("size_bytes", [0, 5, 20])
def test_a_file_whose_size_changed_since_it_was_listed_is_noticed(tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with pytest.raises(PackedFileChanged, match="/f"):
        b"".join(tar_chunks([entry(tmp_path / "f", size_bytes)]))


def test_a_file_that_is_rewritten_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    size = 3 << 20
    (tmp_path / "f").write_bytes(bytes(size))
    chunks = tar_chunks([entry(tmp_path / "f", size)])
    next(chunks)
    next(chunks)
    with (tmp_path / "f").open("r+b") as file:
        file.write(b"other")
    os.utime(tmp_path / "f", ns=(1, 1))
    with pytest.raises(PackedFileChanged):
        b"".join(chunks)


@pytest.mark.parametrize("swap", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_a_file_that_was_swapped_since_is_not_followed(tmp_path: Path, swap: Callable[[Path], None]) -> None:
    swap(tmp_path / "f")
    with pytest.raises((UnreadableFile, SpecialFile)):
        b"".join(tar_chunks([entry(tmp_path / "f", 5)]))


def test_a_blob_that_is_not_what_was_expected_is_not_kept(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    with pytest.raises(BlobCorrupt):
        blobs.add([b"data"], expected="sha256:" + "0" * 64)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_foreign_digest_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(BlobCorrupt):
        BlobFolder(tmp_path).read("sha256:../../../etc/passwd")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> object:
        yield b"half"
        raise OSError("cable pulled")

    with pytest.raises(OSError, match="cable pulled"):
        BlobFolder(tmp_path).add(breaking())  # type: ignore[arg-type]  # a generator of bytes
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_blob_counts_as_absent(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    blob = blobs.add([b"data"])
    assert blobs.holds(blob.digest)
    blobs.path(blob.digest).chmod(0o644)
    blobs.path(blob.digest).write_bytes(b"dat!")
    assert not blobs.holds(blob.digest)
    blobs.add([b"data"])
    assert blobs.read(blob.digest) == b"data"


def test_a_damaged_cache_record_counts_as_absent(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, tmp_path)
    cache.keep("kind", "sha256:abc", {"a": 1})
    assert cache.find("kind", "sha256:abc", dict[str, int]) == {"a": 1}
    next((tmp_path / "records" / "kind").iterdir()).write_bytes(b'{"a":')
    assert cache.find("kind", "sha256:abc", dict[str, int]) is None


def test_scratch_of_a_dead_build_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "scratch" / "build-dead"
    dead.mkdir(parents=True)
    (dead / "half").write_text("x")
    with scratch_folder(tmp_path) as mine:
        assert not dead.exists()
        with scratch_folder(tmp_path) as other:
            assert mine.exists()
            assert other != mine
    assert list((tmp_path / "scratch").glob("build-*")) == []


def archive(target: Path, *members: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(target, "w") as tar:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o4755
    return made


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/evil")],
        [member("../evil")],
        [member("a/../../evil")],
        [member("dev", tarfile.CHRTYPE)],
        [member("abs", tarfile.SYMTYPE, "/etc")],
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    root = tmp_path / "in" / "root"
    root.mkdir(parents=True)
    with pytest.raises(UnsafeArchive):
        unpack_layers([archive(tmp_path / "layer.tar", *members)], root)
    assert not list(tmp_path.rglob("evil"))


def test_later_layers_stand_on_earlier_ones(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    first = archive(tmp_path / "1.tar", member("a/x"), member("a/y"))
    second = archive(tmp_path / "2.tar", member("a/y"), member("b/new"), content=b"2")
    unpack_layers([first, second], root)
    read = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert read == {"a/x": b"x", "a/y": b"2", "b/new": b"2"}


def test_a_damaged_layer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(b"\x1f\x8bno gzip at all")
    with pytest.raises(UnsafeArchive, match="damaged"):
        unpack_layers([tmp_path / "layer.tar"], tmp_path)


def test_a_build_refuses_a_model_with_a_secret_unless_it_is_named(tmp_path: Path) -> None:
    folder = write_onnx_model(tmp_path / "m")
    (folder / ".env").write_text("TOKEN=1")
    request = request_for("onnx", [model_of(folder)], tmp_path)
    refused = run_packager(request, tmp_path)
    assert refused.problem_code == "secret_in_source"
    assert "--allow-secret adder/.env" in refused.problem_text
    built = run_packager(msgspec.structs.replace(request, allowed_secrets=["adder/.env"]), tmp_path)
    assert built.exit_code == 0, built.stderr
