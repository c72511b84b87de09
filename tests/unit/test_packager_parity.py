"""Comparing answers with recorded ones: tolerance, text, missing outputs; and what several reports say together."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.contracts.proof import LatencyFacts, ProofReport
from packager.errors import VerificationFailed
from packager.parity import Parity, compare_answer, request_body
from packager.verify_process import verdict

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


def test_reports_that_pass_become_one_verification() -> None:
    found = verdict([report(), report(model="n", max_abs_error=2e-5, batchable=False)])
    assert (found.state, found.rows, found.max_abs_error, found.tolerance) == ("passed", 8, 2e-5, 1e-4)
    assert found.batchable == ["m"]


def test_a_model_without_vectors_is_said_in_words() -> None:
    found = verdict([report(rows=0, max_abs_error=None)])
    assert (found.state, found.rows) == ("passed", 0)
    assert "no parity vectors came with m" in found.reason


def test_a_failure_carries_its_numbers() -> None:
    with pytest.raises(VerificationFailed) as failed:
        verdict([report(), report(model="n", passed=False, max_abs_error=0.5)])
    assert failed.value.fields["max_abs_error"] == "0.5"
    assert "0.5" in str(failed.value)
    assert "0.0001" in str(failed.value)


def test_a_model_that_cannot_be_loaded_fails_with_its_reason() -> None:
    with pytest.raises(VerificationFailed, match="opset 99"):
        verdict([report(passed=False, max_abs_error=None, reason="opset 99 is not supported")])
