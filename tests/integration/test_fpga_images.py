"""Images of kind fpga: built by the real packager, served by the real runtime, and answering as their three stages do by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hedgerow.contracts.build import BuildModel
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.image import ScoringConfig, StageName
from hedgerow.contracts.names import LABEL_IMAGE_KIND, MEDIA_MODEL_MANIFEST
from hedgerow.contracts.proof import ParityIndex, ProofReport
from hedgerow.safe_tar import unpack_tar
from tests import staged_models
from tests.packager_builders import Built, blob_path, model_of, request_for, run_packager
from tests.scoring_server import ScoringServer
from tests.staged_models import Folders, by_hand, pixels


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return staged_models.write_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def image(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, as a device or the service unpacks them."""
    place = tmp_path_factory.mktemp("image")
    built = run_packager(request_for("fpga", three(folders), place), place)
    assert built.exit_code == 0, built.stderr
    return unpacked(place / "out", built, place / "files")


@pytest.fixture(scope="module")
def server(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    with ScoringServer(tmp_path_factory.mktemp("server"), "--image", image) as running:
        yield running


def staged(stage: StageName, folder: Path, name: str | None = None) -> BuildModel:
    return msgspec.structs.replace(model_of(folder, name or stage), inputs=[], outputs=[], stage=stage)


def three(folders: Folders) -> list[BuildModel]:
    """Not in their order, and the net under a name of its own."""
    return [staged("post", folders.post), staged("accelerated", folders.accelerated, "net"), staged("pre", folders.pre)]


def manifest_of(layout: Path, built: Built) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blob_path(layout, built.result.digest).read_bytes())
    return found


def unpacked(layout: Path, built: Built, target: Path) -> Path:
    target.mkdir()
    for layer in manifest_of(layout, built)["layers"]:
        with blob_path(layout, layer["digest"]).open("rb") as archive:
            unpack_tar(archive, target, name=layer["digest"])
    return target


def proven(image: Path) -> tuple[int, ProofReport, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runtime.prove", "--image", str(image)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (report,) = msgspec.json.decode(done.stdout, type=list[ProofReport])
    return done.returncode, report, done.stderr


def record(folder: Path, images: np.ndarray[Any, Any], answers: dict[str, Any]) -> None:
    np.savez(folder / "parity.npz", input_0=images, **{f"output_{n}": answer for n, answer in enumerate(answers.values())})
    (folder / "parity.json").write_bytes(encode(ParityIndex(inputs=["pixels"], outputs=list(answers), atol=1e-5)))


def test_the_image_is_an_artifact_that_says_what_it_is(folders: Folders, tmp_path: Path) -> None:
    built = run_packager(request_for("fpga", three(folders), tmp_path, verify=True), tmp_path)
    manifest = manifest_of(tmp_path / "out", built)
    assert manifest["artifactType"] == MEDIA_MODEL_MANIFEST
    assert manifest["annotations"] == {LABEL_IMAGE_KIND: "fpga"}
    assert [one.platform for one in built.result.platforms] == ["any"]
    assert built.result.verification.state == "passed"
    assert "net ran on CPUExecutionProvider: vitisai: stage accelerated: not in this build" in built.result.verification.reason
    config = decode((unpacked(tmp_path / "out", built, tmp_path / "files") / "hedgerow.json").read_bytes(), ScoringConfig)
    assert [(one.name, one.model, one.providers, one.feeds) for one in config.stages] == [
        ("pre", "pre", ["cpu"], {}),
        ("accelerated", "net", ["vitisai", "cpu"], {"scaled": "scaled"}),
        ("post", "post", ["cpu"], {"logits": "logits"}),
    ]


def test_the_same_stages_have_the_same_digest(folders: Folders, tmp_path: Path) -> None:
    one = run_packager(request_for("fpga", three(folders), tmp_path / "one"), tmp_path / "one")
    other = run_packager(request_for("fpga", three(folders)[::-1], tmp_path / "other"), tmp_path / "other")
    assert one.result.digest == other.result.digest


def test_a_request_goes_through_all_stages(server: ScoringServer, folders: Folders) -> None:
    images = pixels(5, seed=8)
    expected = by_hand(folders, images)
    body = {"inputs": [{"name": "pixels", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}]}
    answered = server.infer("net", body)
    assert answered.status_code == 200, answered.text
    outputs = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answered.json()["outputs"]}
    np.testing.assert_array_equal(outputs["label"], expected["label"])
    np.testing.assert_allclose(outputs["scores"], expected["scores"], rtol=1e-5)
    scored = server.score({"data": images.tolist()})
    assert scored.status_code == 200, scored.text
    np.testing.assert_array_equal(scored.json()["label"], expected["label"])


def test_one_output_can_be_asked_for(server: ScoringServer) -> None:
    images = pixels(1)
    tensor = {"name": "pixels", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    answered = server.infer("net", {"inputs": [tensor], "outputs": [{"name": "label"}]})
    assert [one["name"] for one in answered.json()["outputs"]] == ["label"]


def test_metadata_is_that_of_the_whole_and_says_where_it_runs(server: ScoringServer) -> None:
    told = server.get("/v2/models/net").json()
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["inputs"]] == [("pixels", "UINT8", [-1, 8, 8, 3])]
    assert [one["name"] for one in told["outputs"]] == ["label", "scores"]
    assert told["parameters"]["stages"] == "pre on cpu, accelerated on cpu, post on cpu"
    assert told["parameters"]["accelerator"].startswith("none, vitisai: stage accelerated: not in this build of onnxruntime")
    log = server.process.log.read_text()
    assert log.count("model net runs without its accelerator") == len(server.workers())


