"""Unpacking foreign archives: what is fine comes out, what is not touches nothing outside."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.safe_tar import UnsafeArchive, unpack_tar


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, mode
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], packing: str = "") -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{packing}") as tar:  # type: ignore[call-overload]  # "w:" or "w:gz"
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def refused(root: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with pytest.raises(UnsafeArchive) as caught:
        unpack_tar(archive(*members), root, name="a.tar")
    return str(caught.value)


@pytest.mark.parametrize("packing", ["", "gz"])
def test_files_folders_and_links_that_stay_inside(tmp_path: Path, packing: str) -> None:
    members = [
        member("d/", kind=tarfile.DIRTYPE),
        member("d/run", b"#!", mode=0o6755),
        member("./d/data", b"12345", mode=0o600),
        member("d/e/up", kind=tarfile.SYMTYPE, link="../data"),
        member("same", kind=tarfile.LNKTYPE, link="d/data"),
    ]
    assert unpack_tar(archive(*members, packing=packing), tmp_path, name="a.tar") == 7
    assert (tmp_path / "d/e/up").read_bytes() == (tmp_path / "same").read_bytes() == b"12345"
    assert (tmp_path / "d/run").stat().st_mode & 0o7777 == 0o755, "no set-uid bit"
    assert (tmp_path / "d/data").stat().st_mode & 0o7777 == 0o644


def test_a_later_member_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    root = tmp_path / "root"
    root.mkdir()
    members = [member("f", b"old"), member("f", b"new"), member("l", kind=tarfile.SYMTYPE, link="f"), member("l", b"file now")]
    unpack_tar(archive(*members), root, name="a.tar")
    assert ((root / "f").read_bytes(), (root / "l").read_bytes()) == (b"new", b"file now")
    assert not (root / "l").is_symlink()
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/..", "//x"])
def test_paths_that_lead_out(tmp_path: Path, name: str) -> None:
    assert name in refused(tmp_path, member(name, b"x"))


@pytest.mark.parametrize("link", ["/etc", "..", "../..", "a/../../b", "../../../etc", ""])
def test_links_that_lead_out(tmp_path: Path, link: str) -> None:
    refused(tmp_path, member("d/l", kind=tarfile.SYMTYPE, link=f"{link}" if link != ".." else "../.."))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    link = member("door", kind=tarfile.SYMTYPE, link="in")
    assert "below a link" in refused(root, link, member("door/x", b"x"))
    assert list((root / "in").iterdir()) == []


@pytest.mark.parametrize("aim", ["../outside", "/etc/passwd", "none", "", "l"])
def test_hard_links_to_anything_but_an_unpacked_file(tmp_path: Path, aim: str) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    refused(root, member("f", b"x"), member("l", kind=tarfile.SYMTYPE, link="f"), member("h", kind=tarfile.LNKTYPE, link=aim))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(tmp_path: Path, kind: bytes) -> None:
    assert "neither a file" in refused(tmp_path, member("dev", kind=kind))


def test_a_hard_link_in_the_place_of_its_own_folder(tmp_path: Path) -> None:
    assert "would replace the folder" in refused(tmp_path, member("b/b", b"x"), member("b", kind=tarfile.LNKTYPE, link="b/b"))


def test_an_archive_that_grows_beyond_all_bounds(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="more than 10 bytes"):
        unpack_tar(archive(member("a", b"x" * 8), member("b", b"x" * 8)), tmp_path, name="a.tar", max_bytes=10)


def test_a_damaged_archive(tmp_path: Path) -> None:
    whole = archive(member("a", b"x" * 10_000), packing="gz").getvalue()
    for broken in (whole[: len(whole) // 2], b"no tar at all" * 100):
        with pytest.raises(UnsafeArchive, match="damaged"):
            unpack_tar(io.BytesIO(broken), tmp_path, name="a.tar")


def test_the_stream_is_read_to_its_end_so_that_it_can_check_itself(tmp_path: Path) -> None:
    stream = io.BytesIO(archive(member("a", b"x")).getvalue() + b"\0" * 100_000)
    unpack_tar(stream, tmp_path, name="a.tar")
    assert stream.read() == b""


NAMES = st.lists(st.sampled_from(["..", ".", "a", "b", "", "\u00e9"]), min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=8))
@settings(max_examples=200, deadline=None)
def test_whatever_it_says_nothing_outside_is_touched(members: list[tuple[str, bytes, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        (place / "b").write_bytes(b"outside")
        root = place / "root"
        root.mkdir()
        try:
            entries = [member(n, b"x" if k == tarfile.REGTYPE else b"", kind=k, link=aim) for n, k, aim in members]
            unpack_tar(archive(*entries), root, name="a.tar")
        except UnsafeArchive:
            pass
        assert sorted(path.name for path in place.iterdir()) == ["b", "root"]
        assert (place / "b").read_bytes() == b"outside"
        for path in root.rglob("*"):
            assert Path(os.path.realpath(path)).is_relative_to(root), path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    huge = tarfile.TarInfo("header")
    huge.type, huge.size = kind, 1 << 40
    before = archive(member("a", b"x")).getvalue()[:1024]
    with pytest.raises(UnsafeArchive, match="header of 1099511627776 bytes"):
        unpack_tar(io.BytesIO(before + huge.tobuf(tarfile.GNU_FORMAT)), tmp_path, name="a.tar")


def test_long_names_are_no_harm(tmp_path: Path) -> None:
    name = "/".join(["d" * 100] * 5)
    unpack_tar(archive(member(name, b"x")), tmp_path, name="a.tar")
    assert (tmp_path / name).read_bytes() == b"x"


def test_archives_of_endless_empty_members_are_refused(tmp_path: Path) -> None:
    members = [member(f"m{number}") for number in range(11)]
    assert unpack_tar(archive(*members[:10]), tmp_path, name="a.tar", max_members=10) == 0
    with pytest.raises(UnsafeArchive, match="more than 10 members"):
        unpack_tar(archive(*members), tmp_path, name="a.tar", max_members=10)


def pax(values: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header as tarfile would never write it."""
    records = b""
    for name, value in values.items():
        body = f" {name}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        records += str(length).encode() + body
    return header("pax", kind, len(records)) + records + bytes(-len(records) % tarfile.BLOCKSIZE)


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def raw_refused(root: Path, data: bytes, max_bytes: int = 1000) -> str:
    with pytest.raises(UnsafeArchive) as caught:
        unpack_tar(io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE)), root, name="a.tar", max_bytes=max_bytes)
    return str(caught.value)


