"""ONNX artifacts, built by the process that the controller starts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.document import decode
from hedgerow.contracts.image import ScoringConfig
from hedgerow.contracts.names import (
    MEDIA_MODEL_CONFIG,
    MEDIA_MODEL_MANIFEST,
    MEDIA_MODEL_WEIGHT_TAR,
    MEDIA_OCI_MANIFEST,
    MEDIA_SCORING_CONFIG,
)
from packager.verify.unpack import unpack_layers
from tests.packager_builders import (
    blob_path,
    layer_names,
    layout_manifest,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_onnx_model,
)
from tests.packager_process import write_order


def test_an_artifact_is_an_oci_layout_in_modelpack_types(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    built = run_packager(request_for("onnx", [model], tmp_path), tmp_path)
    assert built.exit_code == 0, built.stderr
    layout, result = tmp_path / "out", built.result
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    manifest = layout_manifest(layout)
    assert manifest["mediaType"] == result.media_type == MEDIA_OCI_MANIFEST
    assert manifest["artifactType"] == MEDIA_MODEL_MANIFEST
    assert manifest["config"]["mediaType"] == MEDIA_MODEL_CONFIG
    assert [layer["mediaType"] for layer in manifest["layers"]] == [MEDIA_MODEL_WEIGHT_TAR, MEDIA_SCORING_CONFIG]
    config = read_json_blob(layout, manifest["config"]["digest"])
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    parts = [result.digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    assert result.size_bytes == sum(blob_path(layout, digest).stat().st_size for digest in parts)
    assert [platform.platform for platform in result.platforms] == ["any"]
    assert [line.progress for line in built.lines] == sorted(line.progress or 0 for line in built.lines)


def test_its_layers_together_are_the_folder_that_the_runtime_serves(tmp_path: Path) -> None:
    folder = write_onnx_model(tmp_path / "m")
    run_packager(request_for("onnx", [model_of(folder)], tmp_path, variables={"A": "b"}), tmp_path)
    layers = layout_manifest(tmp_path / "out")["layers"]
    root = tmp_path / "unpacked"
    root.mkdir()
    unpack_layers((blob_path(tmp_path / "out", layer["digest"]) for layer in layers), root)
    config = decode((root / "hedgerow.json").read_bytes(), ScoringConfig)
    (served,) = config.models
    assert served.entry is not None
    assert (root / served.entry).read_bytes() == (folder / "model.onnx").read_bytes()
    assert (root / served.path / "parity.npz").read_bytes() == (folder / "parity.npz").read_bytes()
    assert config.variables == {"A": "b"}


def test_same_inputs_same_digest_wherever_whenever_and_by_whomever(tmp_path: Path) -> None:
    first = write_onnx_model(tmp_path / "one" / "m")
    second = tmp_path / "two" / "deeper" / "m"
    # Written in another order, at another time, with other modes; the request is another image version as well.
    second.mkdir(parents=True)
    for path in sorted(first.iterdir(), reverse=True):
        shutil.copyfile(path, second / path.name)
        (second / path.name).chmod(0o700)
        os.utime(second / path.name, (1, 1))
    plain = run_packager(request_for("onnx", [model_of(first)], tmp_path / "one"), tmp_path / "one")
    changed = request_for("onnx", [model_of(second)], tmp_path / "two", name="other", version=7)
    other = run_packager(changed, tmp_path / "two", {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "3"}, umask=0o077)
    assert plain.result.digest == other.result.digest


def test_a_changed_model_changes_only_its_own_layer(tmp_path: Path) -> None:
    stays, before = write_onnx_model(tmp_path / "stays"), write_onnx_model(tmp_path / "before", add=1.0, parity=False)
    after = write_onnx_model(tmp_path / "after", add=2.0, parity=False)

    def layers(changing: Path, where: str) -> list[str]:
        models = [model_of(changing, "changing"), model_of(stays, "stays")]
        assert run_packager(request_for("onnx", models, tmp_path / where), tmp_path / where).exit_code == 0
        return [layer["digest"] for layer in layout_manifest(tmp_path / where / "out")["layers"]]

    old, new = layers(before, "a"), layers(after, "b")
    assert [one == other for one, other in zip(old, new, strict=True)] == [False, True, False]
    assert layer_names(tmp_path / "a" / "out", old[2]) == ["hedgerow.json"]  # it names the model's digest


@pytest.mark.parametrize(
    ("changes", "code", "names"),
    [
        ({"kind": "fpga"}, "stages_wrong", "has no stage"),
        ({"models": []}, "nothing_to_pack", "image"),
        ({"script": "/x/score.py"}, "onnx_models_only", "scoring script"),
        ({"out": "/"}, "out_not_empty", "/"),
    ],
)
def test_a_build_that_cannot_be_says_so_in_its_last_line(tmp_path: Path, changes: dict[str, Any], code: str, names: str) -> None:
    models = [model_of(write_onnx_model(tmp_path / "m"))]
    built = run_packager(request_for(**{"kind": "onnx", "models": models, "folder": tmp_path, **changes}), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, code)
    assert names in built.problem_text


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"{", "invalid_document"),
        (b"[]", "invalid_document"),
        (b'{"name":"UPPER"}', "invalid_document"),
        (b'{"schema_version":99}', "document_too_new"),
    ],
)
def test_a_request_that_is_none_is_a_usage_error(tmp_path: Path, request_bytes: bytes, code: str) -> None:
    built = run_packager(request_bytes, tmp_path)
    assert (built.exit_code, built.problem_code) == (2, code)


@pytest.mark.parametrize("arguments", [[], ["build"], ["bild", "x"], ["build", "/nonexistent.json"]])
def test_a_wrong_command_is_a_usage_error(arguments: list[str]) -> None:
    argv = [sys.executable, "-P", "-m", "packager", *arguments]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 2


def test_a_model_that_is_not_what_was_registered_is_refused(tmp_path: Path) -> None:
    folder = write_onnx_model(tmp_path / "m")
    model = model_of(folder)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    built = run_packager(request_for("onnx", [model], tmp_path), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, "model_changed")
    assert "adder:1" in built.problem_text
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_link_out_of_the_model_folder_is_refused(tmp_path: Path) -> None:
    folder = write_onnx_model(tmp_path / "m")
    model = model_of(folder)
    (folder / "labels.txt").symlink_to("/etc/passwd")
    built = run_packager(request_for("onnx", [model], tmp_path), tmp_path)
    assert built.problem_code == "link_outside"
    assert "labels.txt" in built.problem_text


def test_a_large_model_is_never_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(400_000_000)
    # RLIMIT_DATA bounds what the process may allocate; a Python that imports the packager needs about 40 MB.
    done = subprocess.run(
        write_order("build", request_for("onnx", [model_of(folder)], tmp_path), tmp_path),
        capture_output=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (150_000_000, 150_000_000)),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_full_disk_is_said_and_leaves_a_cache_that_works(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(3_000_000))
    request = request_for("onnx", [model_of(folder)], tmp_path)
    argv = write_order("build", request, tmp_path)
    limited = subprocess.run(
        argv,
        capture_output=True,
        timeout=60,
        check=False,
        # A file that may not grow is what a full quota looks like to the writer; Python ignores SIGXFSZ.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert limited.returncode == 1
    assert json.loads(limited.stdout.splitlines()[-1])["problem"]["code"] == "disk_full"
    left = [path for path in (*(tmp_path / "out").rglob("*"), *(tmp_path / "cache").rglob("*")) if path.is_file()]
    assert [path.name for path in left] == [".lock"]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_proven_artifact_says_what_was_measured(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    built = run_packager(request_for("onnx", [model], tmp_path, verify=True), tmp_path)
    assert built.exit_code == 0, built.lines[-1]
    found = built.result.verification
    assert (found.state, found.rows, found.max_abs_error) == ("passed", 4, 0.0)
    assert found.batchable == ["adder"]
    # What was measured is beside the image, not in it.
    skipped = run_packager(request_for("onnx", [model], tmp_path / "again"), tmp_path / "again")
    assert skipped.result.digest == built.result.digest
    assert skipped.result.verification.state == "skipped"


def test_a_model_that_answers_differently_is_not_built(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m", wrong_by=0.5))
    built = run_packager(request_for("onnx", [model], tmp_path, verify=True), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, "verification_failed")
    assert "0.5" in built.problem_text
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_file_that_is_no_model_is_not_built(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no onnx at all")
    built = run_packager(request_for("onnx", [model_of(folder)], tmp_path, verify=True), tmp_path)
    assert (built.exit_code, built.problem_code) == (1, "verification_failed")


def test_without_vectors_the_reason_says_that_nothing_was_compared(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m", parity=False))
    found = run_packager(request_for("onnx", [model], tmp_path, verify=True), tmp_path).result.verification
    assert (found.state, found.rows) == ("passed", 0)
    assert "no parity vectors came with adder" in found.reason
