"""Manifests in every format that people write: the same deployment comes out, or a sentence that names the place."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.edge import EdgeDeployment, Probe, Route
from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.errors import HedgerowError, InvalidDocument
from hedgerow.sdk.edge_files import ManifestUnreadable, parse, read_manifest_text
from registry.safe_yaml import read_yaml
from registry.yaml_values import plain_value

TOML = """
target = "tags.site = 'north'"
priority = 3

[modules.scorer]
image = "churn:1"
port = 5001
probe = { kind = "http", period_s = 2.5 }

[modules.sensor]
command = ["python3", "/opt/sensor.py"]
variables = { RATE_HZ = "10" }

[routes]
all = "FROM /messages/* INTO $upstream"
alerts = { route = "FROM /messages/* WHERE level = 'alert' INTO $upstream", priority = 0 }

[telemetry]
time_to_live_s = 7200

[telemetry.streams.vibration]
overflow = "downsample"

[twins.sensor]
rate = 10
limits = { high = 21.5, armed = true }
"""
YAML = """
target: tags.site = 'north'
priority: 3
modules:
  scorer:
    image: churn:1
    port: 5001
    probe: {kind: http, period_s: 2.5}
  sensor:
    command: [python3, /opt/sensor.py]
    variables: {RATE_HZ: "10"}
routes:
  all: FROM /messages/* INTO $upstream
  alerts: {route: "FROM /messages/* WHERE level = 'alert' INTO $upstream", priority: 0}
telemetry:
  time_to_live_s: 7200
  streams: {vibration: {overflow: downsample}}
twins:
  sensor: {rate: 10, limits: {high: 21.5, armed: true}}
"""
JSON = """
{"target": "tags.site = 'north'", "priority": 3,
 "modules": {"scorer": {"image": "churn:1", "port": 5001, "probe": {"kind": "http", "period_s": 2.5}},
             "sensor": {"command": ["python3", "/opt/sensor.py"], "variables": {"RATE_HZ": "10"}}},
 "routes": {"all": "FROM /messages/* INTO $upstream",
            "alerts": {"route": "FROM /messages/* WHERE level = 'alert' INTO $upstream", "priority": 0}},
 "telemetry": {"time_to_live_s": 7200, "streams": {"vibration": {"overflow": "downsample"}}},
 "twins": {"sensor": {"rate": 10, "limits": {"high": 21.5, "armed": true}}}}
"""


def read(text: str, path: str = "m.toml") -> EdgeDeployment:
    return read_manifest_text(text, PurePath(path), "line")[0]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (TOML, "m.toml"),
        (YAML, "m.yaml"),
        (YAML, "m.YML"),
        (JSON, "m.json"),
        (TOML, "m"),
        (YAML, "m"),
        (JSON, "m.txt"),
        (JSON, "m.yaml"),
    ],
)
def test_every_format_says_the_same(text: str, path: str) -> None:
    found = read(text, path)
    assert found == read(TOML)
    assert (found.name, found.target, found.priority) == ("line", "tags.site = 'north'", 3)
    assert found.modules["scorer"].probe == Probe(kind="http", period_s=2.5)
    assert found.routes["all"] == Route(route="FROM /messages/* INTO $upstream")
    assert found.twins == {"sensor": {"rate": 10, "limits": {"high": 21.5, "armed": True}}}


def test_what_the_command_says_wins() -> None:
    found, said = read_manifest({"name": "other", "target": "*", "priority": 1, "modules": {}}, "line", "", 5)
    assert (found.name, found.target, found.priority) == ("line", "", 5)
    assert "'line', not as 'other'" in said[0].message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[modules.m]\ncommand = ['x']\nrestart = 'always'",
            r"\$\.modules\.m\.restart there is no key 'restart'\. .*'restart_policy'",
        ),
        ("[modules.m.probe]\nkindd = 'http'", "kindd.* Did you mean 'kind'"),
        ("[modules.m]\ncommand = 'x'", r"Expected `array`, got `str` - at `\$\.modules\.m\.command`, found 'x'"),
        ("[modules.m]\ncommand = ['x']\n[routes.r]\nroute = 'x'\npriority = 99", r"at `\$\.routes\.r\.priority`"),
        ("[modules.M]\ncommand = ['x']", "a name"),
        ("[routes.r]\nrout = 'x'", "Did you mean 'route'"),
        ("[telemetry.streams.s]\nquota = 1", "Did you mean 'quota_bytes'"),
        ("modules = 5", "Expected `object`, got `int`"),
        ("[twins.m]\nx = nan", "no number that JSON"),
        ("[twins.m]\nx = 99999999999999999999999", "no number that JSON"),
    ],
)
def test_what_does_not_fit_is_named(text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument, match=problem):
        read(text)


def test_an_unknown_key_at_the_top_is_told_only() -> None:
    found, said = read_manifest_text("targget = '*'\n[modules]", PurePath("m.toml"), "line")
    assert (found.target, [one.remedy for one in said]) == ("", ["Did you mean 'target'?"])


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("a = ", "m.toml", "as TOML"),
        ("{", "m.json", "as JSON"),
        ('{"a": 1, "a": 2}', "m.json", "'a' is given twice"),
        ('{"a": NaN}', "m.json", "NaN is no JSON"),
        ("[" * 100_000, "m.json", "nested too deeply"),
        ("a: &x 1\nb: *x", "m.yaml", "anchors"),
        ("a: !!python/object:os.system x", "m.yaml", "the tag"),
        ("a: 1\na: 2", "m.yaml", "given twice"),
        ("a:\n\t- 1", "m.yaml", "tab"),
        ("a: [" * 30, "m.yaml", "deep|expected"),
    ],
)
def test_files_that_cannot_be_read(text: str, path: str, problem: str) -> None:
    with pytest.raises(ManifestUnreadable, match=problem):
        parse(text, PurePath(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("-3", -3), ("2.5", 2.5), ("1e3", 1000.0), ("true", True), ("False", False), ("~", None), ("", None),
        ('"10"', "10"), ("'true'", "true"), ("yes", "yes"), ("012", "012"), ("00.5", "00.5"), ("1.2.3", "1.2.3"),
        ("0x1f", "0x1f"), ("2026-11-22", "2026-11-22"), ("1_000", "1_000"), (".inf", ".inf"), ("0", 0), ("-0.5", -0.5),
    ],
)  # fmt: skip
def test_plain_values_of_yaml(text: str, value: object) -> None:
    found = plain_value(read_yaml(f"x: {text}"))
    assert found == {"x": value}
    assert isinstance(found, dict)
    assert type(found["x"]) is type(value)


@given(st.text(max_size=200), st.sampled_from(["m.toml", "m.yaml", "m.json", "m"]))
def test_any_text_is_read_or_refused(text: str, path: str) -> None:
    try:
        read(text, path)
    except HedgerowError:
        return
