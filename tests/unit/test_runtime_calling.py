"""How run() is called: its parameters from bodies, Flask's request from a call, model paths."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ScriptUnusable
from runtime.scripts.calling import Calling, Refused, calling_of
from runtime.scripts.flask_calls import FlaskCalls
from runtime.scripts.frames import Call
from runtime.scripts.shims.model_paths import Model


def run(x: object, n: int = 7, *, request_headers: dict[str, str], flag: object = None) -> object:
    return x, n, request_headers, flag


_PARAMETERS = tuple(one for one in inspect.signature(run).parameters.values() if one.name != "request_headers")
SCHEMA = Calling("schema", "x", _PARAMETERS, takes_headers=True)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def test_parameters_and_headers_are_read_off_the_signature() -> None:
    calling = calling_of(run, "score.py")
    assert (calling.mode, calling.payload, calling.takes_headers) == ("string", "x", True)
    assert [parameter.name for parameter in calling.parameters] == ["x", "n", "flag"]


@pytest.mark.parametrize(
    "wrong", [lambda: None, lambda request_headers: None, lambda *x: None, lambda **x: None, eval("lambda x, /: None"), print]
)
def test_a_run_that_cannot_be_called_is_refused(wrong: Callable[..., object]) -> None:
    with pytest.raises(ScriptUnusable):
        calling_of(wrong, "score.py")


@given(st.dictionaries(st.sampled_from(["x", "n", "flag", "more", "request_headers"]), _JSON))
def test_a_json_object_gives_exactly_runs_parameters_or_is_refused(body: dict[str, object]) -> None:
    if "x" not in body:
        with pytest.raises(Refused, match=r"^A value is not provided for the 'x' parameter\.$"):
            SCHEMA.arguments(json.dumps(body).encode())
        return
    found = SCHEMA.arguments(json.dumps(body).encode())
    wanted = {"x": body["x"], "n": body.get("n", 7), "flag": body.get("flag")}
    assert json.dumps(found) == json.dumps(wanted)


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_as_a_body_is_read_or_refused(body: bytes) -> None:
    def read() -> object:
        try:
            return set(SCHEMA.arguments(body))
        except Refused as refused:
            return str(refused).partition(" ")[0]

    assert read() in ({"x", "n", "flag"}, "POST", "A")


FLASK = FlaskCalls()
_TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-_0123456789", min_size=1, max_size=12)
_LATIN = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters=[chr(code) for code in range(0x7F, 0xA0)]),
    max_size=30,
)
_TYPES = st.sampled_from(
    ["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "", 'a;b="', "text/plain"]
)


@given(
    st.builds(
        Call,
        id=st.just(1),
        body=st.binary(max_size=200),
        method=st.sampled_from(["GET", "POST", "OPTIONS"]),
        path=st.just("/score"),
        query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40),
        headers=st.dictionaries(_TOKEN, _LATIN, max_size=5).flatmap(
            lambda headers: _TYPES.map(lambda kind: {**headers, "content-type": kind, "host": "a.example:80"})
        ),
    )
)
def test_any_call_becomes_a_request_that_flask_can_read(call: Call) -> None:
    with FLASK.context(call) as context:
        request = context.request
        assert (request.method, request.path, request.content_length) == (call.method, "/score", len(call.body))
        assert request.get_data(cache=True) == call.body
        plain = {
            name: value
            for name, value in call.headers.items()
            if "_" not in name and name not in ("content-length", "transfer-encoding")
        }
        assert {name: request.headers[name] for name in plain} == plain
        assert not any("_" in name for name in call.headers if "_" in name and name in request.headers), "x_a is not x-a"
        request.args.to_dict()
        request.get_json(silent=True)


def test_forms_and_files_are_read_from_the_body() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "transfer-encoding": "chunked"}
    with FLASK.context(Call(1, b"a=1&a=2", "POST", "/score", headers=headers)) as context:
        assert context.request.form.getlist("a") == ["1", "2"]


@pytest.mark.parametrize(
    ("layout", "model_dir", "asked", "version", "found"),
    [
        (["azureml-models/iris/3/iris.pkl"], "azureml-models/iris/3", "iris", None, "azureml-models/iris/3/iris.pkl"),
        (["azureml-models/iris/3/a", "azureml-models/iris/3/b"], "azureml-models/iris/3", "iris", 3, "azureml-models/iris/3"),
        (["m/iris/2/a", "m/iris/10/b", "m/other/1/c"], "m", "iris", None, "m/iris/10/b"),
        (["m/iris/2/a", "m/iris/10/b", "m/other/1/c"], "m", "iris", 2, "m/iris/2/a"),
        (["m/weights.bin", "m/other.bin"], "m", "weights.bin", None, "m/weights.bin"),
        (["iris/weights.bin"], "iris", "iris", None, "iris/weights.bin"),
    ],
)
def test_a_models_path_is_found_as_azure_ml_lays_models_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: list[str],
    model_dir: str,
    asked: str,
    version: int | None,
    found: str,
) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / model_dir))
    assert Model.get_model_path(asked, version) == str(tmp_path / found)
    with pytest.raises(FileNotFoundError, match="Model 'missing' is not in"):
        Model.get_model_path("missing")
