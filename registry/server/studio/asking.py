"""What a person asks of a page by its address: words, a tag, a name; kept from page to page of a list."""

from __future__ import annotations

from typing import cast, get_args
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from registry.server.errors import InvalidArgument
from registry.store import fleet
from registry.store.events import Wanted
from registry.store.model_search import Label, ModelQuery
from registry.store.model_words import Word, parse_words

MODEL_FIELDS = ("q", "tag", "name", "framework")
DEVICE_FIELDS = ("name", "state", "tag", "edge_deployment")
EVENT_FIELDS = ("kind", "subject", "actor")
# More words than that narrow nothing down any more.
_MOST_WORDS = 20
# No model has this word: of a text without letters and digits, nothing is found.
_NO_WORD = Word("")


def kept(arguments: MultiDict[str, str], fields: tuple[str, ...]) -> dict[str, str]:
    """What was asked for, without what is empty."""
    return {field: arguments[field] for field in fields if arguments.get(field)}


def query_text(asked: dict[str, str]) -> str:
    """``&q=…`` to put behind the place of a page; ``""`` when nothing was asked for."""
    return f"&{urlencode(asked)}" if asked else ""


def model_query(asked: dict[str, str]) -> ModelQuery:
    """Raises InvalidName, when it is used."""
    words = tuple(parse_words(asked["q"])[:_MOST_WORDS]) or (_NO_WORD,) if "q" in asked else ()
    key, equals, value = asked.get("tag", "").partition("=")
    tags = (Label(key, value if equals else None),) if key else ()
    return ModelQuery(name=asked.get("name"), words=words, tags=tags, framework=asked.get("framework"))


def device_query(asked: dict[str, str]) -> fleet.Wanted:
    """Raises InvalidArgument for a state that there is not."""
    state = asked.get("state")
    if state is not None and state not in get_args(fleet.Presence):
        raise InvalidArgument(name="state", value=state[:80], hint=f"Use one of {', '.join(get_args(fleet.Presence))}.")
    return fleet.Wanted(
        name=asked.get("name"),
        state=cast("fleet.Presence | None", state),
        tags=(asked["tag"],) if "tag" in asked else (),
        edge_deployment=asked.get("edge_deployment"),
    )


def event_query(asked: dict[str, str]) -> Wanted:
    return Wanted(kind=asked.get("kind"), subject=asked.get("subject"), actor=asked.get("actor"))
