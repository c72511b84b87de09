"""Files that commands read whole."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from hedgerow.cli.input import MAX_BYTES, parse_json, read_text


def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffé".encode())
    assert read_text(tmp_path / "a") == "é"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(click.ClickException, match=f"more than {MAX_BYTES >> 20} MiB"):
        read_text(Path("/dev/zero"))


def test_bytes_that_are_no_text_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ok\xff")
    with pytest.raises(click.ClickException, match=r"not UTF-8 text .* at byte 2"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "", "1 2"])
def test_json_that_is_none_is_a_sentence_that_names_the_file(text: str) -> None:
    with pytest.raises(click.ClickException, match=r"^body\.json is n"):
        parse_json(text, "body.json")


def test_json_is_read() -> None:
    assert parse_json('{"a": [1]}', "x") == {"a": [1]}
