"""``python -P -m runtime.prove`` as packager and devices run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, ServedModel
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.proof import ParityIndex, ProofReport
from tests import mixing_models, real_models
from tests import scoring_models as models


def prove(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    argv = [sys.executable, "-P", "-m", "runtime.prove", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def reports(*arguments: object) -> tuple[int, list[ProofReport]]:
    code, output, _ = prove(*arguments)
    return code, msgspec.json.decode(output, type=list[ProofReport])


def record(folder: Path, inputs: dict[str, Any], outputs: dict[str, Any], atol: float = 1e-4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parity.json").write_bytes(encode(ParityIndex(inputs=list(inputs), outputs=list(outputs), atol=atol)))
    arrays = {f"input_{number}": array for number, array in enumerate(inputs.values())}
    arrays |= {f"output_{number}": array for number, array in enumerate(outputs.values())}
    np.savez(folder / "parity.npz", **arrays)
    return folder


def test_a_converted_model_agrees_with_the_trained_one(tmp_path: Path) -> None:
    file, classifier, rows = models.digits()
    outputs = {"label": classifier.predict(rows[:64]), "probabilities": classifier.predict_proba(rows[:64])}
    code, (report,) = reports("--model", file, "--name", "digits", "--parity", record(tmp_path, {"X": rows[:64]}, outputs))
    assert (code, report.passed, report.rows, report.model) == (0, True, 64, "digits")
    assert report.max_abs_error is not None
    assert report.max_abs_error < 1e-4
    assert report.batchable
    assert report.provider == "CPUExecutionProvider"
    assert report.latency is not None
    assert 0 < report.latency.p50_ms <= report.latency.p99_ms < 100
    assert 10_000_000 < report.peak_memory_bytes < 500_000_000


def test_answers_that_differ_do_not_pass_and_say_by_how_much(tmp_path: Path) -> None:
    rows, _ = models.iris_rows()
    wrong = models.iris_classifier().predict_proba(rows[:10])
    wrong[3, 1] += 0.25
    code, (report,) = reports("--model", models.iris(), "--parity", record(tmp_path, {"X": rows[:10]}, {"probabilities": wrong}))
    assert (code, report.passed) == (1, False)
    assert report.max_abs_error == pytest.approx(0.25, abs=1e-3)
    assert "output 'probabilities' differs in 1 of 30 values" in report.reason
    relaxed = record(tmp_path, {"X": rows[:10]}, {"probabilities": wrong}, atol=0.5)
    code, (report,) = reports("--model", models.iris(), "--parity", relaxed)
    assert (code, report.tolerance) == (0, 0.5)


def test_an_image_is_proven_with_the_vectors_inside_it(tmp_path: Path) -> None:
    rows, _ = models.iris_rows()
    served = []
    for name in ("first", "second"):
        path = f"models/{name}/1"
        record(tmp_path / path, {"X": rows[:5]}, {"label": models.iris_classifier().predict(rows[:5])})
        (tmp_path / path / "model.onnx").write_bytes(models.iris().read_bytes())
        served.append(ServedModel(name=name, version=1, digest="sha256:" + "0" * 64, path=path, entry=f"{path}/model.onnx"))
    (tmp_path / "hedgerow.json").write_bytes(encode(ScoringConfig(models=served)))
    code, found = reports("--image", tmp_path)
    assert (code, [(report.model, report.rows) for report in found]) == (0, [("first", 5), ("second", 5)])
    (tmp_path / served[1].path / "model.onnx").write_bytes(b"broken")
    code, found = reports("--image", tmp_path)
    assert (code, [report.passed for report in found]) == (1, [True, False])
    assert "it is not an ONNX file" in found[1].reason


def test_an_image_of_one_model_may_keep_its_vectors_at_its_root(tmp_path: Path) -> None:
    rows, _ = models.iris_rows()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(models.iris().read_bytes())
    record(tmp_path, {"X": rows[:7]}, {"label": models.iris_classifier().predict(rows[:7])})
    served = ServedModel(name="m", version=1, digest="sha256:" + "0" * 64, path="m", entry="m/model.onnx")
    (tmp_path / "hedgerow.json").write_bytes(encode(ScoringConfig(models=[served])))
    code, (report,) = reports("--image", tmp_path)
    assert (code, report.rows) == (0, 7)


def test_a_leading_dynamic_axis_is_no_proof_of_batchability(tmp_path: Path) -> None:
    code, (report,) = reports("--model", models.across_rows())
    assert (code, report.passed, report.batchable) == (0, True, False)
    assert "differs between rows alone and together" in report.reason
    rows = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    folder = record(tmp_path, {"x": rows}, {"y": np.ones((4, 2))})
    code, (report,) = reports("--model", models.across_rows(), "--parity", folder)
    assert (report.passed, report.batchable) == (True, False)


def test_what_only_the_graph_shows_is_told_beside_what_was_measured(tmp_path: Path) -> None:
    code, (report,) = reports("--model", mixing_models.loud_rows_count_double())
    assert (code, report.passed, report.batchable) == (0, True, False)
    assert "not batchable: ReduceSum takes the rows together; measured: no difference" in report.reason
    rows = np.arange(16, dtype=np.float32).reshape(4, 4)
    folder = record(tmp_path, {"x": rows}, {"y": rows})
    code, (report,) = reports("--model", mixing_models.loud_rows_count_double(), "--parity", folder)
    assert (code, report.passed, report.batchable) == (0, True, False)


def test_without_vectors_it_says_what_it_did_not_measure() -> None:
    code, (report,) = reports("--model", models.iris())
    assert (code, report.passed, report.rows, report.max_abs_error) == (0, True, 0, None)
    assert "no recorded vectors" in report.reason
    assert report.latency is not None
    assert report.batchable


@pytest.mark.parametrize(
    ("build", "batchable"),
    [
        (models.fixed_batch, False),
        (models.many_kinds, False),
        (models.echo_text, True),
        (models.iris_with_maps, True),
        (models.endless, False),
    ],
)
def test_every_trap_can_be_run_on_made_up_inputs(build: Any, batchable: bool) -> None:
    code, (report,) = reports("--model", build())
    assert (code, report.passed, report.batchable) == (0, True, batchable), report.reason
    assert report.latency is not None, report.reason


def test_dangerous_models_do_not_pass(tmp_path: Path) -> None:
    for file, says in (
        (models.with_external_data("prove-escape", "../../etc/passwd"), "lies outside its folder"),
        (models.with_custom_operator(), "operators that are not built in"),
    ):
        code, (report,) = reports("--model", file)
        assert (code, report.passed) == (1, False)
        assert says in report.reason
        assert "Traceback" not in report.reason


@pytest.mark.parametrize(
    ("inputs", "outputs", "says"),
    [
        ({"X": np.zeros((3, 4), np.float32)}, {"other": np.zeros(3)}, "the model has no output 'other'"),
        ({"Z": np.zeros((3, 4), np.float32)}, {"label": np.zeros(3)}, "no input named 'Z'"),
        ({"X": np.zeros((3, 4), np.float64)}, {"label": np.zeros(3)}, "tensor(double)"),
        ({"X": np.zeros((3, 5), np.float32)}, {"label": np.zeros(3)}, "Got: 5 Expected: 4"),
        ({"X": np.zeros((3, 4), np.float32)}, {"label": np.zeros((3, 9))}, "has shape"),
    ],
)
def test_vectors_that_do_not_suit_the_model_do_not_pass(tmp_path: Path, inputs: Any, outputs: Any, says: str) -> None:
    code, (report,) = reports("--model", models.iris(), "--parity", record(tmp_path, inputs, outputs))
    assert (code, report.passed) == (1, False)
    assert says in report.reason


def test_memory_is_told_because_the_size_of_the_file_does_not_say_it() -> None:
    file = real_models.real_model(real_models.MINILM)
    code, (report,) = reports("--model", file)
    assert (code, report.passed, report.batchable) == (0, True, True)
    assert report.file_bytes == file.stat().st_size
    # 23 MB of quantised weights are unpacked for the processor.
    assert 2 * report.file_bytes < report.memory_bytes < report.peak_memory_bytes
    code, (tiny,) = reports("--model", models.echo())
    assert tiny.memory_bytes < report.memory_bytes / 2


def test_the_provider_taken_and_the_reasons_against_others_are_told() -> None:
    code, (report,) = reports("--model", models.echo(), "--providers", "tensorrt,cuda:device_id=0,cpu")
    assert (code, report.provider) == (0, "CPUExecutionProvider")
    assert [refusal.split(":")[0] for refusal in report.refusals] == ["tensorrt", "cuda"]
    code, (report,) = reports("--model", models.echo(), "--providers", "cuda")
    assert (code, report.passed) == (1, False)
    assert "not in this build of onnxruntime" in report.reason
    assert prove("--model", models.echo(), "--providers", "gpu")[0] == 2


@pytest.mark.parametrize(
    ("which", "batchable"),
    [(real_models.SILERO, False), (real_models.ATSPM_HEAD, False), (real_models.ATSPM_TREES, True), (real_models.SWIFT, False)],
    ids=str,
)
def test_real_models_can_be_proven_without_recorded_inputs(which: tuple[str, str], batchable: bool) -> None:
    code, (report,) = reports("--model", real_models.real_model(which))
    assert (code, report.passed, report.batchable) == (0, True, batchable)
    assert report.latency is not None, report.reason


def test_describe_tells_what_a_packager_needs() -> None:
    code, output, _ = prove("--describe", "--model", models.shuttle_anomalies()[0])
    facts = json.loads(output)
    assert code == 0
    assert msgspec.convert(facts["inputs"], list[TensorSpec]) == [TensorSpec(name="X", datatype="FP32", shape=[-1, 9])]
    assert [spec["name"] for spec in facts["outputs"]] == ["label", "scores"]
    assert facts["opsets"] == {"": 17, "ai.onnx.ml": 3}
    assert facts["ir_version"] == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--image --model is required"),
        (("--model", "a", "--image", "b"), "not allowed with"),
        (("--model", "none.onnx"), "there is no such file"),
        (("--image", "/"), "hedgerow.json"),
        (("--describe", "--image", "."), "--describe needs --model"),
    ],
)
def test_wrong_usage_has_code_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    code, output, errors = prove(*arguments, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert says in errors
    assert "Traceback" not in errors
