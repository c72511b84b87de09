"""Comparing answers with recorded ones: tolerance, text, missing outputs; and what several reports say together."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.contracts.proof import LatencyFacts, ProofReport
from packager.errors import VerificationFailed
from packager.verify.drive import Scored, check_reports, verdict
from packager.verify.parity import Parity, compare_answer, request_body

VECTORS = Parity(
    inputs={"x": np.array([[1.5, 2.0], [3.0, 4.0]], dtype=np.float32), "who": np.array(["a", "b"])},
    outputs={"y": np.array([[1.0, np.nan], [2.0, 3.0]]), "label": np.array(["cat", "dog"])},
    atol=0.01,
    rtol=0.0,
)


def report(**changes: object) -> ProofReport:
    plain: dict[str, object] = {
        "model": "m",
        "rows": 4,
        "passed": True,
        "max_abs_error": 1e-6,
        "tolerance": 1e-4,
        "batchable": True,
        "latency": LatencyFacts(p50_ms=0.5, p99_ms=1.0),
        "peak_memory_bytes": 1,
        "provider": "CPUExecutionProvider",
    }
    return ProofReport(**{**plain, **changes})  # type: ignore[arg-type]  # a test builder


def test_a_row_is_asked_as_the_protocol_wants_it() -> None:
    assert request_body(VECTORS, 1, 2) == {
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 4.0]},
            {"name": "who", "shape": [1], "datatype": "BYTES", "data": ["b"]},
        ]
    }


def test_within_tolerance_passes_and_says_how_far_off() -> None:
    difference = compare_answer(VECTORS, 1, 2, {"y": [2.005, 3.0], "label": ["dog"], "extra": [1]})
    assert difference.within
    assert difference.max_abs_error == pytest.approx(0.005)


def test_beyond_tolerance_fails() -> None:
    assert not compare_answer(VECTORS, 1, 2, {"y": [2.02, 3.0], "label": ["dog"]}).within


def test_not_a_number_must_be_answered_with_not_a_number() -> None:
    assert compare_answer(VECTORS, 0, 1, {"y": [1.0, None], "label": ["cat"]}).within
    assert not compare_answer(VECTORS, 0, 1, {"y": [1.0, 0.0], "label": ["cat"]}).within


def test_text_must_be_equal() -> None:
    assert not compare_answer(VECTORS, 1, 2, {"y": [2.0, 3.0], "label": ["cat"]}).within


@pytest.mark.parametrize("answer", [{"label": ["dog"]}, {"y": [2.0], "label": ["dog"]}])
def test_a_missing_or_short_output_is_an_error(answer: dict[str, list[object]]) -> None:
    with pytest.raises(VerificationFailed, match="'y'"):
        compare_answer(VECTORS, 1, 2, answer)


@pytest.mark.parametrize("value", ["a", [1.0], {}, "1", 10**400])
def test_what_is_no_number_is_an_error(value: object) -> None:
    with pytest.raises(VerificationFailed, match="'y'"):
        compare_answer(VECTORS, 1, 2, {"y": [2.0, value], "label": ["dog"]})


def test_an_error_without_a_size_is_told_as_a_number() -> None:
    difference = compare_answer(VECTORS, 0, 1, {"y": [1.0, 0.0], "label": ["cat"]})
    assert difference.max_abs_error == np.finfo(np.float64).max
    assert compare_answer(VECTORS, 0, 1, {"y": [1.0, None], "label": ["cat"]}).max_abs_error == 0.0


def test_rows_and_proofs_become_one_verification() -> None:
    scored = [Scored(4, 1e-6, 1e-4, (1.0, 2.0, 9.0)), Scored(4, 2e-5, 1e-3, (3.0,))]
    found = verdict(scored, [report(), report(model="n", batchable=False)], [])
    assert (found.state, found.rows, found.max_abs_error, found.tolerance) == ("passed", 8, 2e-5, 1e-3)
    assert (found.latency_ms, found.latency_p99_ms) == (2.0, 9.0)
    assert found.batchable == ["m"]


def test_a_model_without_vectors_is_said_in_words() -> None:
    found = verdict([], [report(rows=0, max_abs_error=None)], ["m:1"])
    assert (found.state, found.rows, found.latency_ms) == ("passed", 0, None)
    assert "no parity vectors came with m:1" in found.reason


def test_hardware_that_was_not_there_is_said_in_words() -> None:
    found = verdict([], [report(refusals=["VitisAIExecutionProvider is not in this onnxruntime"])], [])
    assert "m ran on CPUExecutionProvider: VitisAIExecutionProvider is not in this" in found.reason


def test_a_failure_carries_its_numbers() -> None:
    with pytest.raises(VerificationFailed) as failed:
        check_reports([report(), report(model="n", passed=False, max_abs_error=0.5)])
    assert failed.value.fields["max_abs_error"] == "0.5"
    assert "0.5" in str(failed.value)
    assert "0.0001" in str(failed.value)


def test_a_model_that_cannot_be_loaded_fails_with_its_reason() -> None:
    with pytest.raises(VerificationFailed, match="opset 99"):
        check_reports([report(passed=False, max_abs_error=None, reason="opset 99 is not supported")])
