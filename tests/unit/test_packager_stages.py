"""How models become stages: which there must be, which may be accelerated, how outputs meet inputs, whose vectors count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.build import BuildModel
from hedgerow.contracts.image import ModelRef, StageName
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.proof import ParityIndex
from packager.errors import StageNotQuantized, StagesDoNotFit, StagesWrong
from packager.recipe import ModelFacts
from packager.source_files import FoundFile
from packager.stages import Described, StageFacts, check_stages, in_order, plan_stages, seen_as

DIGEST = "sha256:" + "0" * 64


def tensor(name: str, *shape: int, datatype: Any = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=list(shape))


def model(stage: StageName | None, name: str | None = None) -> BuildModel:
    ref = ModelRef(name=name or stage or "none", version=2, digest=DIGEST)
    return BuildModel(ref=ref, folder="/models/x", stage=stage)


def stage(
    name: StageName,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    *,
    parity: ParityIndex | None = None,
    compute: int = 1,
    not_quantized: tuple[str, ...] = (),
) -> StageFacts:
    facts = ModelFacts(model(name), (FoundFile("model.onnx", Path("/models/x/model.onnx"), 10),))
    described = Described(inputs=inputs, outputs=outputs, compute=compute, not_quantized=list(not_quantized))
    return StageFacts(facts, described, parity)


PRE = stage("pre", [tensor("pixels", -1, 8, 8, 3, datatype="UINT8")], [tensor("scaled", -1, 3, 8, 8)])
NET = stage("accelerated", [tensor("scaled", -1, 3, 8, 8)], [tensor("logits", -1, 4)])
POST = stage("post", [tensor("logits", -1, 4)], [tensor("label", -1, datatype="INT64"), tensor("scores", -1, 4)])


def test_stages_stand_in_their_order_whatever_order_they_were_given_in() -> None:
    stages = plan_stages([POST, NET, PRE]).stages
    assert [(one.name, one.model, one.version) for one in stages] == [
        ("pre", "pre", 2),
        ("accelerated", "accelerated", 2),
        ("post", "post", 2),
    ]
    assert [one.entry for one in stages] == [f"models/{name}/2/model.onnx" for name in ("pre", "accelerated", "post")]
    assert [one.providers for one in stages] == [["cpu"], ["vitisai", "cpu"], ["cpu"]]
    assert [one.feeds for one in stages] == [{}, {"scaled": "scaled"}, {"logits": "logits"}]


def test_models_are_taken_in_the_order_of_their_stages() -> None:
    given = [model("post"), model("accelerated"), model("pre")]
    assert [one.stage for one in in_order(given)] == ["pre", "accelerated", "post"]


def test_in_what_order_models_are_asked_for_changes_nothing() -> None:
    a, b = model(None, "a"), model(None, "b")
    assert in_order([b, a]) == in_order([a, b]) == [a, b]


def test_pre_and_post_may_be_absent() -> None:
    assert [one.name for one in plan_stages([NET]).stages] == ["accelerated"]
    assert [one.name for one in plan_stages([NET, POST]).stages] == ["accelerated", "post"]


def test_what_has_another_name_goes_in_by_its_place() -> None:
    pre = stage("pre", [tensor("x", -1)], [tensor("mask", -1), tensor("image", -1, 3)])
    net = stage("accelerated", [tensor("data", -1, 3), tensor("mask", -1)], [tensor("y", -1)])
    assert plan_stages([pre, net]).stages[1].feeds == {"data": "image", "mask": "mask"}


@pytest.mark.parametrize(
    ("output", "fits"),
    [
        (tensor("scaled", -1, 3, 8, 8), True),
        (tensor("other", -1, 3, 8, 8), True),
        (tensor("scaled", 1, 3, 8, 8), True),
        (tensor("scaled", -1, 3, -1, -1), True),
        (tensor("scaled", -1, 3, 16, 8), False),
        (tensor("scaled", -1, 3, 8), False),
        (tensor("scaled", -1, 3, 8, 8, datatype="UINT8"), False),
        (tensor("other", -1, 8, 8, 3), False),
    ],
)
def test_types_and_lengths_must_meet(output: TensorSpec, fits: bool) -> None:
    pre = stage("pre", [tensor("pixels", -1)], [output])
    if fits:
        assert plan_stages([pre, NET]).stages[1].feeds == {"scaled": output.name}
        return
    with pytest.raises(StagesDoNotFit) as refused:
        plan_stages([pre, NET])
    said = str(refused.value)
    assert "pre (pre:2)" in said
    assert "accelerated (accelerated:2)" in said
    assert f"{output.name} {output.datatype}[" in said


def test_every_input_needs_an_output() -> None:
    net = stage("accelerated", [tensor("scaled", -1, 3, 8, 8), tensor("threshold", 1)], [tensor("logits", -1, 4)])
    with pytest.raises(StagesDoNotFit, match="nothing is left for its input threshold"):
        plan_stages([PRE, net])


def test_the_accelerated_stage_computes_in_integers() -> None:
    with pytest.raises(StageNotQuantized, match=r"2 of its 5 convolutions and matrix products .* \(c1, c4\)"):
        plan_stages([stage("accelerated", [tensor("x", -1)], [tensor("y", -1)], compute=5, not_quantized=("c1", "c4"))])
    with pytest.raises(StageNotQuantized, match="no convolution and no matrix product"):
        plan_stages([stage("accelerated", [tensor("x", -1)], [tensor("y", -1)], compute=0)])
    plain = stage("post", [tensor("logits", -1, 4)], [tensor("y", -1)], compute=3, not_quantized=("a", "b", "c"))
    assert len(plan_stages([NET, plain]).stages) == 2, "only the accelerated stage has to"


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (["pre", "post"], "no model for stage accelerated"),
        (["accelerated", None], "model none:2 has no stage"),
        (["accelerated", "accelerated"], "several models for stage accelerated"),
    ],
)
def test_stages_that_cannot_be_told(stages: list[Any], says: str) -> None:
    with pytest.raises(StagesWrong, match=says):
        check_stages([model(one) for one in stages])


def test_vectors_of_all_stages_are_told_from_those_of_one() -> None:
    def with_index(of: StageFacts, inputs: list[str], outputs: list[str]) -> StageFacts:
        return StageFacts(of.model, of.described, ParityIndex(inputs=inputs, outputs=outputs))

    whole = with_index(POST, ["pixels"], ["scores"])
    assert plan_stages([PRE, NET, whole]).proof is whole.model
    first = with_index(PRE, ["pixels"], ["label", "scores"])
    assert plan_stages([first, NET, POST]).proof is first.model
    own = with_index(NET, ["scaled"], ["logits"])
    assert plan_stages([PRE, own, POST]).proof is None
    assert plan_stages([own]).proof is own.model
    assert plan_stages([own, POST]).proof is None


def test_the_image_is_tested_as_the_one_model_that_it_is() -> None:
    pre = ModelFacts(model("pre"), (FoundFile("parity.npz", Path("/p"), 1), FoundFile("parity.json", Path("/p"), 1)))
    net, post = NET.model, POST.model
    (with_vectors,) = seen_as((net, pre, post), pre)
    assert (with_vectors.title, with_vectors.model.folder, with_vectors.has_parity) == ("accelerated:2", pre.model.folder, True)
    own = ModelFacts(net.model, (*net.files, *pre.files))
    (without,) = seen_as((pre, own, post), None)
    assert (without.title, without.has_parity) == ("accelerated:2", False), "vectors of one stage are not the image's"


def test_a_stage_that_is_called_like_the_whole_is_not_taken_for_it() -> None:
    same = ParityIndex(inputs=["input"], outputs=["output"])
    pre = stage("pre", [tensor("input", -1, 3)], [tensor("output", -1, 3)], parity=same)
    net = stage("accelerated", [tensor("input", -1, 3)], [tensor("output", -1, 3)], parity=same)
    assert plan_stages([pre, net]).proof is None
