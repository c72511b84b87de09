"""The packages that scripts import from Azure ML, as we stand in for them; facts are those of inference-schema 1.8."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.scripts.shims.finder import MODULES, InstalledModel, ShimFinder, install_shims
from runtime.scripts.shims.schema import converted, get_input_schema, get_supported_versions, input_schema, is_schema_decorated
from runtime.scripts.shims.schema_numpy import NumpyParameterType
from runtime.scripts.shims.schema_pandas import PandasParameterType
from runtime.scripts.shims.schema_spark import SparkParameterType, example_of, read, swagger_of
from runtime.scripts.shims.schema_types import AbstractParameterType, StandardPythonParameterType

Std = StandardPythonParameterType

# Plain values ---------------------------------------------------------------------------------------------------------

MOMENT = dt.datetime(2020, 1, 2, 3, 4, 5, 600_000)  # noqa: DTZ001 - samples of users have no zone


@pytest.mark.parametrize(
    ("sample", "schema"),
    [
        (3, {"type": "integer", "format": "int64", "example": 3}),
        (True, {"type": "boolean", "example": True}),
        (0.5, {"type": "number", "format": "double", "example": 0.5}),
        ("a", {"type": "string", "example": "a"}),
        (b"hi", {"type": "string", "format": "byte", "example": "aGk="}),
        (MOMENT.date(), {"type": "string", "format": "date", "example": "2020-01-02"}),
        (MOMENT, {"type": "string", "format": "date-time", "example": "2020-01-02 03:04:05.600000 +0000"}),
        (MOMENT.time(), {"type": "string", "format": "time", "example": "03:04:05.600000 +0000"}),
        (range(2), {"type": "array", "items": {"type": "integer", "format": "int64"}, "example": [0, 1]}),
        ([], {"type": "array", "items": {"type": "object"}, "example": []}),
    ],
)
def test_the_schema_of_a_plain_sample(sample: object, schema: dict[str, object]) -> None:
    assert Std(sample).input_to_swagger() == schema


def test_the_schema_of_a_dictionary_names_all_its_keys_and_takes_types_inside() -> None:
    schema = Std({"n": 1, "array": NumpyParameterType(np.array([1], "i4"))}).input_to_swagger()
    assert schema["required"] == ["n", "array"]
    assert schema["properties"]["array"] == {
        "type": "array",
        "items": {"type": "integer", "format": "int32"},
        "format": "numpy.ndarray",
    }
    assert schema["example"] == {"n": 1, "array": [1]}


@pytest.mark.parametrize(
    ("sample", "given_value", "wanted"),
    [
        (1.0, 2, 2),
        (MOMENT.date(), "2021-02-03", dt.date(2021, 2, 3)),
        (MOMENT, "2021-02-03 04:05:06.000000 +0000", dt.datetime(2021, 2, 3, 4, 5, 6, tzinfo=dt.UTC)),
        (b"", "aGk=", b"hi"),
        (bytearray(), "aGk=", bytearray(b"hi")),
        ([], [1, "x"], [1, "x"]),
        ([Std(b"")], ["aGk="], [b"hi"]),
    ],
)
def test_json_becomes_the_samples_type(sample: object, given_value: object, wanted: object) -> None:
    assert converted(given_value, Std(sample)) == wanted


@pytest.mark.parametrize(("sample", "wrong"), [(1, "1"), (1, 1.5), ("a", 1), ({}, []), ([], {}), (1.0, "1"), (MOMENT, 5)])
def test_what_does_not_fit_the_sample_is_refused(sample: object, wrong: object) -> None:
    with pytest.raises(ValueError, match="Invalid input data type to parse"):
        converted(wrong, Std(sample))


@pytest.mark.parametrize(
    ("sample", "versions"),
    [
        ([1, 2], ["2.0", "3.0", "3.1"]),
        ([1, "2"], ["3.0", "3.1"]),
        ({"a": [[1], [2, "x"]]}, ["3.0", "3.1"]),
        ({"a": 1, "b": "x"}, ["2.0", "3.0", "3.1"]),
    ],
)
def test_a_list_of_mixed_types_is_beyond_swagger_2(sample: object, versions: list[str]) -> None:
    assert Std(sample).supported_versions() == versions


# Arrays and frames ----------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=3), min_size=1, max_size=20))
def test_rows_become_an_array_of_the_samples_type(rows: list[list[float]]) -> None:
    array = NumpyParameterType(np.zeros((1, 3), "f4")).deserialize_input(rows)
    assert (array.dtype, array.shape) == (np.dtype("f4"), (len(rows), 3))
    assert array.tolist() == rows


@pytest.mark.parametrize("wrong", [[[1, 2]], [1, 2, 3], [[[1, 2, 3]]], {"a": 1}, "text", 5, [["a", "b", "c"]]])
def test_other_shapes_and_types_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"Invalid input|could not convert|inhomogeneous"):
        NumpyParameterType(np.zeros((1, 3), "f4")).deserialize_input(wrong)


def test_shapes_and_types_can_be_left_to_the_caller() -> None:
    kind = NumpyParameterType(np.zeros((1, 3), "f4"), enforce_column_type=False, enforce_shape=False)
    assert kind.deserialize_input(["a"]).dtype.kind == "U"


def test_an_array_of_records_takes_objects_and_lists() -> None:
    sample = np.array([("x", 1, "2020-01-01", 5)], dtype=[("name", "U4"), ("n", "i4"), ("day", "M8[D]"), ("for", "m8[h]")])
    kind = NumpyParameterType(sample)
    named = kind.deserialize_input([{"n": 2, "name": "ab", "day": "2021-02-03", "for": "3 days"}])
    listed = kind.deserialize_input([["ab", 2, "2021-02-03", "3 days"]])
    assert named.tolist() == listed.tolist() == [("ab", 2, dt.date(2021, 2, 3), dt.timedelta(days=3))]
    schema = kind.input_to_swagger()
    assert schema["items"]["properties"]["day"] == {"type": "string", "format": "date-time"}
    assert schema["example"][0]["day"] == "2020-01-01 00:00:00,000000"
    with pytest.raises(ValueError, match=r"Invalid numpy\.timedelta64 value"):
        kind.deserialize_input([["ab", 2, "2021-02-03", "3 fortnights"]])


def test_an_arrays_schema_has_a_level_for_each_dimension() -> None:
    schema = NumpyParameterType(np.array([[[1.5]]])).input_to_swagger()
    assert schema == {
        "type": "array",
        "items": {"type": "array", "items": {"type": "array", "items": {"type": "number", "format": "double"}}},
        "example": [[[1.5]]],
        "format": "numpy.ndarray",
    }


FRAME = pd.DataFrame({"n": [1], "name": ["x"], "at": [MOMENT], "took": [dt.timedelta(seconds=1)]})


@pytest.mark.parametrize("orient", ["records", "split", "index", "columns"])
def test_a_frame_comes_back_from_its_own_json(orient: str) -> None:
    written = json.loads(FRAME[["n", "name"]].to_json(orient=orient))
    frame = PandasParameterType(FRAME[["n", "name"]], orient=orient).deserialize_input(written)
    assert frame["n"].tolist() == [1]
    assert frame.dtypes.to_dict() == FRAME[["n", "name"]].dtypes.to_dict()


def test_a_frames_columns_have_the_samples_types_and_number() -> None:
    kind = PandasParameterType(FRAME)
    frame = kind.deserialize_input([{"n": 2, "name": "y", "at": "2021-01-01T00:00:00", "took": "00:00:03"}])
    assert [dtype.kind for dtype in frame.dtypes] == [dtype.kind for dtype in FRAME.dtypes]
    with pytest.raises(ValueError, match="data frame has size 1 on dimension #1, while expected value is 4"):
        kind.deserialize_input([{"n": 2}])
    with pytest.raises(TypeError, match="unable to convert input of type"):
        kind.deserialize_input("text")


@pytest.mark.parametrize("orient", ["records", "split", "index", "columns", "values", "table"])
def test_a_frames_schema_says_its_orient(orient: str) -> None:
    schema = PandasParameterType(FRAME[["n", "name", "at"]], orient=orient).input_to_swagger()
    assert schema["format"] == f"pandas.DataFrame:{orient}"
    if orient == "records":
        assert schema["items"]["properties"]["at"]["format"] == "date-time"


# Spark's frames, by their schemas as Spark writes them -----------------------------------------------------------------


def columns(**types: object) -> dict[str, object]:
    return {
        "type": "struct",
        "fields": [{"name": name, "type": kind, "nullable": name != "must"} for name, kind in types.items()],
    }


SPARK = columns(
    must="long",
    x="double",
    price="decimal(10,2)",
    day="date",
    at="timestamp",
    raw="binary",
    list={"type": "array", "elementType": "float", "containsNull": True},
    map={"type": "map", "keyType": "string", "valueType": "date", "valueContainsNull": True},
    inner=columns(flag="boolean"),
)
SPARK_JSON = {
    "must": 1,
    "x": 2,
    "price": 1.25,
    "day": "2021-02-03",
    "at": "2021-02-03 04:05:06,000000",
    "raw": "aGk=",
    "list": [1, None],
    "map": {"k": "2021-02-03"},
    "inner": {"flag": True},
}


def test_rows_become_what_spark_takes_and_come_back_as_they_were() -> None:
    row = read(SPARK_JSON, SPARK)
    assert row == {
        "must": 1,
        "x": 2.0,
        "price": Decimal("1.25"),
        "day": dt.date(2021, 2, 3),
        "at": dt.datetime(2021, 2, 3, 4, 5, 6),  # noqa: DTZ001 - samples of users have no zone
        "raw": b"hi",
        "list": [1.0, None],
        "map": {"k": dt.date(2021, 2, 3)},
        "inner": {"flag": True},
    }
    assert isinstance(row["x"], float), "Spark takes no whole number for a double"
    assert json.loads(json.dumps(example_of(row, SPARK))) == SPARK_JSON
    assert read({"must": 1}, SPARK) == {**dict.fromkeys(SPARK_JSON), "must": 1}


def test_the_schema_of_a_spark_frames_row() -> None:
    schema = swagger_of(SPARK)
    assert schema["type"] == "object"
    assert {name: (part["type"], part.get("format")) for name, part in schema["properties"].items()} == {
        "must": ("integer", "int64"),
        "x": ("number", "double"),
        "price": ("number", "decimal"),
        "day": ("string", "date"),
        "at": ("string", "date-time"),
        "raw": ("string", "binary"),
        "list": ("array", None),
        "map": ("object", None),
        "inner": ("object", None),
    }
    assert schema["properties"]["list"]["items"] == {"type": "number", "format": "float"}
    assert schema["properties"]["map"]["additionalProperties"] == {"type": "string", "format": "date"}
    with pytest.raises(TypeError, match=r"schema from data of type pyspark\.ml\.linalg\.VectorUDT"):
        swagger_of(columns(v={"type": "udt", "class": "pyspark.ml.linalg.VectorUDT"}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], "an object is expected"),
        ({}, "no column 'must'"),
        ({"must": 1, "day": "soon"}, "'soon' is no date"),
        ({"must": 1, "day": 5}, "5 is no date"),
        ({"must": 1, "price": "much"}, "'much' is no decimal"),
        ({"must": 1, "raw": "a"}, "'a' is no binary"),
        ({"must": 1, "list": 5}, "an array is expected where 5 stands"),
    ],
)
def test_rows_that_do_not_fit_are_refused(wrong: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid input data frame: .*{said}"):
        read(wrong, SPARK)


def test_spark_is_wanted_only_by_who_uses_it() -> None:
    with pytest.raises(ImportError, match="SparkParameterType needs pyspark, which cannot be imported here: add it to the"):
        SparkParameterType([])


# Decorators -----------------------------------------------------------------------------------------------------------


class Doubled(AbstractParameterType):
    """A user's own type."""

    def deserialize_input(self, input_data: Any) -> list[int]:
        return [input_data, input_data]

    def input_to_swagger(self) -> dict[str, Any]:
        return {"type": "integer", "example": 1}


