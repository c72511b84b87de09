"""Whether a model keeps the rows of requests apart: read out of its graph, for every value and every number of rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from runtime.models.onnx_model import OnnxModel
from runtime.models.rows.verdict import row_verdict
from runtime.models.warm_up import try_out
from tests import mixing_models, real_models, row_models
from tests import scoring_models as models
from tests.row_graphs import counter_example, random_model

_REAL = {
    real_models.ORIENTATION: "proven",
    real_models.MINILM: "proven",
    real_models.WAKEWORD: "proven",
    real_models.ATSPM_TREES: "proven",
    real_models.ATSPM_CLASSES: "proven",
    real_models.ATSPM_PAIR: "proven",
    real_models.ATSPM_HEAD: "mixes",
    real_models.MEL: "mixes",
    # A state with the batch second; one recording at a time.
    real_models.SILERO: "unknown",
    real_models.SWIFT: "unknown",
}


@pytest.mark.parametrize(("build", "says"), mixing_models.MIXING.values(), ids=mixing_models.MIXING)
def test_a_model_that_mixes_rows_is_never_merged_and_says_why(build: Any, says: str) -> None:
    file = build()
    tried = try_out(OnnxModel("m", file), None, "on")
    assert not tried.merges
    assert says in tried.why_not
    assert tried.inline_rows == 0
    verdict = row_verdict(file)
    assert verdict.state != "proven"
    assert says in verdict.why


@pytest.mark.parametrize("build", row_models.APART.values(), ids=row_models.APART)
def test_a_model_that_keeps_rows_apart_is_proven_and_merged(build: Any) -> None:
    file = build()
    assert row_verdict(file).why == ""
    assert row_verdict(file).state == "proven"
    tried = try_out(OnnxModel("m", file), None, "on")
    assert tried.merges, tried.why_not


@pytest.mark.parametrize("which", _REAL, ids=real_models.name_of)
def test_trained_models_are_proven_where_they_were_measured_to_be_sound(which: tuple[str, str]) -> None:
    verdict = row_verdict(real_models.real_model(which))
    assert verdict.state == _REAL[which], verdict.why


def test_an_image_answers_for_what_is_unknown_but_not_for_what_mixes() -> None:
    unknown, mixing = (OnnxModel("m", build()) for build in (models.with_function, mixing_models.loud_rows_count_double))
    assert not try_out(unknown, None, "on").merges
    assert try_out(unknown, True, "on").merges
    assert not try_out(mixing, True, "on").merges


def test_what_no_output_needs_is_no_reason() -> None:
    wirings: tuple[row_models.Wiring, ...] = (("ReduceSum", ["x"], ["unused"], {}), ("Neg", ["x"], ["y"], {}))
    assert row_verdict(row_models.graph("unused", *wirings)).state == "proven"


def test_lengths_of_mixed_values_may_be_asked_for() -> None:
    wirings: tuple[row_models.Wiring, ...] = (
        ("ReduceMax", ["x", "first"], ["most"], {}),
        ("Sub", ["x", "most"], ["mixed"], {}),
        ("Shape", ["mixed"], ["shape"], {}),
        ("Reshape", ["x", "shape"], ["y"], {}),
    )
    assert row_verdict(row_models.graph("asked", *wirings, constants=mixing_models.FIRST)).state == "proven"


def test_a_branch_that_is_never_taken_does_not_count() -> None:
    sides = [
        helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
        for name, node in (("a", helper.make_node("Neg", ["x"], ["a"])), ("b", helper.make_node("ReduceSum", ["x"], ["b"])))
    ]
    for taken, state in ((True, "proven"), (False, "mixes")):
        wiring: row_models.Wiring = ("If", ["c"], ["y"], {"then_branch": sides[0], "else_branch": sides[1]})
        file = row_models.graph(f"taken-{taken}", wiring, constants={"c": taken})
        assert row_verdict(file).state == state


def test_a_file_that_cannot_be_read_is_unknown_and_never_an_exception(tmp_path: Path) -> None:
    whole = row_models.encoder().read_bytes()
    file = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 61):
        file.write_bytes(whole[:length])
        assert row_verdict(file).state != "proven"
    draw = random.Random(1)
    for build in (row_models.encoder, mixing_models.in_a_branch, lambda: row_models.nearest("x")):
        whole = build().read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            file.write_bytes(damaged)
            assert row_verdict(file).state in ("proven", "mixes", "unknown")
    assert row_verdict(tmp_path / "none.onnx").why == "its graph cannot be read"


def test_nobody_looks_at_very_many_operators(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", [f"v{number}"], [f"v{number + 1}"]) for number in range(20_001)]
    value = models.value("v0", TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes, "g", [value], [models.value("v20001", TensorProto.FLOAT, ["N", 1])])
    file = tmp_path / "long.onnx"
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    assert "more than 20000 operators" in row_verdict(file).why


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)], ids=lambda seeds: str(seeds.start))
def test_whatever_is_proven_of_random_graphs_is_so(seeds: range, tmp_path: Path) -> None:
    """Operators at random with settings at random; what is proven of them is tried at several numbers of rows."""
    proven = mixed = 0
    for seed in seeds:
        file = tmp_path / f"{seed}.onnx"
        random_model(seed, file)
        found = counter_example(file, seed)
        mixed += bool(found)
        if row_verdict(file).state == "proven":
            proven += 1
            assert not found, f"{file.name} (seed {seed}): {found}"
    # Otherwise there would be nothing that could fail.
    assert proven >= 5
    assert mixed >= 5
