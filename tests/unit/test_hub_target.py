"""Target conditions: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.hub.errors import TargetInvalid
from registry.hub.target import Among, Both, Condition, Defined, Either, Everything, Not, Nothing, Ordered, matches, parse_target

REPORTED = {"agent_version": "0.2.0", "modules.pump.state": "running", "modules.pump.restart_count": "12"}
TAGS = {"site": "north", "floor": "3", "env.stage": "prod", "hot": "true"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("*", True),
        ("", False),
        ("   ", False),
        ("deviceId='pump-1'", True),
        ("DEVICEID = 'pump-2'", False),
        ("deviceId != 'pump-2'", True),
        ("tags.site='north'", True),
        ('tags.site="north"', True),
        ("tags.site<>'north'", False),
        ("tags.env.stage = 'prod'", True),
        ("tags.floor = 3", True),
        ("tags.floor = 3.0", False),
        ("tags.hot = TRUE", True),
        ("tags.absent = 'x'", False),
        ("tags.absent != 'x'", False),
        ("NOT tags.absent = 'x'", True),
        ("tags.site IN ['south', 'north']", True),
        ("deviceId in ['a','b']", False),
        ("tags.site='south' OR tags.floor=3 AND tags.hot=true", True),
        ("(tags.site='south' OR tags.floor=3) AND tags.hot=false", False),
        ("not (tags.site='south') and not tags.floor=4", True),
        ("tags.site='it''s'", False),
        ("tags.floor > 2", True),
        ("tags.floor >= 3.0", True),
        ("tags.floor < 3", False),
        ("tags.floor <= -1", False),
        ("tags.site > 1", False),
        ("tags.absent < 1", False),
        ("NOT tags.absent < 1", True),
        ("deviceId > 1", False),
        ("IS_DEFINED(tags.site)", True),
        ("is_defined(tags.absent)", False),
        ("NOT IS_DEFINED(properties.reported.modules.pump.state)", False),
        ("properties.reported.agent_version = '0.2.0'", True),
        ("Properties.Reported.modules.pump.state IN ['running', 'starting']", True),
        ("properties.reported.modules.pump.restart_count >= 10", True),
        ("properties.reported.modules.absent.state = 'running'", False),
        ("tags.agent_version = '0.2.0'", False),
    ],
)
def test_meaning(text: str, meant: bool) -> None:
    assert matches(parse_target(text), "pump-1", TAGS, REPORTED) is meant


def test_doubled_quotes_stand_for_one() -> None:
    assert matches(parse_target("tags.note='it''s'"), "x", {"note": "it's"})


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("tags.site", 10, "=, !=, <>, <, <=, >, >= or IN"),
        ("tags.floor < 'x'", 14, "a number"),
        ("tags.floor < ", 13, "a number"),
        ("IS_DEFINED(x)", 12, "deviceId, tags.KEY"),
        ("IS_DEFINED tags.x", 12, "( was expected"),
        ("tags.site =", 12, "value"),
        ("site = 'x'", 1, "deviceId, tags.KEY"),
        ("properties.desired.x = 1", 1, "deviceId, tags.KEY"),
        ("properties.reported = 1", 1, "deviceId, tags.KEY"),
        ("tags.a='x' tags.b='y'", 12, "AND, OR or the end"),
        ("(tags.a='x'", 12, ") was expected"),
        ("tags.a='x' AND", 15, "deviceId, tags.KEY"),
        ("* AND tags.a='x'", 3, "AND, OR or the end"),
        ("tags.a='x", 8, "cannot be read"),
        ("tags.a='x' ;", 12, "cannot be read"),
        ("tags.a = x", 10, "value"),
        ("tags.a IN 'x'", 11, "["),
        ("tags.a IN []", 12, "value"),
        ("tags. = 'x'", 5, "cannot be read"),
        ("NOT " * 60 + "tags.a='x'", 205, "nested"),
    ],
)
def test_a_wrong_condition_names_the_place(text: str, position: int, problem: str) -> None:
    with pytest.raises(TargetInvalid) as raised:
        parse_target(text)
    assert raised.value.fields["position"] == position
    assert problem in str(raised.value.fields["problem"])


def test_a_very_long_condition_is_refused() -> None:
    with pytest.raises(TargetInvalid, match="longer than"):
        parse_target("tags.a='x' OR " * 1000 + "tags.a='x'")


VALUES = st.sampled_from(["north", "south", "it's", 'a "b"', "", "3", "true"])
LEAVES: st.SearchStrategy[Condition] = st.builds(
    Among,
    st.sampled_from([None, "site", "floor", "a.b"]),
    st.frozensets(VALUES, min_size=1, max_size=1),
    st.booleans(),
) | st.builds(Among, st.just("site"), st.frozensets(VALUES, min_size=1, max_size=3), st.just(True))
LEAVES |= st.builds(Ordered, st.just("floor"), st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from([3.0, -1.0, 2.5]))
LEAVES |= st.builds(Defined, st.just("a.b"))
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.builds(Not, inner) | st.builds(Both, inner, inner) | st.builds(Either, inner, inner),
    max_leaves=12,
)


def written(condition: Condition) -> str:
    match condition:
        case Everything():
            return "*"
        case Nothing():
            return ""
        case Not(inner):
            return f"NOT ({written(inner)})"
        case Both(left, right):
            return f"({written(left)}) and ({written(right)})"
        case Either(left, right):
            return f"({written(left)}) OR ({written(right)})"
        case _:
            return written_leaf(condition)


def written_leaf(condition: Among | Ordered | Defined) -> str:
    field = "deviceId" if condition.tag is None else f"tags.{condition.tag}"
    match condition:
        case Ordered():
            return f"{field} {condition.sign} {condition.number:g}"
        case Defined():
            return f"is_defined({field})"
        case Among():
            quoted = ["'" + value.replace("'", "''") + "'" for value in sorted(condition.values)]
            if len(quoted) > 1:
                return f"{field} IN [{', '.join(quoted)}]"
            return f"{field} {'=' if condition.equal else '!='} {quoted[0]}"


@given(CONDITIONS, st.dictionaries(st.sampled_from(["site", "floor", "a.b"]), VALUES), VALUES)
def test_what_was_written_is_what_is_read(condition: Condition, tags: dict[str, str], device: str) -> None:
    read = parse_target(written(condition))
    assert read == condition
    assert matches(read, device, tags) == matches(condition, device, tags)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_target(text)
    except TargetInvalid as problem:
        position = problem.fields["position"]
        assert isinstance(position, int)
        assert 1 <= position <= len(text) + 1


@given(st.lists(LEAVES, min_size=2, max_size=5))
def test_and_binds_closer_than_or(leaves: list[Condition]) -> None:
    head, *rest = leaves
    text = written(head) + " OR " + " AND ".join(written(leaf) for leaf in rest)
    tags = {"site": "north", "floor": "3"}
    expected = matches(head, "x", tags) or all(matches(leaf, "x", tags) for leaf in rest)
    assert matches(parse_target(text), "x", tags) == expected
