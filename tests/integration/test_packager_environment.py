"""Docker images built without an engine and without a network: stand-in wheels, stand-in bases, the real uv."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_LAYER_GZIP
from tests.packager_builders import (
    Built,
    blob_path,
    docker_archive,
    layer_names,
    layout_manifest,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_base_archive,
    write_base_layout,
    write_onnx_model,
    write_runtime_wheels,
    write_wheel,
)
from tests.packager_process import write_order
from tests.waiting import wait_for

# A uv that may neither use the network nor find anything in a cache.
OFFLINE = {"UV_OFFLINE": "1", "UV_CACHE_DIR": "/nonexistent/cache"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_runtime_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx_model(tmp_path / "model")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base_archive(tmp_path / "base.tar")


def build(folder: Path, model: Path, base: Path | str, environment: dict[str, str], /, **changes: Any) -> Built:
    """Build a docker image into ``folder`` with the cache beside the model, shared by all builds of one test."""
    reference = base if isinstance(base, str) else f"docker-archive:{base}"
    plain = {"base": reference, "cache": str(model.parent / "cache")}
    return run_packager(request_for("docker", [model_of(model)], folder, **{**plain, **changes}), folder, environment)


def layers_of(layout: Path) -> list[dict[str, Any]]:
    layers = layout_manifest(layout)["layers"]
    assert isinstance(layers, list)
    return layers


def test_layers_stand_in_the_order_of_how_seldom_they_change(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    built = build(tmp_path, model, base, wheels)
    assert built.exit_code == 0, built.stderr
    layout = tmp_path / "out"
    manifest = layout_manifest(layout)
    config = read_json_blob(layout, manifest["config"]["digest"])
    made_by = [line["created_by"] for line in config["history"]]
    assert made_by[1:] == [
        "hedgerow: wheel numpy 99.0",
        "hedgerow: 7 small wheels",
        "hedgerow: hedgerow runtime",
        "hedgerow: model adder:1",
        "hedgerow: scoring configuration",
    ]
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == len(made_by)
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        data = blob_path(layout, layer["digest"]).read_bytes()
        plain = gzip.decompress(data) if layer["mediaType"] == MEDIA_OCI_LAYER_GZIP else data
        assert "sha256:" + hashlib.sha256(plain).hexdigest() == diff_id
    assert built.result.base_digest is not None
    assert built.result.lock_digest is not None


def test_nothing_of_the_building_machine_is_in_the_wheels(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    build(tmp_path, model, base, wheels)
    own = layers_of(tmp_path / "out")[1:]
    names = {name for layer in own for name in layer_names(tmp_path / "out", layer["digest"])}
    assert "opt/hedgerow-site/flask/__init__.py" in names
    assert "opt/hedgerow-site/flask-99.0.dist-info/METADATA" in names
    assert "opt/hedgerow-site/runtime/__init__.py" in names
    assert "opt/hedgerow-site/hedgerow/errors.py" in names
    assert "opt/hedgerow/hedgerow.json" in names
    host_files = ("/RECORD", "/INSTALLER", "/REQUESTED", ".pyc", ".lock")
    assert [name for name in names if name.endswith(host_files) or "/bin/" in name] == []


def test_same_inputs_same_digest_with_another_cache_in_another_folder(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(model, elsewhere / "copy")
    shutil.copyfile(base, elsewhere / "other.tar")
    first = build(tmp_path / "a", model, base, wheels).result
    request = request_for("docker", [model_of(elsewhere / "copy")], elsewhere, base=f"docker-archive:{elsewhere}/other.tar")
    second = run_packager(request, elsewhere, {**wheels, "LC_ALL": "C", "TZ": "Asia/Tokyo"}, umask=0o077).result
    assert first.digest == second.digest
    assert first.lock_digest == second.lock_digest


def test_an_unchanged_environment_needs_no_network(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", model, base, wheels)
    base.rename(tmp_path / "moved.tar")
    again = build(tmp_path / "b", model, tmp_path / "moved.tar", OFFLINE)
    assert again.result.digest == first.result.digest


def test_a_changed_model_changes_only_its_layer_and_the_configuration(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    build(tmp_path / "a", model, base, wheels)
    other = write_onnx_model(tmp_path / "other" / "model", add=2.0)
    build(tmp_path / "b", other, base, wheels, cache=str(tmp_path / "cache"))
    same = [one == two for one, two in zip(layers_of(tmp_path / "a" / "out"), layers_of(tmp_path / "b" / "out"), strict=True)]
    assert same == [True, True, True, True, False, False]


def test_a_damaged_cache_heals_itself(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", model, base, wheels).result
    layer = layers_of(tmp_path / "a" / "out")[2]["digest"]
    cached = blob_path(tmp_path / "cache", layer)
    cached.unlink()
    cached.write_bytes(b"not a layer")
    assert build(tmp_path / "b", model, base, wheels).result.digest == first.digest
    assert blob_path(tmp_path / "b" / "out", layer).read_bytes() != b"not a layer"


def test_requirements_of_the_user_join_those_of_the_runtime(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    mine = tmp_path / "mine"
    write_wheel(mine, "mypackage", "1.2")
    environment = {**wheels, "UV_FIND_LINKS": f"{wheels['UV_FIND_LINKS']},{mine}"}
    built = build(tmp_path, model, base, environment, requirements=["mypackage>=1", "hedgerow[runtime]"])
    assert built.exit_code == 0, built.stderr
    small = layers_of(tmp_path / "out")[2]
    assert "opt/hedgerow-site/mypackage/__init__.py" in layer_names(tmp_path / "out", small["digest"])


def test_a_script_and_its_source_go_in(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (source / "lib" / "registry.py").write_text("")
    built = build(tmp_path, model, base, wheels, script="score.py", source=str(source))
    assert built.exit_code == 0, built.stderr
    names = layer_names(tmp_path / "out", layers_of(tmp_path / "out")[-2]["digest"])
    assert "opt/hedgerow/source/score.py" in names
    assert "opt/hedgerow/source/lib/registry.py" in names
    assert built.result.script_digest is not None


@pytest.mark.parametrize(
    ("file", "code"), [("runtime.py", "reserved_name"), (".env", "secret_in_source"), ("hedgerow/x.py", "reserved_name")]
)
def test_a_source_with_reserved_or_secret_names_is_refused(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str], file: str, code: str
) -> None:
    source = tmp_path / "source"
    (source / file).parent.mkdir(parents=True)
    (source / file).write_text("")
    (source / "score.py").write_text("")
    built = build(tmp_path, model, base, wheels, script=str(source / "score.py"), source=str(source))
    assert (built.exit_code, built.problem_code) == (1, code)
    assert file in built.problem_text


@pytest.mark.parametrize(
    ("changes", "code", "names"),
    [
        ({"requirements": ["nosuchpackage>=1"]}, "environment_unsolvable", "nosuchpackage"),
        ({"requirements": ["numpy<5"]}, "environment_unsolvable", "numpy"),
        ({"requirements": ["--index-url http://x"]}, "requirement_refused", "--index-url"),
        ({"platforms": ["linux/riscv64"]}, "unsupported_platform", "linux/riscv64"),
        ({"base": None}, "base_missing", "docker:TAG"),
        ({"base": "python:3.11"}, "base_unsupported", "python:3.11"),
        ({"base": "docker:python"}, "engine_missing", "docker:python"),
        ({"base": "oci:/nonexistent"}, "base_unreadable", "/nonexistent"),
        ({"base": "docker-archive:/etc/passwd"}, "base_unreadable", "/etc/passwd"),
        ({"python_version": "3.12"}, "base_python", "Python 3.11"),
        ({"python_version": "3.8.10"}, "python_unsupported", "--python 3.11"),
        ({"platforms": ["linux/arm64"]}, "base_platform", "linux/amd64"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str], changes: dict[str, Any], code: str, names: str
) -> None:
    built = build(tmp_path, model, base, wheels, **changes)
    assert (built.exit_code, built.problem_code) == (1, code), built.lines[-1]
    assert names in built.problem_text


def test_a_package_without_a_wheel_is_named(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with tarfile.open(mine / "onlysource-1.0.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("onlysource-1.0/PKG-INFO"), io.BytesIO())
    environment = {**wheels, "UV_FIND_LINKS": f"{wheels['UV_FIND_LINKS']},{mine}"}
    built = build(tmp_path, model, base, environment, requirements=["onlysource"])
    assert built.problem_code == "environment_unsolvable"
    assert "onlysource" in built.problem_text


def test_two_packages_with_one_file_are_named(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    mine = tmp_path / "mine"
    write_wheel(mine, "one", files={"shared.py": b"1"})
    write_wheel(mine, "two", files={"shared.py": b"2"})
    environment = {**wheels, "UV_FIND_LINKS": f"{wheels['UV_FIND_LINKS']},{mine}"}
    built = build(tmp_path, model, base, environment, requirements=["one", "two"])
    assert built.problem_code == "wheels_collide"
    assert "shared.py comes with different content from one and from two" in built.problem_text


def test_the_layers_that_a_manifest_names_stay_as_they_are(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    with tarfile.open(base) as archive:
        archive.extract("abc/layer.tar", tmp_path, filter="data")
    layout = write_base_layout(tmp_path / "layout", tmp_path / "abc" / "layer.tar", "amd64")
    assert build(tmp_path, model, f"oci:{layout}", wheels).exit_code == 0
    assert layers_of(tmp_path / "out")[0] == layers_of(layout)[0]


def test_a_base_whose_layer_is_not_what_its_config_says_is_refused(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]
) -> None:
    damaged = base.read_bytes().replace(b"python3.11", b"python3.99")
    base.write_bytes(damaged)
    built = build(tmp_path, model, base, wheels)
    assert built.problem_code == "base_unreadable"
    assert "not what its config says" in built.problem_text


def test_an_image_of_ours_can_be_a_base_from_its_layout(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    first = build(tmp_path / "a", model, base, wheels).result
    again = build(tmp_path / "b", model, f"oci:{tmp_path / 'a' / 'out'}", wheels)
    assert again.exit_code == 0, again.stderr
    assert again.result.base_digest == first.digest
    below = layers_of(tmp_path / "a" / "out")
    assert layers_of(tmp_path / "b" / "out")[: len(below)] == below


def test_a_corrupt_blob_of_a_layout_is_refused(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    build(tmp_path / "a", model, base, wheels)
    victim = blob_path(tmp_path / "a" / "out", layers_of(tmp_path / "a" / "out")[0]["digest"])
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.unlink()
    victim.write_bytes(data)
    fresh = str(tmp_path / "fresh-cache")
    built = build(tmp_path / "b", model, f"oci:{tmp_path / 'a' / 'out'}", wheels, cache=fresh)
    assert built.problem_code == "blob_corrupt", wheels


def test_two_platforms_make_an_index_and_share_what_is_the_same(tmp_path: Path, model: Path, wheels: dict[str, str]) -> None:
    layouts = {}
    for architecture in ("amd64", "arm64"):
        base = write_base_archive(tmp_path / f"{architecture}.tar", architecture=architecture)
        built = build(tmp_path / architecture, model, base, wheels, platforms=[f"linux/{architecture}"])
        layouts[architecture] = (tmp_path / architecture / "out", built.result)
    both = tmp_path / "both"
    shutil.copytree(layouts["amd64"][0], both)
    shutil.copytree(layouts["arm64"][0], both, dirs_exist_ok=True)
    entries = [
        {"mediaType": found.media_type, "digest": found.digest, "size": 1, "platform": {"os": "linux", "architecture": name}}
        for name, (_, found) in layouts.items()
    ]
    (both / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    built = build(tmp_path / "out2", model, f"oci:{both}", wheels, platforms=["linux/amd64", "linux/arm64"])
    assert built.exit_code == 0, built.lines[-1]
    assert built.result.media_type == MEDIA_OCI_INDEX
    index = layout_manifest(tmp_path / "out2" / "out")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    one, two = (read_json_blob(tmp_path / "out2" / "out", entry["digest"])["layers"] for entry in index["manifests"])
    assert one[-3:] == two[-3:]  # runtime, model, configuration
    again = build(tmp_path / "out3", model, f"oci:{both}", wheels, platforms=["linux/arm64", "linux/x86_64"])
    assert (again.result.reused, again.result.digest) == (True, built.result.digest)


def test_an_exported_image_has_both_indexes(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    build(tmp_path, model, base, wheels)
    data = b"".join(docker_archive(tmp_path / "out", "image:1"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        (entry,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]  # a regular file
    assert {"oci-layout", "index.json"} < set(names)
    assert entry["RepoTags"] == ["image:1"]
    assert {entry["Config"], *entry["Layers"]} < set(names)


def start(request: BuildRequest, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A build that runs beside the test."""
    argv = write_order("build", request, folder)
    quiet = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**quiet, **environment})


