"""Deployments of Azure IoT Edge, after the public shapes: what is read, what is told, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import EdgeDeployment, Route, TelemetryPolicy
from hedgerow.contracts.edge_finding import Finding
from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.contracts.iot_edge.errors import IotEdgeInvalid, IotEdgeSchemaUnknown, IotEdgeVariables
from hedgerow.contracts.iot_edge.names import our_name
from hedgerow.contracts.iot_edge.read import read_iot_edge
from hedgerow.contracts.names import check_name
from hedgerow.errors import HedgerowError

FOLDER = Path(__file__).parents[1] / "fixtures" / "iot_edge"


def stored(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def document(module: dict[str, Any] | None = None, **hub: Any) -> Any:
    """A base with one module ``m`` (changed by ``module``) and what ``$edgeHub`` says."""
    spec = {"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "a.b/c:1"}} | (module or {})
    agent = {"schemaVersion": "1.1", "runtime": {"type": "docker"}, "systemModules": {}, "modules": {"m": spec}}
    edge_hub = {"schemaVersion": "1.1", "routes": {}} | hub
    return {"modulesContent": {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": edge_hub}}}


def read(value: Any, **given: Any) -> EdgeDeployment:
    return read_iot_edge(value, **given)[0]


def findings(value: Any) -> list[Finding]:
    return read_iot_edge(value)[1]


def told(value: Any, level: str) -> str:
    return "\n".join(f"{one.place}: {one.message} {one.remedy}" for one in findings(value) if one.level == level)


def test_the_temperature_sensor_of_the_tutorial() -> None:
    found = read(stored("temperature_sensor.json"), name="sensors", target="*")
    assert (found.name, found.target, found.priority, found.layered) == ("sensors", "*", 0, False)
    sensor, other = found.modules["simulatedtemperaturesensor"], found.modules["filtermodule"]
    assert sensor.image == "mcr.microsoft.com/azureiotedge-simulated-temperature-sensor:1.5"
    assert (sensor.kind, sensor.display_name, sensor.startup_order) == ("docker", "SimulatedTemperatureSensor", 2)
    assert sensor.variables == {"MessageCount": "500", "Simulate": "true", "Name": "line 1"}
    assert sensor.create_options["HostConfig"] == {
        "Memory": 67108864,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
    assert sensor.create_options["Labels"] == {"hedgerow.module.version": "1.0"}
    assert (other.status, other.restart_policy, other.create_options, other.display_name) == ("stopped", "on-unhealthy", {}, None)
    assert found.routes["filterToHub"] == Route(
        route="FROM /messages/modules/filtermodule/outputs/output1 INTO $upstream", priority=0, time_to_live_s=86400
    )
    assert set(found.routes) == {"sensorToFilter", "filterToHub"}
    assert found.telemetry == TelemetryPolicy(time_to_live_s=7200)
    assert found.twins == {"simulatedtemperaturesensor": {"SendData": True, "SendInterval": 5, "limits": {"high": 21.5}}}


def test_credentials_are_told_and_never_kept() -> None:
    found, said = read_iot_edge(stored("temperature_sensor.json"))
    assert b"correct-horse" not in encode(found) + b"".join(encode(one) for one in said)
    login = next(one for one in said if "plant.azurecr.io" in one.message)
    assert (login.level, "docker login plant.azurecr.io" in login.remedy) == ("warning", True)


def test_system_modules_are_passed_over_and_their_variables_named() -> None:
    said = told(stored("temperature_sensor.json"), "note")
    assert "edgeHub is passed over" in said
    assert "RuntimeLogLevel" in said
    assert "--log-level" in said
    assert "storeLimits" in said


def test_a_layer_with_what_iot_hub_keeps_around_it() -> None:
    found, said = read_iot_edge(stored("layered.json"))
    assert (found.name, found.priority, found.layered, found.labels) == ("press-line-layer", 7, True, {"team": "press"})
    assert found.target == "tags.line = 'press' AND tags.floor IN ['1', '2']"
    assert list(found.modules) == ["vibration"]
    assert found.routes["alerts"] == Route(route="FROM /messages/* WHERE level = 'alert' INTO $upstream", priority=0)
    assert found.routes["vibrationToUpstream"].priority is None
    assert found.twins["simulatedtemperaturesensor"] == {"SendInterval": 1, "limits": {"low": 3}}
    assert (found.twins["vibration"], found.replaced_twins) == ({"rate_hz": 4000}, ["vibration"])
    assert {one.level for one in said} == {"note"}


def test_what_is_given_wins_over_what_the_document_says() -> None:
    found = read(stored("layered.json"), name="mine", target="*", priority=-1)
    assert (found.name, found.target, found.priority) == ("mine", "*", -1)


def test_a_module_of_azure_ml_in_the_first_envelope() -> None:
    found = read(stored("azure_ml.json"))
    module = found.modules["machinelearningmodule"]
    assert module.image == "amlworkspace.azurecr.io/anomaly:1"
    assert (
        module.create_options
        == stored("azure_ml.json")["moduleContent"]["$edgeAgent"]["properties.desired"]["modules"]["machinelearningmodule"][
            "settings"
        ]["createoptions"]
    )
    assert found.telemetry.time_to_live_s is None


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"content": d}, lambda d: {"moduleContent": d["modulesContent"]}])
def test_every_envelope_holds_the_same(wrap: Any) -> None:
    assert read(wrap(document())) == read(document())
    assert read_manifest(wrap(document()))[0] == read(document())


def test_templates_want_their_variables() -> None:
    template = stored("deployment.template.json")
    with pytest.raises(IotEdgeVariables, match=r"MODULES\.SampleModule, SITE"):
        read(template)
    given = {"MODULES.SampleModule": "reg.azurecr.io/sample:0.0.1-amd64", "SITE": "${SITE}"}
    module = read(template, variables=given).modules["samplemodule"]
    assert module.image == "reg.azurecr.io/sample:0.0.1-amd64"
    assert module.create_options["HostConfig"] == {"Memory": 67108864}


def test_a_dollar_in_a_variable_is_text_where_there_is_no_template() -> None:
    value = document({"env": {"PATTERN": {"value": "${x}"}}})
    assert read(value).modules["m"].variables == {"PATTERN": "${x}"}
    with pytest.raises(IotEdgeVariables, match="IMAGE"):
        read(document({"settings": {"image": "${IMAGE}"}}))


def pieces(text: str, size: int, spelling: str = "createOptions") -> dict[str, Any]:
    cut = [text[start : start + size] for start in range(0, len(text), size)]
    return {f"{spelling}{number:02d}" if number else spelling: piece for number, piece in enumerate(cut)}


@pytest.mark.parametrize("spelling", ["createOptions", "createoptions", "CreateOptions"])
def test_options_in_pieces_are_joined_in_order(spelling: str) -> None:
    options = {"HostConfig": {"Binds": [f"/data/{number}:/in/{number}" for number in range(400)]}}
    cut = pieces(json.dumps(options), 512, spelling)
    assert 10 < len(cut) <= 100
    shuffled = dict(sorted(cut.items(), reverse=True))
    assert read(document({"settings": {"image": "a.b/c:1", **shuffled}})).modules["m"].create_options == options


@given(
    options=st.dictionaries(
        st.text("abcXYZ", min_size=1), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40), max_size=20
    ),
    size=st.integers(min_value=16, max_value=512),
)
def test_any_options_survive_any_cut(options: dict[str, str], size: int) -> None:
    text = json.dumps(options)
    cut = pieces(text, max(size, len(text) // 90 + 1))
    spec = read(document({"settings": {"image": "a.b/c:1", **cut}})).modules["m"]
    assert spec.create_options == options


@pytest.mark.parametrize("written", [None, "", "{}", {}, "null", '"{}"'])
def test_no_options_in_all_their_forms(written: Any) -> None:
    assert read(document({"settings": {"image": "a.b/c:1", "createOptions": written}})).modules["m"].create_options == {}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"createOptions": "{"}, "not JSON"),
        ({"createOptions": "[1]"}, "no object"),
        ({"createOptions": 5}, "neither text nor an object"),
        ({"createOptions": "{", "createOptions02": "}"}, "createOptions01 is missing"),
        ({"createOptions01": "{}"}, "createOptions is missing"),
        ({"createOptions": "{", "createoptions": "}"}, "piece 0 is there twice"),
        ({"createOptions": "[" * 100_000}, "JSON|nested"),
        ({"createOptions": json.dumps({"a": "x"}) + " " * 300_000}, "more than"),
    ],
)
def test_broken_options_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(IotEdgeInvalid, match=problem):
        read(document({"settings": {"image": "a.b/c:1", **settings}}))


@pytest.mark.parametrize("version", ["1.0", "1.1", "1", "1.1.0"])
def test_schema_versions_that_are_read(version: str) -> None:
    value = document()
    value["modulesContent"]["$edgeAgent"]["properties.desired"]["schemaVersion"] = version
    assert list(read(value).modules) == ["m"]


@pytest.mark.parametrize("version", ["1.2", "2.0", "0.9", "", None, "one", "1.1.1.1.1", "11"])
def test_other_schema_versions_are_refused_with_412(version: str | None) -> None:
    value = document()
    value["modulesContent"]["$edgeAgent"]["properties.desired"]["schemaVersion"] = version
    with pytest.raises(IotEdgeSchemaUnknown, match="412"):
        read(value)


def test_the_hubs_newer_versions_are_read_and_its_broker_is_not() -> None:
    assert "MQTT broker" in told(document(schemaVersion="1.2", mqttBroker={"authorizations": []}), "warning")
    with pytest.raises(IotEdgeSchemaUnknown):
        read(document(schemaVersion="1.4"))


@pytest.mark.parametrize(("seconds", "kept"), [(-1, None), (7200, 7200), (0, 1), (-5, None)])
def test_how_long_messages_are_kept(seconds: int, kept: int | None) -> None:
    value = document(storeAndForwardConfiguration={"timeToLiveSecs": seconds})
    assert read(value).telemetry.time_to_live_s == kept
    assert ("drops what cannot be sent" in told(value, "warning")) is (seconds == 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"type": "process"}, "none of docker"),
        ({"status": "paused"}, "none of running, stopped"),
        ({"restartPolicy": "sometimes"}, "none of never"),
        ({"startupOrder": -1}, "from 0 to 4294967295"),
        ({"startupOrder": True}, "from 0 to"),
        ({"settings": {}}, "no image"),
        ({"settings": "x"}, "an object belongs here, not text"),
        ({"env": {"A B": {"value": 1}}}, "no name of a variable"),
        ({"env": {"A": {}}}, "no value"),
        ({"env": {"A": {"value": [1]}}}, "a value is text"),
        ({"Status": "running"}, "one to IoT Edge"),
        ({"version": 1}, "text belongs here"),
    ],
)
def test_modules_that_iot_edge_would_not_take(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(IotEdgeInvalid, match=problem) as raised:
        read(document(changes))
    assert "$.modulesContent.$edgeAgent" in str(raised.value)


def test_keys_are_found_in_any_case_and_unknown_ones_are_told() -> None:
    value = document({"RESTARTPOLICY": "never", "restartpolicyy": 1})
    del value["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["m"]["restartPolicy"]
    assert read(value).modules["m"].restart_policy == "never"
    assert "'restartpolicyy' is not known and is passed over Did you mean 'restartPolicy'?" in told(value, "warning")


@pytest.mark.parametrize(
    ("identity", "name"),
    [("TempSensor", "tempsensor"), ("a__b", "a__b"), ("_x-", "x"), ("a___B", "a-b"), ("a_-b", "a-b"), ("a--b", "a--b")],
)
def test_names_are_mapped_and_kept_for_people(identity: str, name: str) -> None:
    value = document()
    modules = value["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    modules[identity] = modules.pop("m")
    found = read(value).modules[name]
    assert found.display_name == (None if identity == name else identity)


@pytest.mark.parametrize(
    ("identities", "problem"), [(["Pump", "pump"], "so is 'Pump'"), (["a.b"], "no module id"), (["__"], "no mod")]
)
def test_names_that_cannot_be_mapped(identities: list[str], problem: str) -> None:
    value = document()
    modules = value["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    for identity in identities:
        modules[identity] = copy.deepcopy(modules["m"])
    with pytest.raises(IotEdgeInvalid, match=problem):
        read(value)


@given(st.text(max_size=200))
def test_a_mapped_name_is_one_of_ours(text: str) -> None:
    name = our_name(text)
    assert name == "" or check_name(name, "module") == name


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "an object belongs here, not a list"),
        ({}, "no modulesContent"),
        ({"content": {}}, "no modulesContent"),
        ({"content": {"deviceContent": {}}}, "configures devices"),
        ({"modulesContent": {}, "moduleContent": {}}, "both"),
        ({"modulesContent": {"$edgeAgent": {"properties.reported": {}}}}, "only properties.desired"),
        ({"modulesContent": {"$edgeAgent": {}, "$edgeHub": {"properties.desired": {"schemaVersion": "1.1"}}}}, "cannot replace"),
        ({"modulesContent": {"$edgeAgent": {"properties.desired.modules.m.env": {}}}}, "whole modules only"),
        ({"modulesContent": {"$edgeAgent": {"properties.desired": {}, "properties.desired.modules.m": {}}}}, "either|also"),
        ({"modulesContent": {"m": {"properties.desired.a": 1, "properties.desired.a.b": 2}, "$edgeAgent": {}}}, "same thing"),
    ],
)
def test_envelopes_that_make_no_sense(value: Any, problem: str) -> None:
    with pytest.raises(IotEdgeInvalid, match=problem):
        read(value)


def test_routes_of_the_first_schema_may_not_be_objects() -> None:
    routes = {"r": {"route": "FROM /* INTO $upstream"}}
    assert "from schemaVersion 1.1 on" in told(document(schemaVersion="1.0", routes=routes), "warning")
    for name in ("a.b", "a b", "$a", "x" * 129):
        with pytest.raises(IotEdgeInvalid, match="no name of a route"):
            read(document(routes={name: "FROM /* INTO $upstream"}))


def test_what_is_huge_or_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = {"x": deep}
    for value in (document() | {"deep": deep}, document() | {"wide": [0] * 200_000}, document() | {"half": "\ud800"}):
        with pytest.raises(IotEdgeInvalid):
            read(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(plain, st.sampled_from(["schemaVersion", "runtime", "modules", "systemModules", "routes", "storeAndForwardConfiguration"]))
def test_whatever_stands_there_is_read_or_refused(value: object, key: str) -> None:
    whole = document()
    part = "$edgeHub" if key in ("routes", "storeAndForwardConfiguration") else "$edgeAgent"
    whole["modulesContent"][part]["properties.desired"][key] = value
    try:
        found = read(whole)
    except HedgerowError:
        return
    assert decode(encode(found), EdgeDeployment) == found