def test_a_users_own_type_converts_by_name_and_by_place() -> None:
    @input_schema("b", Doubled({1}))
    @input_schema("a", Std(1))
    def own_type(a: int, b: list[int]) -> object:
        return a, b

    assert own_type(a=1, b=3) == (1, [3, 3])  # type: ignore[arg-type]  # JSON is what callers have
    assert own_type(1, 3) == (1, [3, 3])  # type: ignore[arg-type]  # JSON is what callers have
    assert get_input_schema(own_type)["example"] == {"a": 1, "b": 1}
    assert is_schema_decorated(own_type)


def test_a_decorated_function_is_known_under_other_decorators() -> None:
    def plain(function: Callable[[int], object]) -> Callable[[int], object]:
        def inner(under: int) -> object:
            return function(under)

        return inner

    @plain
    @input_schema("under", Std([1, "a"]))
    def wrapped(under: int) -> object:
        return under

    assert is_schema_decorated(wrapped)
    assert get_supported_versions(wrapped) == ["3.0", "3.1"]
    assert not is_schema_decorated(plain)


def test_only_types_can_be_schemas() -> None:
    with pytest.raises(TypeError, match="AbstractParameterType"):
        input_schema("x", 5)  # type: ignore[arg-type]  # what users do


# The finder -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shims() -> Iterator[None]:
    before = set(sys.modules)
    install_shims()
    yield
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, ShimFinder | InstalledModel)]
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"azureml", "inference_schema", "azureml_inference_server_http"}:
            del sys.modules[name]


