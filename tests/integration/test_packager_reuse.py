"""Equal builds: known by their plan, wherever and by whomever they are made; and what is remembered never spoils one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.build import BuildRequest, BuildResult, ProgressLine
from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.document import convert, decode, digest_of
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM, ARTIFACT_VERIFICATION, MEDIA_OCI_LAYER_GZIP
from tests.packager_builders import (
    Built,
    blob_path,
    layout_manifest,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_base_archive,
    write_onnx_model,
    write_runtime_wheels,
    write_wheel,
)
from tests.packager_process import write_order

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_runtime_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    """A model, a script and a base of this test, and a cache for its builds."""
    model = write_onnx_model(tmp_path / "model")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    base = write_base_archive(tmp_path / "base.tar")
    return {"model": model, "source": tmp_path / "source", "base": base, "cache": tmp_path / "cache"}


def request(folder: Path, places: dict[str, Any], **changes: Any) -> BuildRequest:
    fixed = {"base": f"docker-archive:{places['base']}", "cache": str(places["cache"])}
    script = {"script": "score.py", "source": str(places["source"])}
    return request_for("docker", [model_of(places["model"])], folder, **{**fixed, **script, **changes})


def build(folder: Path, places: dict[str, Any], wheels: dict[str, str], **changes: Any) -> Built:
    built = run_packager(request(folder, places, **changes), folder, wheels)
    assert built.exit_code == 0, built.stderr
    return built


def tree(layout: Path) -> dict[str, bytes]:
    return {path.relative_to(layout).as_posix(): path.read_bytes() for path in layout.rglob("*") if path.is_file()}


def test_an_unchanged_build_is_linked_together_again(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", places, wheels).result
    # The second one has no index to ask, no wheels to install: everything is known.
    again = run_packager(request(tmp_path / "b", places), tmp_path / "b", {"UV_OFFLINE": "1", "UV_DEFAULT_INDEX": "file:///none"})
    assert again.exit_code == 0, again.stderr
    assert (first.reused, again.result.reused) == (False, True)
    assert again.result.digest == first.digest
    assert again.result.plan_key == first.plan_key
    assert tree(tmp_path / "a" / "out") == tree(tmp_path / "b" / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"variables": {"A": "1"}},
        {"compression": "zstd"},
        {"script": None, "source": None},
    ],
    ids=str,
)
def test_what_changes_the_image_changes_its_key(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str], change: dict[str, Any]
) -> None:
    first = build(tmp_path / "a", places, wheels).result
    second = build(tmp_path / "b", places, wheels, **change).result
    assert second.plan_key != first.plan_key
    assert (second.reused, second.digest == first.digest) == (False, False)


def test_the_patch_version_of_python_is_the_base_s(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", places, wheels).result
    second = build(tmp_path / "b", places, wheels, python_version="3.11.9").result
    assert (second.reused, second.digest) == (True, first.digest)


def test_a_script_that_changed_is_packed_anew(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    build(tmp_path / "a", places, wheels)
    (places["source"] / "score.py").write_text("def init(): pass\ndef run(data): return 2\n")
    second = build(tmp_path / "b", places, wheels).result
    assert not second.reused
    old, new = (layout_manifest(tmp_path / name / "out")["layers"] for name in "ab")
    assert [place for place, (one, other) in enumerate(zip(old, new, strict=True)) if one != other] == [len(new) - 2]


def test_rebuilt_everything_is_made_again_and_equal(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", places, wheels).result
    second = build(tmp_path / "b", places, wheels, rebuild=True).result
    assert (second.reused, second.digest) == (False, first.digest)


def test_a_damaged_blob_is_made_again(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", places, wheels).result
    for blob in (places["cache"] / "blobs" / "sha256").iterdir():
        damaged = bytearray(blob.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        blob.unlink()
        blob.write_bytes(damaged)
    for name, reused in (("b", False), ("c", True)):
        again = build(tmp_path / name, places, wheels).result
        assert (again.reused, again.digest) == (reused, first.digest)
        for blob in (tmp_path / name / "out" / "blobs" / "sha256").iterdir():
            assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"


def test_a_lock_stays_until_an_upgrade_is_asked_for(tmp_path: Path, places: dict[str, Any]) -> None:
    wheels = write_runtime_wheels(tmp_path / "wheels")
    first = build(tmp_path / "a", places, wheels).result
    write_wheel(tmp_path / "wheels", "flask", "99.1")
    assert build(tmp_path / "b", places, wheels).result.reused
    upgraded = build(tmp_path / "c", places, wheels, upgrade=True).result
    assert upgraded.lock_digest != first.lock_digest
    assert build(tmp_path / "d", places, wheels).result.digest == upgraded.digest, "the new lock is the one that is kept"


def test_beyond_its_limit_the_cache_drops_what_was_used_longest_ago(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]
) -> None:
    build(tmp_path / "a", places, wheels)
    long_ago = 1_600_000_000
    before = {path.name for path in (places["cache"] / "blobs" / "sha256").iterdir()}
    for record in (places["cache"] / "records" / "checked").iterdir():
        os.utime(record, (long_ago, long_ago))
    build(tmp_path / "b", places, {**wheels, "HEDGEROW_LAYER_CACHE_BYTES": "1"}, variables={"A": "1"})
    after = {path.name for path in (places["cache"] / "blobs" / "sha256").iterdir()}
    used_by_b = {path.name for path in (tmp_path / "b" / "out" / "blobs" / "sha256").iterdir()}
    assert before - after, "what only the first build used went"
    assert used_by_b <= after, "what was used today stayed"
    assert build(tmp_path / "c", places, wheels).result.digest, "and is made again when it is wanted"


def test_from_another_clone_with_other_habits_it_is_the_same_digest(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]
) -> None:
    (places["source"] / "data").mkdir()
    (places["source"] / "data" / "grün.txt").write_text("ü")
    results = []
    habits = (
        # Without UTF-8 for file names, as under a locale with another character set.
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "UTC", "PYTHONHASHSEED": "1"},
        {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": "1700000000"},
    )
    for number, habit in enumerate(habits):
        clone = tmp_path / f"clone-{number}" / ("deep/" * number)
        for package in ("hedgerow", "runtime", "packager"):
            shutil.copytree(TOP / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
        order = request(tmp_path / f"x{number}", places, cache=str(clone / "cache"))
        results.append(_build_in(clone, order, {**wheels, **habit}, umask=(0o022, 0o077)[number]))
    assert results[0].digest == results[1].digest
    assert results[0].plan_key == results[1].plan_key
    reports = [{one.artifact_type: one.digest for one in result.referrers} for result in results]
    for kind in (ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM):
        assert reports[0][kind] == reports[1][kind]


def _build_in(clone: Path, order: BuildRequest, environment: dict[str, str], *, umask: int) -> BuildResult:
    """The packager of another clone; the package that is installed here must not be the one that runs."""
    done = subprocess.run(
        write_order("build", order, clone),
        capture_output=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(clone), "DOCKER_HOST": "unix:///none.sock", **environment},
        umask=umask,
        timeout=170,
        check=False,
    )
    last = decode(done.stdout.splitlines()[-1], ProgressLine)
    assert last.result is not None, (last, done.stderr)
    return convert(last.result, BuildResult)


def test_the_report_says_what_is_in_every_layer(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    result = build(tmp_path / "a", places, wheels).result
    layout = tmp_path / "a" / "out"
    assert sorted(one.artifact_type for one in result.referrers if one.subject == result.digest) == sorted(
        {ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM, ARTIFACT_VERIFICATION}
    )
    report = _report(layout, result)
    manifest = layout_manifest(layout)
    (platform,) = report.platforms
    assert [layer.digest for layer in platform.layers] == [layer["digest"] for layer in manifest["layers"]]
    assert report.plan_key == result.plan_key
    assert {"kind", "model adder", "base linux/amd64", "lock linux/amd64", "script score.py"} <= set(report.inputs)
    for layer in platform.layers[1:]:
        with tarfile.open(blob_path(layout, layer.digest)) as tar:
            inside = {member.name: _content(tar, member) for member in tar if member.isreg()}
        assert {file.path: file.digest for file in layer.files} == inside, layer.purpose
    origins = {file.origin for layer in platform.layers for file in layer.files}
    assert {"numpy 99.0", "model adder:1", "source", "scoring configuration"} <= origins


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member)
    assert content is not None
    return digest_of(content.read())


def _report(layout: Path, result: BuildResult) -> BuildReport:
    (found,) = (one for one in result.referrers if one.artifact_type == ARTIFACT_BUILD_REPORT)
    manifest = read_json_blob(layout, found.digest)
    assert manifest["subject"]["digest"] == result.digest
    listed = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert found.digest in {one["digest"] for one in listed}
    return decode(blob_path(layout, manifest["layers"][0]["digest"]).read_bytes(), BuildReport)


def test_where_a_script_was_on_this_machine_is_in_no_report(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]
) -> None:
    script = {"script": str(places["source"] / "score.py"), "source": None}
    here = build(tmp_path / "a", places, wheels, **script).result
    there = shutil.copytree(places["source"], tmp_path / "elsewhere")
    again = build(tmp_path / "b", places, wheels, script=str(there / "score.py"), source=None).result
    assert (again.reused, again.plan_key) == (True, here.plan_key)
    for path in (tmp_path / "a" / "out" / "blobs" / "sha256").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_a_report_does_not_depend_on_what_was_built_before(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]
) -> None:
    shutil.copy(places["source"] / "score.py", places["source"] / "other.py")
    build(tmp_path / "a", places, wheels)
    after = build(tmp_path / "b", places, wheels, script="other.py").result
    alone = build(tmp_path / "c", places, wheels, script="other.py", cache=str(tmp_path / "fresh")).result
    assert after.plan_key == alone.plan_key
    assert after.referrers[0] == alone.referrers[0]


def test_the_same_base_under_another_name_is_told_by_that_name(
    tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]
) -> None:
    build(tmp_path / "a", places, wheels)
    moved = shutil.copy(places["base"], tmp_path / "moved.tar")
    again = build(tmp_path / "b", places, wheels, base=f"docker-archive:{moved}").result
    assert (again.reused, again.base) == (True, f"docker-archive:{moved}")


def test_one_base_packed_in_two_ways_is_one_image(tmp_path: Path, places: dict[str, Any], wheels: dict[str, str]) -> None:
    plain = build(tmp_path / "a", places, wheels).result
    other = write_base_archive(tmp_path / "packed.tar", gzip=True)
    packed = build(tmp_path / "b", {**places, "base": other}, wheels, cache=str(tmp_path / "fresh")).result
    assert (packed.base_digest, packed.plan_key, packed.digest) == (plain.base_digest, plain.plan_key, plain.digest)
    of_base = layout_manifest(tmp_path / "a" / "out")["layers"][0]
    assert of_base["mediaType"] == MEDIA_OCI_LAYER_GZIP
