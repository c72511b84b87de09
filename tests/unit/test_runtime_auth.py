"""Keys: what a ring accepts, what a file of keys may hold, which pages are open, how a file is taken over."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import AuthKeysUnusable
from runtime.front.auth import Guard, KeyFile, KeyRing, OpenPages, check_keys

ONE, TWO = "first-key-0123456789", "second-key-987654321"


@pytest.mark.parametrize("header", [f"Bearer {ONE}", f"bearer {ONE}", f"BEARER  {ONE} ", f"Bearer {TWO}"])
def test_both_keys_are_as_good(header: str) -> None:
    ring = KeyRing([ONE, TWO], "here")
    assert ring.accepts(header)
    assert ring.accepts(header), "also when it is remembered"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {ONE}",
        ONE,
        f"Bearer {ONE[:-1]}",
        f"Bearer {ONE}x",
        f"Bearer {ONE} {TWO}",
        "Bearer é",
    ],
)
def test_anything_else_is_not(header: str | None) -> None:
    assert not KeyRing([ONE, TWO], "here").accepts(header)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "there is none"),
        (["short"], "key 1 has 5 characters"),
        ([ONE, ONE], "both are the same"),
        ([ONE, TWO, "third-key-0123456789"], "there are 3"),
        ([ONE, "with a space 0123456789"], "key 2 has characters"),
        ([ONE, "with-ümlaut-0123456789"], "key 2 has characters"),
    ],
)
def test_keys_that_are_no_good_are_named_by_place_and_never_shown(keys: list[str], says: str) -> None:
    with pytest.raises(AuthKeysUnusable, match=says) as refused:
        check_keys(keys, "the file")
    assert not [key for key in keys if key in refused.value.sentence()]


def test_which_pages_are_open() -> None:
    def allowed(path: str, caller: str, pages: OpenPages) -> bool:
        return Guard(KeyRing([ONE], "here"), pages, lambda: None).lets_in(path, {}, caller)

    usual = OpenPages(health=True, metrics="remote")
    assert [
        path
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/score", "/v2", "/swagger.json")
        if allowed(path, "", usual)
    ] == [
        "/",
        "/v2/health/live",
        "/v2/health/ready",
    ]
    here = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "")
    assert all(allowed("/metrics", caller, usual) for caller in here)
    assert not any(allowed("/metrics", caller, usual) for caller in ("10.0.0.1", "::2", "::12", "::ffff:10.0.0.1", "1270.0.0.1"))
    assert not allowed("/metrics", "127.0.0.1", OpenPages(health=True, metrics="always"))
    assert allowed("/metrics", "10.0.0.1", OpenPages(health=True, metrics="never"))
    assert not allowed("/", "127.0.0.1", OpenPages(health=False, metrics="never"))


def test_a_file_is_taken_over_when_it_changes_and_kept_out_when_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# primary\n{ONE}\n\n{TWO}\n")
    keys = KeyFile(file)
    ring = keys.ring
    keys.look()
    assert keys.ring is ring, "nothing changed"
    for wrong in ("", "short", f"{ONE}\n{ONE}\n"):
        file.write_text(wrong)
        keys.look()
        assert keys.ring.accepts(f"Bearer {ONE}"), "what is wrong changes nothing"
    file.unlink()
    keys.look()
    assert keys.ring.accepts(f"Bearer {ONE}")
    new = "third-key-0123456789"
    # As a mounted secret changes: another file takes the name's place.
    (tmp_path / "new").write_text(new)
    (tmp_path / "new").replace(file)
    keys.look()
    assert keys.ring.accepts(f"Bearer {new}")
    assert not keys.ring.accepts(f"Bearer {ONE}")


def test_a_file_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AuthKeysUnusable, match="No such file"):
        KeyFile(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(AuthKeysUnusable, match="no text"):
        KeyFile(tmp_path / "binary")
