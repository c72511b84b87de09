"""Lines of a requirements.txt on disk, with the files that it names in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.sdk.errors import RequirementsUnreadable
from hedgerow.sdk.requirement_files import MAX_BYTES, read_conda_text, read_lines


def write(folder: Path, **files: str | bytes) -> None:
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_named_files_stand_where_they_were_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(
        tmp_path,
        top="# all\n-r deep/more.txt  # those\nlast\n-r plain.txt\n",
        plain="plain\r\n--requirement=plainer.txt",
        plainer="plainer",
    )
    write(tmp_path / "deep", more="\ufefffirst\n-r../shared.txt\n--requirement ../shared.txt\n-c pins.txt\n")
    write(tmp_path, shared="shared\n")
    # Options that are no -r stay: the registry says what to do about them.
    assert read_lines(tmp_path / "top.txt") == ["# all", "first", "shared", "shared", "-c pins.txt", "last", "plain", "plainer"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-r top.txt", "names itself"),
        ("-r other.txt", "names itself"),
        ("-r https://example.org/r.txt", "no file on this disk"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a" * (MAX_BYTES + 1), "more than 1 MiB"),
    ],
    ids=["itself", "circle", "url", "bytes", "large"],
)
def test_what_cannot_be_read(tmp_path: Path, text: str | bytes, words: str) -> None:
    write(tmp_path, top=text, other="-r ./top.txt")
    with pytest.raises(RequirementsUnreadable, match=words) as refused:
        read_lines(tmp_path / "top.txt")
    assert len(refused.value.sentence()) < 600


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, top="-r absent.txt")
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        read_lines(tmp_path / "top.txt")


def test_many_files_end(tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"f{number}.txt").write_text(f"-r f{number + 1}.txt\n")
    (tmp_path / "f120.txt").write_text("end\n")
    with pytest.raises(RequirementsUnreadable, match="more than 100 files"):
        read_lines(tmp_path / "f0.txt")


def test_a_conda_file_brings_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "req").mkdir()
    write(tmp_path, more="scipy\n")
    write(tmp_path / "req", base="# pins\nnumpy==1.26.4 \\\n  --hash=sha256:00\n\n'quoted' ; x\n-r ../more.txt\n")
    (tmp_path / "conda.yml").write_text(
        "name: x  # -r no.txt\ndependencies:\n- python=3.11\n- pip:\n  - -r req/base.txt  # ours\n  - '-rmore.txt'\n  - six\n"
    )
    assert read_conda_text(tmp_path / "conda.yml").splitlines()[4:] == [
        '  - "numpy==1.26.4    --hash=sha256:00"',
        "  - \"'quoted' ; x\"",
        '  - "scipy"',
        '  - "scipy"',
        "  - six",
    ]


def test_what_a_conda_file_names_must_be_there_and_no_address(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text("dependencies:\n- pip:\n  - -r nowhere.txt\n")
    with pytest.raises(FileNotFoundError):
        read_conda_text(tmp_path / "conda.yml")
    # An address stays for whoever makes the environment to refuse, with the line.
    (tmp_path / "conda.yml").write_text("dependencies:\n- pip:\n  - -r https://host/r.txt\n- --name\n")
    assert read_conda_text(tmp_path / "conda.yml").splitlines()[2:] == ["  - -r https://host/r.txt", "- --name"]