@pytest.mark.usefixtures("shims")
@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_shim_imports_with_its_names(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, wanted) for wanted in MODULES[name][1])


@pytest.mark.usefixtures("shims")
def test_what_is_not_in_the_list_stays_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"azureml\.train"):
        importlib.import_module("azureml.train")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_is_installed_wins(tmp_path: Path) -> None:
    real = {
        "inference_schema/__init__.py": "",
        "inference_schema/schema_decorators.py": "input_schema = 'real'",
        "azureml/__init__.py": "",
        "azureml/contrib/__init__.py": "",
    }
    write(tmp_path, real)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from runtime.scripts.shims.finder import install_shims
install_shims()
from inference_schema.schema_decorators import input_schema
assert input_schema == "real"
try:
    import inference_schema.schema_util
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("a real package got a part of ours")
from azureml.contrib.services.aml_request import rawhttp
assert rawhttp.__module__ == "runtime.scripts.shims.raw_http"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_an_installed_azureml_core_finds_models_where_they_are_here(tmp_path: Path) -> None:
    """The real one looks in `azureml-models` below the working folder, where Azure's images have them."""
    real = {
        "azureml/core/__init__.py": "from .model import Model\n",
        "azureml/core/model.py": (
            "class Model:\n"
            "    kept = 1\n"
            "    @staticmethod\n"
            "    def get_model_path(model_name, version=None, _workspace=None):\n"
            "        raise FileNotFoundError\n"
        ),
        "models/churn/2/model.pkl": "",
    }
    write(tmp_path, real)
    code = f"""
import inspect, sys
sys.path.insert(0, {str(tmp_path)!r})
from runtime.scripts.shims.finder import install_shims
install_shims()
from azureml.core import Model
assert Model.kept == 1 and "class Model" in inspect.getsource(Model)
print(Model.get_model_path("churn"), Model.get_model_path("churn", version=2))
"""
    environment = {"AZUREML_MODEL_DIR": str(tmp_path / "models" / "churn" / "2")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "models/churn/2/model.pkl")] * 2
