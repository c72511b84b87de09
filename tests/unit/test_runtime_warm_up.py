"""What trying a model out finds: an input that it takes, whether requests may be merged, whether it may run on the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hedgerow.contracts.model import TensorSpec
from runtime.cores import core_count
from runtime.models.batchability import row_of, why_not_batchable, why_not_beside_extremes
from runtime.models.onnx_model import OnnxModel
from runtime.models.sample_inputs import extreme_rows, made_up_feeds, row_count
from runtime.models.warm_up import ROWS, Wishes, is_empty, is_steady, load_and_try, try_out
from runtime.serving_plan import PlannedModel
from runtime.tensors import Array
from tests import mixing_models, real_models, row_models
from tests import scoring_models as models


def opened(file: Path) -> OnnxModel:
    return OnnxModel(file.stem, file)


def spec(name: str, datatype: Any, shape: list[int]) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


@pytest.mark.parametrize("which", real_models.ALL, ids=real_models.name_of)
def test_every_real_model_gets_an_example_that_it_takes(which: tuple[str, str]) -> None:
    model = opened(real_models.real_model(which))
    try_out(model, None)
    assert model.example is not None
    assert model.example_outputs is not None
    outputs = model.run(model.example)
    assert not is_empty(outputs), "an empty answer shows nothing"


@pytest.mark.parametrize(
    ("which", "merges"),
    [
        (real_models.ATSPM_TREES, True),
        (real_models.ATSPM_CLASSES, True),
        (real_models.ATSPM_PAIR, True),
        # Attends across its first, free axis.
        (real_models.ATSPM_HEAD, False),
        # Its state has the batch second.
        (real_models.SILERO, False),
        (real_models.SWIFT, False),
        # It cuts decibels off below the loudest moment of the whole batch: a loud row changes a quiet one.
        (real_models.MEL, False),
        (real_models.MINILM, True),
    ],
    ids=str,
)
def test_real_models_are_merged_where_their_answers_stay_the_same_and_nowhere_else(which: tuple[str, str], merges: bool) -> None:
    model = opened(real_models.real_model(which))
    tried = try_out(model, None, "on")
    assert tried.merges == merges, tried.why_not


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (models.across_rows, "ReduceSum takes the rows together"),
        (models.fixed_batch, "no free leading length"),
        (models.many_kinds, "no free leading length"),
        (models.total, "ReduceSum takes the rows together"),
        (models.scaled_by_the_largest, "DynamicQuantizeLinear takes one scale from all rows"),
        (models.no_inputs, "no free leading length"),
        (models.splits_text, "StringSplit gives as much as the values of all rows say"),
    ],
)
def test_models_whose_rows_mix_are_never_merged_even_when_that_is_wished(build: Any, says: str) -> None:
    tried = try_out(opened(build()), None, "on")
    assert not tried.merges
    assert says in tried.why_not
    assert tried.inline_rows == 0


def test_what_an_image_measured_is_believed_and_off_means_off() -> None:
    model = opened(models.iris())
    assert not try_out(model, False, "on").merges
    assert try_out(model, True, "on").merges
    assert try_out(model, None, "off").why_not == "merging is switched off"


def test_lists_of_maps_and_text_can_be_compared() -> None:
    for file in (models.iris_with_maps(), models.echo_text()):
        assert try_out(opened(file), None, "on").merges


@pytest.mark.parametrize(("known", "width"), [(2, 1), (7, 1), (50, None), (50, 12), (200, None)])
def test_indices_that_only_the_first_row_happens_to_keep_to_are_made_up_again(known: int, width: int | None) -> None:
    model = opened(models.looks_up(known, width))
    tried = try_out(model, None, "on")
    assert tried.merges, tried.why_not
    assert model.example is not None
    model.run(model.example)


@pytest.mark.parametrize(
    ("build", "steady"),
    [
        (models.iris, True),
        (models.iris_with_maps, True),
        (models.echo, True),
        (models.total, False),
        (models.endless, False),
        (models.finds_non_zero, False),
        (models.branches, False),
        (models.with_function, False),
        (models.replaceable, False),
        (models.repeats_rows, False),
    ],
)
def test_only_models_whose_rows_alone_decide_run_on_the_loop(build: Any, steady: bool) -> None:
    assert is_steady(opened(build())) == steady


def test_a_tiny_steady_model_may_run_on_the_loop() -> None:
    # The quickest of several tries: what runs beside this test is not its matter.
    model = opened(models.iris())
    assert max(try_out(model, None).inline_rows for _ in range(5)) > 0


@pytest.mark.parametrize(("width", "most"), [(1000, 8), (20_000, 0)])
def test_no_more_rows_run_on_the_loop_than_are_written_in_a_moment(width: int, most: int) -> None:
    weights = numpy_helper.from_array(np.ones((2, width), np.float32), "w")
    takes, gives = (models.value(name, TensorProto.FLOAT, ["N", length]) for name, length in (("x", 2), ("y", width)))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = opened(models.build(f"wide-{width}", [node], [takes], [gives], [weights]))
    # Fewer, or none, where the machine is too busy for it to count as quick.
    assert max(try_out(model, None).inline_rows for _ in range(5)) <= most


def test_threads_inside_a_run_are_as_wished(tmp_path: Path) -> None:
    file = models.iris()
    assert load_and_try(PlannedModel("m", "1", file), Wishes(threads=2))[0].threads == 2
    assert load_and_try(PlannedModel("m", "1", file), Wishes())[0].threads == 1
    # A run of microseconds gets no quicker by threads.
    assert load_and_try(PlannedModel("m", "1", file), Wishes(prefer="latency"))[0].threads == 1


def test_batchability_needs_two_rows_and_is_measured_against_the_given_answers() -> None:
    model = opened(models.echo())
    feeds = {"x": np.ones((2, 2), np.float32)}
    alone = [model.run({"x": feeds["x"][row : row + 1]}) for row in range(2)]
    assert not why_not_batchable(model, feeds, alone)
    assert why_not_batchable(model, feeds, alone[:1]) == "one row cannot show it"
    off = {"y": np.full((1, 2), 1.0005, np.float32)}
    assert not why_not_batchable(model, feeds, [alone[0], off])
    assert "by up to 0.0005" in why_not_batchable(model, feeds, [alone[0], off], atol=1e-5, rtol=0)
    nan = {"y": np.full((1, 2), np.nan, np.float32)}
    assert "by up to inf" in why_not_batchable(model, feeds, [alone[0], nan])


def beside_extremes(build: Any, run_s: float = 0.0) -> str:
    """What rows alone and together show, and if nothing, what extreme rows beside them do. The graph is not looked at."""
    model = opened(build())
    feeds = next(made_up_feeds(model.inputs, ROWS, model.axis_names))
    alone = [model.run(row_of(feeds, row)) for row in range(ROWS)]
    return why_not_batchable(model, feeds, alone) or why_not_beside_extremes(model, feeds, alone, run_s)


def test_a_row_of_extreme_values_shows_what_usual_ones_do_not() -> None:
    # No usual value reaches its threshold: the measurement alone was deceived by this one.
    found = beside_extremes(mixing_models.loud_rows_count_double)
    assert "differs between rows alone and together" in found
    assert "when a row beside it is largest" in found


@pytest.mark.parametrize(
    "build",
    [
        mixing_models.dynamically_quantised,
        mixing_models.knows_its_place,
        mixing_models.divided_by_the_number_of_rows,
        mixing_models.turned_and_cut_anew,
        mixing_models.dropout_in_training,
        models.splits_text,
        models.across_rows,
    ],
)
def test_the_measurement_finds_most_of_what_the_graph_shows(build: Any) -> None:
    assert beside_extremes(build)


@pytest.mark.parametrize("build", [models.iris_with_maps, models.echo_text, row_models.lstm, row_models.encoder])
def test_sound_models_answer_beside_extremes_as_they_do_alone(build: Any) -> None:
    assert beside_extremes(build) == ""


def test_a_row_that_a_model_takes_from_nobody_shows_nothing() -> None:
    model = opened(models.fails_on_negative())
    feeds = {"i": np.arange(4)}
    alone = [model.run(row_of(feeds, row)) for row in range(4)]
    assert why_not_beside_extremes(model, feeds, alone, 0.0) == ""


def test_extreme_rows_hold_every_kind_of_value() -> None:
    row: dict[str, Array] = {
        "f": np.ones((1, 2), np.float32),
        "i": np.ones((1,), np.int8),
        "b": np.ones((1,), np.bool_),
        "t": np.array(["a"], np.object_),
    }
    found = {extreme.name: extreme.feeds for extreme in extreme_rows(row, divides=False)}
    assert all(
        feeds[name].shape == row[name].shape and feeds[name].dtype == row[name].dtype for feeds in found.values() for name in row
    )
    assert np.isnan(found["not a number"]["f"]).all()
    assert {int(feeds["i"][0]) for feeds in found.values()} == {1, 0, 127, -128}
    assert "" in {feeds["t"][0] for feeds in found.values()}
    # A whole number divided by zero would end the process.
    assert all(feeds["i"][0] > 0 for feeds in (extreme.feeds for extreme in extreme_rows(row, divides=True)))


def test_made_up_inputs_are_the_same_every_time_and_no_two_offers_are_alike() -> None:
    specs = [spec("x", "FP32", [-1, -1]), spec("h", "FP32", [2, -1, 8]), spec("k", "INT64", [])]
    first, again = list(made_up_feeds(specs, 4)), list(made_up_feeds(specs, 4))
    assert len(first) > 10
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    shapes = {(tuple(one["x"].shape), tuple(one["h"].shape)) for one in first}
    assert ((4, 16), (2, 4, 8)) in shapes, "a state with the batch second"
    assert ((4, 576), (2, 576, 8)) in shapes


def test_axes_of_one_name_have_one_length() -> None:
    specs = [spec("x", "FP32", [-1, -1]), spec("h", "FP32", [-1, 2, -1])]
    names = {"x": ["batch", "time"], "h": ["batch", "", "batch"]}
    offer = next(made_up_feeds(specs, ROWS, names))
    assert offer["h"].shape == (ROWS, 2, ROWS)


def test_names_that_say_what_they_want_get_it() -> None:
    specs = [spec("attention_mask", "INT64", [-1, 3]), spec("token_type_ids", "INT64", [-1, 3]), spec("sr", "INT64", [])]
    offer = next(made_up_feeds(specs, 2))
    assert offer["attention_mask"].tolist() == [[1, 1, 1]] * 2
    assert offer["token_type_ids"].tolist() == [[0, 0, 0]] * 2
    assert int(offer["sr"]) == 16_000


def test_every_datatype_can_be_made_up() -> None:
    kinds = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES")
    for kind in kinds:
        for shape in ([], [-1], [3, 2], [-1, 0]):
            for offer in made_up_feeds([spec("x", kind, shape)], 2):
                assert offer["x"].ndim == len(shape)


def test_a_fixed_batch_is_taken_whole() -> None:
    assert row_count([spec("x", "FP32", [3, 2])]) == 3
    assert row_count([spec("x", "FP32", [-1, 2])]) == 1
    assert row_count([spec("x", "FP32", [])]) == 1
    assert row_count([]) == 1


def test_tokens_are_never_made_up_by_the_thousand() -> None:
    offers = list(made_up_feeds([spec("input_ids", "INT64", [-1, -1])], 2))
    assert max(offer["input_ids"].shape[1] for offer in offers) < 1000
    sound = list(made_up_feeds([spec("audio", "FP32", [-1, -1])], 2))
    assert max(offer["audio"].shape[1] for offer in sound) == 16_000


def test_latency_takes_all_cores_for_one_run_only_where_that_is_quicker() -> None:
    model, tried = load_and_try(PlannedModel("m", "1", models.much_to_do()), Wishes(prefer="latency"))
    assert model.example is not None
    assert model.threads in (1, core_count())
    # Runs side by side, or threads inside one: never both.
    assert tried.threads * model.threads <= max(2, core_count())
    assert load_and_try(PlannedModel("m", "1", models.much_to_do()), Wishes(prefer="throughput"))[0].threads == 1
