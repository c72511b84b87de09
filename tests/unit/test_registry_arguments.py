"""The query string: what is declared is parsed, everything else is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from hedgerow.errors import HedgerowError
from registry.server import arguments
from registry.server.arguments import QueryField, parse
from registry.server.errors import InvalidArgument, RepeatedArgument, UnknownArgument

FIELDS = (
    QueryField("limit", "how many", "integer", least=1, most=1000),
    QueryField("dry_run", "nothing happens", "boolean"),
    QueryField("since", "from then on", "instant"),
    QueryField("tag", "KEY=VALUE", repeated=True),
    QueryField("state", "in this state", choices=("ready", "failed")),
)


def given(*pairs: tuple[str, str]) -> MultiDict[str, str]:
    return MultiDict(pairs)


def test_every_kind_is_parsed() -> None:
    sent = given(("limit", "7"), ("dry_run", "true"), ("since", "2026-01-31T12:00:00Z"), ("tag", "a=1"), ("tag", "b"))
    assert parse(FIELDS, sent) == {
        "limit": [7],
        "dry_run": [True],
        "since": [datetime(2026, 1, 31, 12, tzinfo=UTC)],
        "tag": ["a=1", "b"],
        "state": [],
    }


def test_an_unescaped_plus_in_a_time_is_still_an_offset() -> None:
    assert parse(FIELDS, given(("since", "2026-01-31T14:00:00 02:00")))["since"] == [datetime(2026, 1, 31, 12, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "+1"),
        ("limit", "1_0"),
        ("limit", "٣"),
        ("limit", ""),
        ("limit", "9" * 5000),
        ("dry_run", "True"),
        ("dry_run", "1"),
        ("dry_run", ""),
        ("since", "yesterday"),
        ("since", "2026-01-31T12:00:00"),
        ("since", "1700000000"),
        ("state", "Ready"),
        ("state", ""),
    ],
)
def test_wrong_values_are_refused_with_advice(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(FIELDS, given((name, value)))
    assert refused.value.fields["name"] == name
    assert refused.value.advice.startswith("Use ")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("limits", "Did you mean limit? Known here: dry_run, limit, since, state, tag."),
        ("dryrun", "Did you mean dry_run? Known here: dry_run, limit, since, state, tag."),
        ("zzz", "Known here: dry_run, limit, since, state, tag."),
    ],
)
def test_an_argument_that_nobody_declared(name: str, advice: str) -> None:
    with pytest.raises(UnknownArgument) as refused:
        parse(FIELDS, given((name, "1")))
    assert refused.value.advice == advice


def test_where_no_arguments_are_taken_that_is_said() -> None:
    with pytest.raises(UnknownArgument, match="'limit'") as refused:
        parse((), given(("limit", "1")))
    assert refused.value.advice == "This operation takes no arguments."


def test_twice_is_once_too_often() -> None:
    with pytest.raises(RepeatedArgument):
        parse(FIELDS, given(("limit", "1"), ("limit", "2")))


def test_a_handler_asks_by_name() -> None:
    with Flask("test").test_request_context("/?limit=3&tag=a"):
        arguments.take(FIELDS, given(("limit", "3"), ("tag", "a")))
        assert (arguments.integer("limit"), arguments.texts("tag"), arguments.text("state")) == (3, ["a"], None)
        assert arguments.flag("dry_run", otherwise=True) is True
        assert arguments.instant("since") is None
        with pytest.raises(KeyError):
            arguments.text("undeclared")
        with pytest.raises(TypeError, match="limit"):
            arguments.text("limit")


def test_the_errors_name_what_was_sent() -> None:
    problem: HedgerowError = UnknownArgument(name="nmae", hint="Did you mean name?")
    assert str(problem) == "There is no argument 'nmae' here"
