"""Which execution provider is tried and taken, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.models.errors import ModelNeedsLocale, ModelTooNew, ProvidersMissing, ProvidersUnusable
from runtime.models.onnx_model import OnnxModel
from runtime.models.providers import CPU, Engine, Wish, parse_providers, short_name, worth_a_try
from tests import scoring_models as models


def test_a_list_is_read_in_its_order_with_options() -> None:
    assert parse_providers("cpu") == (Wish(CPU),)
    assert parse_providers(" tensorrt:trt_fp16_enable=1 , CUDA:device_id=1; gpu_mem_limit=2147483648 ,cpu") == (
        Wish("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}),
        Wish("CUDAExecutionProvider", {"device_id": "1", "gpu_mem_limit": "2147483648"}),
        Wish(CPU),
    )
    assert parse_providers("vitisai:config_file=/opt/vaip=1.json")[0].options == {"config_file": "/opt/vaip=1.json"}
    assert parse_providers("NewExecutionProvider")[0].provider == "NewExecutionProvider"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the list is empty"),
        (" , ", "the list is empty"),
        ("gpu", "there is no provider 'gpu'"),
        ("cpu,cpu", "names one twice"),
        ("cuda:device_id", "'device_id' of cuda is not NAME=VALUE"),
        ("cuda:=1", "is not NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(text: str, says: str) -> None:
    with pytest.raises(ProvidersUnusable, match=says):
        parse_providers(text)


def test_what_this_build_does_not_have_is_not_tried() -> None:
    wishes, refusals = worth_a_try(parse_providers("cuda,openvino,cpu"), ["OpenVINOExecutionProvider", CPU])
    assert [wish.provider for wish in wishes] == ["OpenVINOExecutionProvider", CPU]
    assert [str(refusal) for refusal in refusals] == ["cuda: not in this build of onnxruntime, which has openvino, cpu"]
    assert short_name("OpenVINOExecutionProvider") == "openvino"


def test_the_first_that_can_be_had_is_taken_and_the_refusals_are_told() -> None:
    model = OnnxModel("m", models.echo(), engine=Engine(parse_providers("vitisai,xnnpack,cpu")))
    assert model.provider == CPU
    assert [refusal.provider for refusal in model.refusals] == ["VitisAIExecutionProvider", "XnnpackExecutionProvider"]


def test_a_list_without_the_cpu_means_it() -> None:
    with pytest.raises(ProvidersMissing, match=r"Model m cannot run on any .*tensorrt: not in this build"):
        OnnxModel("m", models.echo(), engine=Engine(parse_providers("tensorrt")))


@pytest.mark.parametrize("arena", ["on", "exact", "shrink", "off"])
def test_answers_are_the_same_whatever_becomes_of_memory(arena: str) -> None:
    rows = models.digits()[2][:200]
    plain = OnnxModel("m", models.digits()[0]).run({"X": rows})
    # Twice: the second session meets the first one's arena.
    for _ in range(2):
        model = OnnxModel("m", models.digits()[0], engine=Engine(arena=arena))  # type: ignore[arg-type]  # each of its words
        for _ in range(3):
            found = model.run({"X": rows})
            for name, value in plain.items():
                np.testing.assert_allclose(np.asarray(found[name]), np.asarray(value), rtol=1e-5)


@pytest.mark.parametrize(("ir_version", "opset"), [(99, 17), (8, 99)])
def test_a_model_for_a_later_onnxruntime_is_refused_in_one_sentence(ir_version: int, opset: int) -> None:
    with pytest.raises(ModelTooNew) as refused:
        OnnxModel("m", models.stamped(ir_version, opset))
    sentence = refused.value.sentence()
    assert "too new for the onnxruntime" in sentence
    assert "Install a newer onnxruntime" in sentence
    assert "/onnxruntime_src" not in sentence


def test_a_model_for_a_locale_that_is_not_here_says_which_one() -> None:
    with pytest.raises(ModelNeedsLocale) as refused:
        OnnxModel("m", models.folds_text("xx_YY.UTF-8"))
    assert str(refused.value) == "Model m needs the locale xx_YY.UTF-8, which this machine does not have"
    assert "Install it" in refused.value.sentence()
    assert OnnxModel("m", models.folds_text("C")).output_names == ["y"]


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 7), (5, 11), (10, 22)])
def test_old_models_are_served(ir_version: int, opset: int) -> None:
    model = OnnxModel("m", models.stamped(ir_version, opset))
    assert np.asarray(model.run({"x": np.ones((1, 2), np.float32)})["y"]).tolist() == [[-1, -1]]
