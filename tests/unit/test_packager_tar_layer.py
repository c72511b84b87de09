"""The bytes of a layer depend on names and contents alone."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import Bug
from packager.oci.tar_layer import DataEntry, Entry, tar_chunks

_names = st.lists(st.text("abz-.ü", min_size=1, max_size=40).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4)


def packed(*entries: Entry) -> bytes:
    return b"".join(tar_chunks(entries))


def test_format_is_pinned() -> None:
    # If this fails on a newer Python, its tarfile writes other headers and every digest of every image changes:
    # raise TAR_GENERATION and say so in the changelog.
    digest = hashlib.sha256(packed(DataEntry("models/a/1/model.onnx", b"weights"), DataEntry("x" * 120, b""))).hexdigest()
    assert digest == "8937ecc086b42552f26b5a864b6ae2009fa6a612b57300beaa07b50d9a1f125b"


def test_order_of_entries_does_not_matter() -> None:
    entries = [DataEntry("b", b"1"), DataEntry("a/c", b"2"), DataEntry("a-b", b"3"), DataEntry("z/y/x", b"4")]
    assert packed(*entries) == packed(*reversed(entries))


def test_folders_are_explicit_and_stand_before_their_content() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(DataEntry("a/b/c", b"x"), DataEntry("a-/d", b"y")))) as tar:
        assert tar.getnames() == ["a", "a/b", "a/b/c", "a-", "a-/d"]


def test_headers_say_nothing_of_the_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(DataEntry("a/" + "long" * 60, b"x"), DataEntry("ünïcode", b"y")))) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.isdir() else 0o644)
            assert set(member.pax_headers) <= {"path"}


def test_one_path_twice_is_refused() -> None:
    with pytest.raises(Bug, match="two entries 'a'"):
        packed(DataEntry("a", b"1"), DataEntry("a", b"2"))


def test_seen_tells_digest_and_size_of_each_file() -> None:
    told: list[tuple[str, str, int]] = []
    b"".join(tar_chunks([DataEntry("f", b"hello")], lambda *facts: told.append(facts)))
    assert told == [("f", "sha256:" + hashlib.sha256(b"hello").hexdigest(), 5)]


@given(st.dictionaries(_names.map("/".join), st.binary(max_size=2000), max_size=8), st.randoms())
def test_any_tree_comes_out_as_it_went_in(files: dict[str, bytes], random: object) -> None:
    # A name that is a file here and a folder there cannot stand on a disk.
    files = {path: data for path, data in files.items() if not any(other.startswith(path + "/") for other in files)}
    entries = [DataEntry(path, data) for path, data in files.items()]
    random.shuffle(entries)  # type: ignore[attr-defined]  # hypothesis gives a Random
    with tarfile.open(fileobj=io.BytesIO(packed(*entries))) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]  # regular files have content
    assert read == files
    assert packed(*entries) == packed(*sorted(entries, key=lambda entry: entry.path))