def test_a_size_below_zero_buys_no_room(tmp_path: Path) -> None:
    room = pax({"size": "-1000000"}) + header("folder", tarfile.DIRTYPE)
    content = header("large", tarfile.REGTYPE, 5120) + bytes(5120)

    assert "a size of -1000000 bytes" in raw_refused(tmp_path, room + content)
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    "sparse",
    [
        header("sparse", tarfile.GNUTYPE_SPARSE),
        pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}) + header("sparse", tarfile.REGTYPE),
        pax({"GNU.sparse.size": "9", "GNU.sparse.offset": "0"}) + header("sparse", tarfile.REGTYPE),
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + header("sparse", tarfile.REGTYPE),
    ],
    ids=["gnu", "pax 0.1", "pax 0.0", "pax 1.0"],
)
def test_sparse_files_are_refused(tmp_path: Path, sparse: bytes) -> None:
    assert "a sparse file" in raw_refused(tmp_path, sparse)


@pytest.mark.parametrize("again", [pax({"comment": "x"}), pax({"comment": "x"}, tarfile.XGLTYPE)], ids=["pax", "global"])
def test_headers_about_headers_without_end(tmp_path: Path, again: bytes) -> None:
    assert "RecursionError" in raw_refused(tmp_path, again * 2000 + header("file", tarfile.REGTYPE))


def test_global_headers_do_not_fill_the_memory(tmp_path: Path) -> None:
    pairs = [pax({f"n{i}": "x" * 400_000}, tarfile.XGLTYPE) + header(f"file{i}", tarfile.REGTYPE) for i in range(3)]

    assert "global headers of more than" in raw_refused(tmp_path, b"".join(pairs))


@pytest.mark.parametrize(("name", "value"), [("linkpath", "a\0b"), ("path", "n" * 300)])
def test_names_that_no_file_can_have(tmp_path: Path, name: str, value: str) -> None:
    raw_refused(tmp_path, pax({name: value}) + header("link", tarfile.SYMTYPE))
