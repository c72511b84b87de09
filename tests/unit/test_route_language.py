"""The text of routes: read, written and refused. Sources are documented examples and routes of published manifests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.routes.condition import MAX_DEPTH, MAX_NESTING
from hedgerow.contracts.routes.reader import MAX_TEXT_LENGTH
from hedgerow.contracts.routes.route import ModuleInput, RouteInvalid, RouteRule, Upstream, format_route, parse_route
from hedgerow.contracts.routes.tree import Binary, BodyPath, Constant, Expression, Property, SystemProperty, Unary
from tests.route_builders import conditions

# Of Microsoft's documentation (module composition, tutorials) and of manifests in public repositories.
KNOWN = {
    "FROM /messages/* INTO $upstream": "FROM /messages/* INTO $upstream",
    "FROM /* INTO $upstream": "FROM /* INTO $upstream",
    "SELECT * FROM /messages/* INTO $upstream": "FROM /messages/* INTO $upstream",
    "FROM /messages/modules/* INTO $upstream": "FROM /messages/modules/* INTO $upstream",
    "FROM /messages/modules/<id>/* INTO $upstream".replace("<id>", "filtermodule"): (
        "FROM /messages/modules/filtermodule/* INTO $upstream"
    ),
    'FROM /messages/modules/tempSensor/outputs/temperatureOutput INTO BrokeredEndpoint("/modules/filtermodule/inputs/input1")': (
        'FROM /messages/modules/tempSensor/outputs/temperatureOutput INTO BrokeredEndpoint("/modules/filtermodule/inputs/input1")'
    ),
    "FROM /messages/modules/SimulatedTemperatureSensor/* INTO brokeredEndpoint('/modules/sim/inputs/in')": (
        'FROM /messages/modules/SimulatedTemperatureSensor/* INTO BrokeredEndpoint("/modules/sim/inputs/in")'
    ),
    "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO $upstream": (
        "FROM /messages/* WHERE NOT (is_defined($connectionModuleId)) INTO $upstream"
    ),
    "FROM /messages/modules/m WHERE $outputName = 'alerts' INTO $upstream": (
        "FROM /messages/modules/m WHERE $outputName = 'alerts' INTO $upstream"
    ),
    'from /messages/* where $body.machine.temperature > 100 and MessageType = "alert" into $Upstream': (
        "FROM /messages/* WHERE $body.machine.temperature > 100 AND MessageType = 'alert' INTO $upstream"
    ),
    "FROM /messages/* WHERE $connectionDeviceId = 'edge-1' INTO $upstream": (
        "FROM /messages/* WHERE $connectionDeviceId = 'edge-1' INTO $upstream"
    ),
    "FROM /*/a/*/b INTO $upstream": "FROM /*/a/*/b INTO $upstream",
    "FROM /* WHERE a = 'b*/' INTO $upstream": "FROM /* WHERE a = 'b*/' INTO $upstream",
    "FROM /twinChangeNotifications INTO $upstream": "FROM /twinChangeNotifications INTO $upstream",
    "  FROM /messages/*\n  WHERE /* only hot ones */ (temperatureAlert = 'true')\n  INTO $upstream\n": (
        "FROM /messages/* WHERE temperatureAlert = 'true' INTO $upstream"
    ),
}


@pytest.mark.parametrize("text", KNOWN)
def test_known_routes_are_read_and_written(text: str) -> None:
    rule = parse_route(text)
    assert format_route(rule) == KNOWN[text]
    assert parse_route(format_route(rule)) == rule


def test_what_a_rule_holds() -> None:
    assert parse_route("FROM /messages/* WHERE NOT ($body.a[0].b > 5) OR k = 'v' INTO $upstream") == RouteRule(
        source=("messages", "*"),
        condition=Binary(
            "or",
            Unary("not", Binary(">", BodyPath(("a", 0, "b")), Constant(5.0))),
            Binary("=", Property("k"), Constant("v")),
        ),
        sink=Upstream(),
    )
    assert parse_route('FROM /a INTO BrokeredEndpoint(" /modules/M/inputs/In 1/ ")').sink == ModuleInput("M", "In 1")
    assert parse_route("FROM /a WHERE {$x} = $x INTO $upstream").condition == Binary(
        "=", SystemProperty("x", only=True), SystemProperty("x")
    )


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        ("3 = 1 + 2 * 3", "3 = 1 + 2 * 3"),
        ("3 = (1 + 2) * 3", "3 = (1 + 2) * 3"),
        ("1 - (2 - 3) = 2", "1 - (2 - 3) = 2"),
        ("1 < 2 = true", "1 < 2 = true"),
        ("true or false and false", "true OR false AND false"),
        ("(true or false) and false", "(true OR false) AND false"),
        ("not true and false", "NOT (true) AND false"),
        ("(a ?? b) = 'c'", "(a ?? b) = 'c'"),
        ("a||b='c'", "a || b = 'c'"),
        ("a!='b'", "a != 'b'"),
        ("a<>'b'", "a != 'b'"),
        ("my-key.x = 'it\\'s \\u00e4 \\\\'", "my-key.x = 'it\\'s ä \\\\'"),
        ("as_number(a) = -0.5e-3", "as_number(a) = -0.0005"),
        ("as_number(a) = 10e1000", "as_number(a) = 1e999"),
    ],
)
def test_operators_bind_as_in_iot_edge(condition: str, written: str) -> None:
    text = format_route(parse_route(f"FROM /a WHERE {condition} INTO $upstream"))
    assert text == f"FROM /a WHERE {written} INTO $upstream"


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("", 0, "FROM is missing"),
        ("SELECT a FROM /a INTO $upstream", 7, "SELECT takes only *"),
        ("FROM INTO $upstream", 5, "the source is missing"),
        ("FROM / INTO", 11, "WHERE or INTO is missing"),
        ("FROM // INTO $upstream", 6, "a level of the path is missing"),
        ("FROM /a", 7, "WHERE or INTO is missing"),
        ("FROM /a WHERE INTO $upstream", 14, "a value is expected not INTO"),
        ("FROM /a WHERE t > 5 INTO $upstream", 16, "> cannot take text and a number"),
        ("FROM /a WHERE f(1) INTO $upstream", 14, "there is no function 'f'"),
        ("FROM /a WHERE length('a', 'b') = 1 INTO $upstream", 14, "length() cannot take text, text"),
        ("FROM /a WHERE 'abc INTO $upstream", 14, "a string without an end"),
        ("FROM /a WHERE (true INTO $upstream", 20, "a closing ) is missing"),
        ("FROM /a WHERE 0x11112222333344445 = 1 INTO $upstream", 14, "a hexadecimal number with more than 16 digits"),
        ("FROM /a INTO $downstream", 13, "there is no sink $downstream"),
        ("FROM /a INTO Function('x')", 13, "the sink is missing"),
        ("FROM /a INTO BrokeredEndpoint('/modules/m')", 30, "the endpoint is no input of a module"),
        ("FROM /a INTO BrokeredEndpoint(m)", 30, "the endpoint is no input of a module"),
        ("FROM /a INTO BrokeredEndpoint('/modules/m/inputs/i'", 51, "a closing ) is missing"),
        ("FROM /a INTO $upstream, $upstream", 22, "the route ends here, but more text follows"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, at: int, what: str) -> None:
    with pytest.raises(RouteInvalid) as refused:
        parse_route(text)
    mistake = refused.value.mistake
    assert (mistake.at, mistake.what) == (at, what)
    assert f"character {at + 1} " in str(refused.value)


def test_the_text_around_a_mistake_is_quoted() -> None:
    with pytest.raises(RouteInvalid) as refused:
        parse_route("FROM /messages/* WHERE temperature > 20\n INTO $upstream")
    sentence = refused.value.sentence()
    assert "(…ges/* WHERE temperature ►> 20  INTO $upstream)" in sentence
    assert "as_number(NAME)" in sentence


def test_a_text_too_long_is_not_read() -> None:
    with pytest.raises(RouteInvalid, match="more than 4096 characters"):
        parse_route("FROM /a WHERE " + " " * MAX_TEXT_LENGTH + "true INTO $upstream")


@pytest.mark.parametrize("opening", ["(", "not ", "- ", "abs("])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(RouteInvalid, match=f"more than {MAX_NESTING} brackets"):
        parse_route(f"FROM /a WHERE {opening * 900} INTO $upstream")


def test_long_chains_are_refused_and_shorter_ones_are_not() -> None:
    def chain(length: int) -> str:
        return f"FROM /a WHERE {' or '.join(['a=b'] * length)} INTO $upstream"

    assert parse_route(format_route(parse_route(chain(MAX_DEPTH - 2)))).condition is not None
    with pytest.raises(RouteInvalid, match=f"more than {MAX_DEPTH} operators"):
        parse_route(chain(MAX_DEPTH + 2))


def test_halves_of_a_character_make_a_whole_one_or_a_sign_for_none() -> None:
    rule = parse_route(r"FROM /a WHERE a = '\ud83d\ude00' or a = '\ud83d' INTO $upstream")
    assert "'😀'" in format_route(rule)
    format_route(rule).encode()


@given(conditions())
def test_what_is_written_is_read_as_the_same(condition: Expression) -> None:
    rule = RouteRule(source=("messages", "*"), condition=condition, sink=ModuleInput("M", "in"))
    assert parse_route(format_route(rule)) == rule


@given(st.text(max_size=60), st.integers(0, 80))
def test_any_text_is_read_or_refused(noise: str, at: int) -> None:
    known = "FROM /messages/* WHERE $body.a[0] > 5 AND lower(k) = 'v' INTO $upstream"
    for text in (noise, known[:at] + noise + known[at:]):
        match read_or_refused(text):
            case RouteInvalid() as refused:
                assert 0 <= refused.mistake.at <= len(text)
            case rule:
                assert parse_route(format_route(rule)) == rule


def read_or_refused(text: str) -> RouteRule | RouteInvalid:
    try:
        return parse_route(text)
    except RouteInvalid as refused:
        return refused