def test_two_builds_at_once_share_a_cache(tmp_path: Path, model: Path, base: Path, wheels: dict[str, str]) -> None:
    plain = {"base": f"docker-archive:{base}", "cache": str(tmp_path / "cache")}
    places = [tmp_path / name for name in ("a", "b")]
    requests = [request_for("docker", [model_of(model)], place, **plain) for place in places]
    running = [start(request, place, wheels) for request, place in zip(requests, places, strict=True)]
    for process in running:
        process.communicate(timeout=120)
    assert [process.returncode for process in running] == [0, 0]
    assert layout_manifest(places[0] / "out")["layers"] == layout_manifest(places[1] / "out")["layers"]


@pytest.mark.parametrize(("signum", "left"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)])
def test_a_build_that_was_ended_leaves_a_cache_that_works(
    tmp_path: Path, model: Path, base: Path, wheels: dict[str, str], signum: int, left: int
) -> None:
    cache = tmp_path / "cache"
    request = request_for("docker", [model_of(model)], tmp_path / "a", base=f"docker-archive:{base}", cache=str(cache))
    process = start(request, tmp_path / "a", wheels)

    def scratch() -> list[Path]:
        return list((cache / "scratch").glob("build-*"))

    # Wheels being installed is the middle of it: the base is in the cache, its layers are not.
    wait_for(lambda: list((cache / "scratch").glob("build-*/install-*.lock")), what="the build to install wheels", timeout_s=60)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(scratch()) == left
    assert not (tmp_path / "a" / "out" / "index.json").exists()
    again = build(tmp_path / "b", model, base, wheels, cache=str(cache))
    assert again.exit_code == 0, again.stderr
    assert scratch() == []
