"""Conditions of routes: what IoT Edge's own compiler makes of them, value by value; and nothing makes the evaluator raise."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.telemetry.routing.evaluator import evaluate, matches
from edge_agent.telemetry.routing.values import MISSING, UNDEFINED, MessageView, Value
from hedgerow.contracts.routes.route import RouteInvalid, parse_route
from tests.route_builders import expressions

BODY = {
    "weather": {
        "temperature": 50,
        "frost": -50.4,
        "conflict": 50,
        "nothing": None,
        "when": "2017-03-09T00:00:00.000Z",
        "before": [20, 30, 40],
        "on": True,
        "off": False,
        "place": {"street": "One Long Way", "city": "Redmond", "state": "WA"},
        "history": [{"month": "Feb", "t": 40}, {"month": "Jan", "t": 30}],
    }
}
MESSAGE = MessageView(
    json.dumps(BODY),
    {"key1": "value1", "key2": "3", "key3": "VALUE3", "$sys4": "value4", "City": "Redmond", "$body.weather.conflict": "100"},
    {"sys1": "sysvalue1", "sys2": "4", "sys3": "SYSVALUE3", "sys4": "sysvalue4"},
)


def value_of(condition: str, message: MessageView = MESSAGE) -> Value:
    rule = parse_route(f"FROM /* WHERE {condition} INTO $upstream")
    assert rule.condition is not None
    return evaluate(rule.condition, message)


# The table of edge-hub's ConditionCompilerTest and BodyQueryTest (TestSuccess), rows as facts: condition, truth.
TRUE = """
3 = 3 | '3' = "3" | true = true | false = false | key2 = '3' | KEY2 = '3' | as_number(key2) = 3 | $sys2 = '4'
as_number($sys2) = 4 | 3 != 4 | 'a' <> 'b' | true <> false | key2 != '4' | as_number(key2) <> 4 | true | not false
not (true and false) | true AND not false | true or false | false Or true | undefined or true | true or undefined
true or none = 'true' | none = 'true' or true | (key1 ?? 'hello') = 'value1' | (none ?? 'hello') = 'hello'
(none ?? none ?? 'hello') = 'hello' | (as_number(key1) ?? 12.34) = 12.34 | (3 % 0 ?? 12.34) = 12.34
(null and null) = null | (null and false) = null | null or true | (null or null) = null | not null | 3 + 4 = 7
3 - 4 = -1 | 3 -4 = -1 | 3 * 4 = 12 | 3 / 4 = 0.75 | 4 % 3 = 1 | -1 < 0 | - (3 + 4) = -7 | 3 + as_number(key2) = 6
2 + 3 * 4 = 14 | (2 + 3) * 4 = 20 | 10 - 2 - 3 = 5 | 16 / 4 / 2 = 2 | 0xFF = 255 | 1e3 = 1000 | .5 = 0.5 | 4 < 7
7 <= 7 | 8 > 7 | 7 >= 7 | 3 + 4 <= 7 | 'a' < 'b' | 'b' >= 'a' | key1 = 'value1' and key2 = '3'
key1 = 'no' or key1 = 'value1' | $sys4 = 'value4' | {$sys4} = 'sysvalue4' | { $sys1 } = 'sysvalue1'
AS_NUMBER('10e10') = 10e10 | as_number('10e1000') = 1/0 | as_number('10000000000000000000000000') = 1e25
as_number(' 1,000.5 ') = 1000.5 | as_number('(5)') = -5 | as_number('5-') = -5 | is_bool(true) | is_defined(key1)
is_defined(null) | is_defined(10e1000) | is_null(null) | is_number(12.34) | is_string(key1) | is_string('a' || 'b')
is_number(as_number(key2)) | concat('a', key1, 'd') = 'avalue1d' | 'a' || 'b' || 'c' = 'abc' | length('HELLO') = 5
LENGTH('') = 0 | lower(key3) = 'value3' | upper(key1) = 'VALUE1' | substring('abc', 1) = 'bc'
substring('abc', 3) = '' | substring('abc', 1, 1) = 'b' | substring('hello', 4, 0) = '' | index_of('abcdef', 'cd') = 2
index_of('abc', 'xz') = -1 | starts_with(key1, 'val') | ends_with('abc', 'bc') | contains('abc', 'b') | abs(-12) = 12
exp(0) = 1 | exp(4000) = 3/0 | power(2, 3) = 8 | power(10, 4000) = 3/0 | square(3) = 9 | ceiling(-2.1) = -2
ceiling(2.1) = 3 | floor(-2.1) = -3 | sign(-2.1) = -1 | sign(3 / 0) = 1 | sign(-3 / 0) = -1 | sqrt(4) = 2
is_defined(abs(3 / 0)) | is_defined(sqrt(3 / 0)) | 50 >= $body.weather.temperature
$BODY.weather.temperature = 40 + 10 | $body.weather.temperature <> 500 | $body.weather.temperature <> '100'
$body.weather.before[1] * $body.weather.before[2] = 1200
$body.weather.history[0].t - 10 = $body.weather.history[1].t | $body.weather.history[0].month = 'Feb'
$body.weather.place.city = City | $body.weather.on | $body.weather.on = true | NOT $body.weather.off
$body.weather.off OR NOT($body.weather.off) | $body.weather.other <> '100' | $body.weather.conflict = '100'
{$body.weather.conflict} = 50 | $body.weather.nothing = null | $body.missing = null
$body.weather.temperature != null | NOT ($body.missing != null) | abs($body.weather.frost) = 50.4
concat($body.weather.place.city, ', ', $body.weather.place.state) = 'Redmond, WA'
length($body.weather.place.state) = 2 | is_null($body.weather.nothing) | is_string($body.weather.place.street)
is_defined($body.weather.nothing)
substring($body.weather.place.street, length($body.weather.place.street) - 3) = 'Way'
as_number($body.weather.frost) < 0 | ($body.missing ?? 5) = 5
"""
FALSE = """
3 = 4 | 'a' = 'b' | true = false | not true | false and true | false or false | false and undefined
undefined and false | false and none = 'true' | none = 'true' and false | 7 < 7 | 3 + 4 < 7 | 'b' < 'a'
key1 = 'value2' | is_bool(12.34) | is_bool(none) | is_defined(undefined) | is_defined(key4)
is_defined(3 * as_number(key4)) | is_defined(as_number('apple')) | is_defined(undefined and true)
is_defined(none = '4') | is_defined($none) | is_defined(3 % 0) | is_null(none) | is_null(3 / 0) | is_number(3 / 0)
is_number('x') | is_number(as_number(key1)) | is_string(none) | is_string(12.34) | is_defined(concat('a', none))
is_defined(sqrt(3 % 0)) | starts_with('abc', 'xz') | ends_with('abc', 'xz') | contains('abc', key1)
10 >= $body.weather.temperature | $body.weather.temperature = '50' | $body.weather.temperature != 50
$body.weather.place.city != City | is_defined($body.missing)
"""
UNKNOWN = """
undefined | undefined or false | false or undefined | undefined or undefined | true and undefined
undefined < undefined | not (none = 'true') | none != '4' | as_number(none) = 3 | as_number(key1) = 3
(none ?? none) = 'value' | 3 < as_number(none) | 'a' < none | substring('abc', 4) = 'c' | substring('abc', -1) = ''
substring('abc', 1, -2) = '' | substring(none, 1) = 'a' | sqrt(-4) = -2 | index_of(none, '1') = 0
starts_with(none, '1') | $body | $City <> $body.weather.other | $body.weather <> null | $body.weather.history = 1
"""
NO_TRUTH = "3 | 'a string' | null | null and null | $body.weather.history[0].t.deeper"


def rows(table: str) -> list[str]:
    return [row.strip() for line in table.strip().splitlines() for row in line.split(" | ") if row.strip()]


def test_rows_are_split_at_bars_only() -> None:
    assert rows("a | b || c\nd") == ["a", "b || c", "d"]


@pytest.mark.parametrize("condition", rows(TRUE))
def test_true(condition: str) -> None:
    assert value_of(condition) is True


@pytest.mark.parametrize("condition", rows(FALSE))
def test_false(condition: str) -> None:
    assert value_of(condition) is False


@pytest.mark.parametrize("condition", rows(UNKNOWN))
def test_undefined(condition: str) -> None:
    assert value_of(condition) is UNDEFINED


@pytest.mark.parametrize("condition", rows(NO_TRUTH))
def test_what_is_no_truth_routes_nothing(condition: str) -> None:
    rule = parse_route(f"FROM /* WHERE {condition} INTO $upstream")
    assert not matches(rule.condition, MESSAGE)


# TestCompilationFailure: IoT Edge refuses these when it reads the deployment.
REFUSED = """
is_defined(3 + none) | is_defined(true + 3) | is_defined(3 + undefined) | is_defined('a' + 'b') | is_defined(3 - true)
is_defined('a' * 'b') | is_defined(3 = none) | is_defined(3 >= none) | 3 = undefined | key1 ?? 'hello' = 'value1'
(key1 ?? 12.34) | (12.34 ?? key1) | (key1 ?? null) | (key1 ?? true) | (null && key1) | concat('a') = 'a'
concat('a', null) = 'a' | 'a' || true = 'a' | length(12.34) = 1 | lower(null) = 'x' | substring('hello') = 'hello'
substring('hello', 'a') = 'h' | index_of('hello') | index_of('hello', 1) | starts_with(undefined, 'hello')
contains('hello', true) | is_defined(abs(key1)) | is_defined(abs(3, 4)) | is_defined(power(2, true))
is_defined(sqrt(null)) | a == true | none = " | none and true | undefined and 'hello' | none or true | - (key1)
is_defined(not key1) | nonsense(1) | is_null() | is_null(1, 2) | $body.properties[] | $body.properties[1:2] | $body;@
$body. | $body.a..b | (true | true) | 3 $ 4 | key1[0] = 'x' | $sys1[0] = 'x' | {sys1} = 'x' | not undefined | 3+4 < 7
true true | and true | from = 'x' | 'a\\b' = 'x'
"""


@pytest.mark.parametrize("condition", rows(REFUSED))
def test_refused_with_the_place(condition: str) -> None:
    text = f"FROM /* WHERE {condition} INTO $upstream"
    with pytest.raises(RouteInvalid) as refused:
        parse_route(text)
    assert 14 <= refused.value.mistake.at <= len(text)
    assert "►" in str(refused.value)
    assert refused.value.advice


@pytest.mark.parametrize("chain", ["or", "and", "+"])
def test_long_chains_are_worked_out(chain: str) -> None:
    condition = {
        "or": " or ".join(["a = 'b'"] * 199),
        "and": " and ".join(["true"] * 199),
        "+": " + ".join(["1"] * 198) + " = 198",
    }
    assert value_of(condition[chain]) is (UNDEFINED if chain == "or" else True)


def test_a_body_that_is_no_json_is_undefined() -> None:
    message = MessageView("20 degrees", {}, {})
    assert value_of("$body.temperature = 20", message) is UNDEFINED
    assert value_of("is_defined($body.temperature)", message) is False


def test_a_body_may_be_a_list_or_a_number_too_large_for_a_double() -> None:
    message = MessageView('[{"a": %s}]' % ("9" * 400), {}, {})
    assert value_of("$body[0].a = 1e999", message) is True


def test_a_twin_change_is_seen() -> None:
    message = MessageView('{"properties": {"desired": {"rate": {"hz": 5}, "off": null}}}', {}, {})
    assert value_of("twin_change_includes(properties.desired.rate)", message) is True
    assert value_of("twin_change_includes(properties.desired.rate.hz)", message) is True
    assert value_of("twin_change_includes(properties.desired.off)", message) is False
    assert value_of("twin_change_includes(properties.desired.other)", message) is False


@given(
    expressions(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c-d"]), inner, max_size=3),
    ),
    st.dictionaries(st.sampled_from(["a", "b-c", "$a", "$body.a", "x.y"]), st.text(max_size=6)),
)
def test_evaluating_never_raises(condition: Any, body: Any, properties: dict[str, str]) -> None:
    found = evaluate(condition, MessageView(json.dumps(body), properties, {"contentType": "x"}))
    assert found is None or found in (UNDEFINED, MISSING) or isinstance(found, bool | int | float | str)
    assert found == found, "a NaN would be neither equal nor undefined"


@pytest.mark.parametrize(
    "condition", [f"concat({', '.join(['$body.a'] * 400)}) = 'x'", f"{' || '.join(['$body.a'] * 150)} = 'x'"]
)
def test_a_long_text_named_often_does_not_take_the_memory(condition: str) -> None:
    """Of what a module sends in one message, a condition would make a hundred megabytes."""
    message = MessageView(json.dumps({"a": "x" * 250_000}), {}, {})
    tracemalloc.start()
    try:
        assert value_of(condition, message) is UNDEFINED
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
