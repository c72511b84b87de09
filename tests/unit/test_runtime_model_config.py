"""Triton's config.pbtxt: read as protobuf's text format is, mapped as far as it means something here."""

from __future__ import annotations

import pytest

from runtime.models.errors import ModelConfigUnusable
from runtime.models.model_config import ModelConfig, VersionPolicy, config_from_json, config_from_pbtxt
from runtime.models.pbtxt import parse_pbtxt

FULL = """
# as Triton's own documentation writes them
name: "resnet"
platform: "onnxruntime_onnx"
max_batch_size : 16
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 3, -1, 224 ] },
  { name: 'y' data_type: TYPE_FP32 dims: 1 dims: 2 }
]
version_policy: { specific: { versions: [1, 3] } }
instance_group [ { count: 2, kind: KIND_CPU }, { kind: KIND_CPU; count: 0x1 } ]
dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 }
parameters { key: "a\\tb" value: { string_value: "x" "y" } }
default_model_filename: "net.onnx"
"""


def test_the_text_format_becomes_lists_of_values() -> None:
    found = parse_pbtxt(FULL)
    assert found["max_batch_size"] == [16]
    assert found["input"] == [
        {"name": ["x"], "data_type": ["TYPE_FP32"], "dims": [3, -1, 224]},
        {"name": ["y"], "data_type": ["TYPE_FP32"], "dims": [1, 2]},
    ]
    assert found["parameters"] == [{"key": ["a\tb"], "value": [{"string_value": ["xy"]}]}]
    assert parse_pbtxt("a: 1.5e3f b: true c < d: -0x10 > e: []") == {"a": [1500.0], "b": [True], "c": [{"d": [-16]}], "e": []}
    assert parse_pbtxt("") == {}


@pytest.mark.parametrize("text", ["a", "a:", "a: {", "a: [1 2]", "a { b: 1 ]", "}", 'a: "x', "a: 1 = 2", "a {" * 60, "a: 1.2.3"])
def test_what_is_no_text_format_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|too deep"):
        parse_pbtxt(text)


def test_a_configuration_is_mapped() -> None:
    config = config_from_pbtxt("resnet", FULL)
    assert config == ModelConfig(16, 3, VersionPolicy("specific", 1, (1, 3)), "net.onnx", ("parameters",))
    assert config_from_pbtxt("m", "") == ModelConfig(), "everything is found out"
    json = '{"name": "m", "maxBatchSize": 0, "instanceGroup": [{"count": 2}], "versionPolicy": {"latest": {"numVersions": "2"}}}'
    assert config_from_json("m", json) == ModelConfig(0, 2, VersionPolicy("latest", 2))


def test_the_version_policy_chooses() -> None:
    there = [1, 2, 10]
    assert VersionPolicy().choose(there) == [10]
    assert VersionPolicy("latest", 2).choose(there) == [2, 10]
    assert VersionPolicy("all").choose(there) == there
    assert VersionPolicy("specific", versions=(10, 1, 7)).choose(there) == [1, 10]
    assert VersionPolicy("latest", 5).choose([]) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('platform: "tensorrt_plan"', "'tensorrt_plan' is not ONNX"),
        ('backend: "python"', "not ONNX"),
        ('name: "other"', "for a model named 'other'"),
        ("max_batch_size: -1", "max_batch_size cannot be -1"),
        ('max_batch_size: "many"', "max_batch_size cannot be 'many'"),
        ("instance_group [ { count: 0 } ]", "cannot be 0"),
        ("instance_group: 3", "is expected where 3 stands"),
        ('default_model_filename: "../../etc/passwd"', "is no file name"),
        ("version_policy: { latest: { num_versions: 0 } }", "cannot be 0"),
        ("x {", "it ends too early"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(text: str, says: str) -> None:
    with pytest.raises(ModelConfigUnusable, match=says):
        config_from_pbtxt("m", text)


@pytest.mark.parametrize("text", ["[]", "{", "null", "1", "[" * 100_000, '{"instance_group": 5}', '{"max_batch_size": 1.5}'])
def test_json_that_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ModelConfigUnusable, match="configuration of model m"):
        config_from_json("m", text)
