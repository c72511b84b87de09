"""Which workspace is meant: the order is fixed and never switches silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.sdk.connect import choose_target
from hedgerow.sdk.contexts import Context, ContextsFile, load_contexts, save_contexts

CURRENT = Path("/somewhere")
ALL = {"HEDGEROW_URL": "http://url:1", "HEDGEROW_TOKEN": "t", "HEDGEROW_WORKSPACE": "/folder"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    environment = {"HOME": str(tmp_path)}
    contexts = [Context(name="plant", where="https://plant:8080", token="secret"), Context(name="lab", where="/lab")]
    save_contexts(ContextsFile(in_use="plant", contexts=contexts), environment)
    return environment


def test_an_argument_comes_before_everything(home: dict[str, str]) -> None:
    assert choose_target("/mine", None, home | ALL, CURRENT).folder == Path("/mine")
    assert choose_target("http://other", None, home | ALL, CURRENT).url == "http://other"


def test_then_the_url_with_its_token(home: dict[str, str]) -> None:
    target = choose_target(None, None, home | ALL, CURRENT)
    assert (target.url, target.token, target.folder, target.chosen_by) == ("http://url:1", "t", None, "HEDGEROW_URL")


def test_then_the_folder_then_the_context_then_the_default(home: dict[str, str]) -> None:
    folder = {"HEDGEROW_WORKSPACE": "/folder"}
    assert choose_target(None, None, home | folder, CURRENT).folder == Path("/folder")
    context = choose_target(None, None, home, CURRENT)
    assert (context.url, context.token) == ("https://plant:8080", "secret")
    assert choose_target(None, None, {}, CURRENT).folder == CURRENT / "hedgerow-workspace"


def test_the_token_of_a_url_is_never_given_to_a_folder() -> None:
    target = choose_target(None, None, {"HEDGEROW_WORKSPACE": "/folder", "HEDGEROW_TOKEN": "for the url"}, CURRENT)
    assert target.token is None


def test_without_a_home_there_are_no_contexts_and_nothing_fails() -> None:
    assert load_contexts({}) == ContextsFile()
    assert load_contexts({"HOME": "/dev/null"}) == ContextsFile()
    with pytest.raises(FileNotFoundError, match="no home folder"):
        save_contexts(ContextsFile(), {})


def test_contexts_are_for_their_owner_only(home: dict[str, str]) -> None:
    path = Path(home["HOME"], ".config", "hedgerow", "contexts.json")
    assert path.stat().st_mode & 0o777 == 0o600