def test_what_does_not_fit_is_refused_and_harms_nobody(server: ScoringServer) -> None:
    images = np.zeros((1, 4, 8, 3), dtype=np.uint8)
    tensor = {"name": "pixels", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    refused = server.infer("net", {"inputs": [tensor]})
    assert refused.status_code == 400, refused.text
    assert server.infer("pre", {"inputs": [tensor]}).status_code == 404, "stages are no models of their own"
    assert server.score({"data": pixels(1).tolist()}).status_code == 200


def test_the_proof_says_what_it_ran_on_and_whose_vectors_there_were(folders: Folders, image: Path, tmp_path: Path) -> None:
    code, report, log = proven(image)
    assert (code, report.passed, report.model, report.rows) == (0, True, "net", 0)
    assert report.provider == "CPUExecutionProvider"
    assert [refusal.split(":")[0] for refusal in report.refusals] == ["vitisai"]
    assert report.batchable
    assert "runs without its accelerator" in log
    assert report.file_bytes == sum(
        (folder / "model.onnx").stat().st_size for folder in (folders.pre, folders.accelerated, folders.post)
    )
    # With vectors of the whole beside the first stage.
    first = shutil.copytree(folders.pre, tmp_path / "pre")
    images = pixels(6, seed=5)
    record(first, images, by_hand(folders, images))
    models = [staged("pre", first), *three(folders)[:2]]
    built = run_packager(request_for("fpga", models, tmp_path / "b", verify=True), tmp_path / "b")
    assert built.result.verification.rows == 6
    code, report, _ = proven(unpacked(tmp_path / "b" / "out", built, tmp_path / "files"))
    assert (code, report.rows, report.passed) == (0, 6, True)


def test_answers_of_all_stages_that_differ_are_not_called_built(folders: Folders, tmp_path: Path) -> None:
    last = shutil.copytree(folders.post, tmp_path / "post")
    images = pixels(4, seed=6)
    answers = by_hand(folders, images)
    record(last, images, {"scores": answers["scores"] + 0.2})
    models = [staged("post", last), *three(folders)[1:]]
    built = run_packager(request_for("fpga", models, tmp_path, verify=True), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, "verification_failed")


def test_a_net_that_computes_in_floats_is_no_accelerated_stage(folders: Folders, tmp_path: Path) -> None:
    models = [staged("accelerated", folders.float_net, "net"), staged("post", folders.post)]
    built = run_packager(request_for("fpga", models, tmp_path), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, "stage_not_quantized")
    assert "3 of its 3 convolutions and matrix products" in built.problem_text
    assert "--quantize static" in built.problem_text


def test_stages_that_do_not_meet_are_named_both(folders: Folders, tmp_path: Path) -> None:
    other = tmp_path / "small"
    other.mkdir()
    staged_models.write_pre(other / "model.onnx", side=6)
    built = run_packager(request_for("fpga", [staged("pre", other), *three(folders)[:2]], tmp_path), tmp_path)
    assert built.problem_code == "stages_do_not_fit"
    assert "pre (pre:1)" in built.problem_text
    assert "accelerated (net:1)" in built.problem_text
    assert "scaled FP32[?,3,6,6]" in built.problem_text


def test_outputs_of_another_name_meet_by_their_place(folders: Folders, tmp_path: Path) -> None:
    other = tmp_path / "pre"
    other.mkdir()
    staged_models.write_pre(other / "model.onnx", output="planes_of_pixels")
    built = run_packager(
        request_for("fpga", [staged("pre", other), *three(folders)[:2]], tmp_path / "b", verify=True), tmp_path / "b"
    )
    assert built.exit_code == 0, built.stderr
    with ScoringServer(tmp_path / "s", "--image", unpacked(tmp_path / "b" / "out", built, tmp_path / "files")) as running:
        images = pixels(2, seed=4)
        found = running.score({"data": images.tolist()}).json()
    np.testing.assert_array_equal(found["label"], by_hand(folders, images)["label"])


def test_what_is_no_onnx_file_cannot_be_a_stage(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(b"no such thing")
    built = run_packager(request_for("fpga", [staged("accelerated", tmp_path / "m")], tmp_path), tmp_path)
    assert built.problem_code == "stage_unreadable"
    assert "it is not an ONNX file" in built.problem_text


def test_describe_tells_whether_a_net_is_quantised(folders: Folders) -> None:
    def described(folder: Path) -> dict[str, Any]:
        argv = [sys.executable, "-P", "-m", "runtime.prove", "--describe", "--model", str(folder / "model.onnx")]
        found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, timeout=60, check=True).stdout)
        return found

    plain, quantized = described(folders.float_net), described(folders.accelerated)
    assert (plain["compute"], plain["not_quantized"]) == (3, ["c1", "c2", "logits"])
    assert plain["operators"]["Conv"] == 2
    assert (quantized["compute"], quantized["not_quantized"]) == (3, [])
    assert quantized["operators"]["QuantizeLinear"] > 0
