"""``hedgerow serve --image``: from the workspace, a tar, a layout or a folder; unpacked once, checked, refused in words."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hedgerow.contracts.names import MEDIA_MODEL_MANIFEST, MEDIA_OCI_CONFIG
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ImageNotServable
from hedgerow.sdk.served_image import ready_image
from hedgerow.sdk.transport import Transport
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.oci_client import Image, Pusher, container, descriptor, image_of, index
from tests.packager_builders import (
    blob_path,
    layout_manifest,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_base_archive,
    write_onnx_model,
)
from tests.registry_server import Api, RunningServer
from tests.verified_images import package_index

_CLI = [sys.executable, "-P", "-c", "from hedgerow.cli.main import main; main()"]
_TOP = str(Path(__file__).parents[2])
_BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}]}
_SCRIPT = "import sys\ndef init(): pass\ndef run(raw): import numpy; return [numpy.__file__, sys.flags.no_site]\n"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of an ONNX image with one model, ``adder``: y = x + 1."""
    folder = tmp_path_factory.mktemp("artifact")
    built = run_packager(request_for("onnx", [model_of(write_onnx_model(folder / "m"))], folder), folder)
    assert built.exit_code == 0, built.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def docker_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of a docker image with a script and the real libraries, on a base that has nothing."""
    folder = tmp_path_factory.mktemp("docker")
    (folder / "source").mkdir()
    (folder / "source" / "score.py").write_text(_SCRIPT)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = write_base_archive(folder / "base.tar", python=python)
    given = {"base": f"docker-archive:{base}", "script": "score.py", "source": str(folder / "source"), "python_version": python}
    built = run_packager(request_for("docker", [], folder, **given), folder, package_index())
    assert built.exit_code == 0, f"{built.lines[-1:]}\n{built.stderr}"
    return folder / "out"


def environment_of(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": search_path(), "HOME": str(home), "PYTHONPATH": _TOP} | more


def refused(home: Path, *words: object, **environment: str) -> str:
    """What `hedgerow serve --image` says when it serves nothing."""
    command = [*_CLI, "serve", "--image", *map(str, words)]
    env = environment_of(home, **environment)
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def serving(home: Path, *words: object, **environment: str) -> Iterator[httpx.Client]:
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    argv = [*_CLI, "serve", "--image", *map(str, words), "--port", "0", "--ready-file", str(ready)]
    process = RealProcess(argv, log=home / "serve.log", env=environment_of(home, **environment), cwd=home)
    process.start()
    try:
        process.wait_until(ready.exists, what="the scoring server's ready-file")
        with httpx.Client(base_url=json.loads(ready.read_bytes())["address"], timeout=20, trust_env=False) as client:
            yield client
    finally:
        process.stop()


def nobody() -> AbstractContextManager[Client]:
    raise AssertionError("no workspace is asked for a file")


def adds(client: httpx.Client) -> list[float]:
    answered = client.post("/v2/models/adder/infer", json=_BODY)
    assert answered.status_code == 200, answered.text
    return list(answered.json()["outputs"][0]["data"])


def unpacked(home: Path) -> list[Path]:
    return sorted((home / ".cache" / "hedgerow" / "images").glob("sha256-*"))


def packed(layout: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as tar:
        for name in ("blobs", "index.json", "oci-layout"):
            tar.add(layout / name, name)
    return target


def image_in(layout: Path) -> Image:
    manifest = blob_path(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    named = layout_manifest(layout)
    digests = [named["config"]["digest"], *(layer["digest"] for layer in named["layers"])]
    return Image(manifest.read_bytes(), [blob_path(layout, digest).read_bytes() for digest in digests])


def copied(layout: Path, target: Path) -> Path:
    return Path(shutil.copytree(layout, target))


def layout_of(folder: Path, *images: Image) -> Path:
    """A layout of finished images."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for image in images:
        for content in (image.manifest, *image.blobs):
            (blobs / descriptor(content, "")["digest"].removeprefix("sha256:")).write_bytes(content)
    tops = [descriptor(one.manifest, one.media_type) for one in images]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": tops[-1:]}))
    return folder


def test_a_recorded_image_is_fetched_once_and_served(server: RunningServer, api: Api, artifact: Path, tmp_path: Path) -> None:
    Pusher(api, "adding").push(image_in(artifact), "1")
    where = {"HEDGEROW_URL": server.url, "HEDGEROW_TOKEN": server.owner_token}
    with serving(tmp_path, "adding:1", **where) as client:
        assert adds(client) == [2.0, 3.0, 4.0]
    folder, *others = unpacked(tmp_path)
    assert others == []
    assert (folder / "hedgerow.json").is_file()
    before = folder.stat().st_ino
    with serving(tmp_path, "adding", **where) as client:  # the newest, which is the same content
        assert adds(client) == [2.0, 3.0, 4.0]
    assert [one.stat().st_ino for one in unpacked(tmp_path)] == [before]
    assert "no image" in refused(tmp_path, "nobody:3", **where).lower()


def test_what_export_wrote_is_served_without_a_workspace(server: RunningServer, api: Api, artifact: Path, tmp_path: Path) -> None:
    Pusher(api, "carried").push(image_in(artifact), "1")
    with Client(Transport(server.url, server.owner_token)) as client:
        client.images.export("carried", tmp_path / "carried.tar")
    with serving(tmp_path, "carried.tar") as served:
        assert adds(served) == [2.0, 3.0, 4.0]
    (tmp_path / "carried.tar.gz").write_bytes(gzip.compress((tmp_path / "carried.tar").read_bytes()))
    with serving(tmp_path, tmp_path / "carried.tar.gz") as served:
        assert adds(served) == [2.0, 3.0, 4.0]
    assert len(unpacked(tmp_path)) == 1
    assert list((tmp_path / ".cache" / "hedgerow" / "images").glob(".layout-*")) == []


def test_a_layout_and_an_unpacked_folder_are_served(artifact: Path, tmp_path: Path) -> None:
    with serving(tmp_path, artifact, "--name=ignored") as client:
        assert adds(client) == [2.0, 3.0, 4.0]
    folder = unpacked(tmp_path)[0]
    with serving(tmp_path, folder) as client:
        assert adds(client) == [2.0, 3.0, 4.0]


def test_a_docker_image_runs_on_its_own_libraries(docker_layout: Path, tmp_path: Path) -> None:
    archive = packed(docker_layout, tmp_path / "scoring.tar")
    with serving(tmp_path, archive) as client:
        library, no_site = client.post("/score", json={}).json()
    assert library.startswith(f"{unpacked(tmp_path)[0]}/opt/hedgerow-site/numpy/")
    assert no_site == 1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("gone.tar", "there is no such file or folder"),
        ("./gone", "there is no such file or folder"),
        ("empty", "neither hedgerow.json nor index.json"),
        ("text.tar", "it is no tar, or a damaged one"),
        ("other.tar", "it is a tar without index.json"),
    ],
)
def test_what_is_no_image_is_said(tmp_path: Path, what: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("a text " * 1000)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text.tar", "text")
    told = refused(tmp_path, what)
    assert f"{what} cannot be served: " in told
    assert said in told


def test_a_damaged_blob_is_found_and_nothing_of_it_stays(artifact: Path, tmp_path: Path) -> None:
    layout = copied(artifact, tmp_path / "layout")
    model = blob_path(layout, layout_manifest(layout)["layers"][0]["digest"])
    content = bytearray(model.read_bytes())
    content[700] ^= 1
    model.write_bytes(content)
    told = refused(tmp_path, layout)
    assert f"the content of blob sha256:{model.name} is not what its digest says" in told
    assert unpacked(tmp_path) == []
    model.unlink()
    assert f"it lacks blob sha256:{model.name}" in refused(tmp_path, packed(layout, tmp_path / "x.tar")).replace(
        "blobs/sha256/", "blob sha256:"
    )
    assert f"it lacks blob sha256:{model.name}" in refused(tmp_path, layout)
    assert list((tmp_path / ".cache" / "hedgerow" / "images").glob(".part-*")) == []


def test_a_tar_that_was_cut_off_is_refused(artifact: Path, tmp_path: Path) -> None:
    archive = packed(artifact, tmp_path / "whole.tar")
    (tmp_path / "cut.tar").write_bytes(archive.read_bytes()[:-20_480])
    assert "cut.tar cannot be served: " in refused(tmp_path, "cut.tar")


def changed_config(layout: Path, change: Callable[[dict[str, Any]], None]) -> Image:
    """The image of ``layout`` with another config."""
    manifest = layout_manifest(layout)
    config = read_json_blob(layout, manifest["config"]["digest"])
    change(config)
    body = json.dumps(config).encode()
    manifest["config"] = descriptor(body, manifest["config"]["mediaType"])
    layers = [blob_path(layout, layer["digest"]).read_bytes() for layer in manifest["layers"]]
    return Image(json.dumps(manifest).encode(), [body, *layers])


def test_another_platform_and_another_python_are_named(docker_layout: Path, tmp_path: Path) -> None:
    def foreign(config: dict[str, Any]) -> None:
        config["architecture"] = "s390x"

    image, cache = changed_config(docker_layout, foreign), tmp_path / "cache"
    with pytest.raises(ImageNotServable, match="it is for linux/s390x, and this machine is linux/"):
        ready_image(str(layout_of(tmp_path / "foreign", image)), cache, nobody)
    both = layout_of(tmp_path / "both", image, image_in(docker_layout), index(image, image_in(docker_layout)))
    ready = ready_image(str(both), cache, nobody)  # the one for this machine, whatever the index calls it
    assert (ready.python, ready.folder.name) == (Path(sys.executable), "hedgerow")
    for file in ready.folder.parent.glob("hedgerow-site/numpy-*.dist-info/WHEEL"):
        file.write_text(file.read_text().replace(f"cp3{sys.version_info.minor}", "cp399"))
    with pytest.raises(ImageNotServable, match=r"its libraries are for Python 3\.99.* no python3\.99 on the PATH"):
        ready_image(str(both), cache, nobody)


def test_an_image_of_somebody_else_is_refused(tmp_path: Path, docker_layout: Path) -> None:
    assert "no image that Hedgerow built" in refused(tmp_path, layout_of(tmp_path / "container", container(b"layer")))

    def without_history(config: dict[str, Any]) -> None:
        del config["history"]

    told = refused(tmp_path, layout_of(tmp_path / "bare", changed_config(docker_layout, without_history)))
    assert "its history does not say which layers Hedgerow made" in told
    alien = container(b"layer", artifactType=MEDIA_MODEL_MANIFEST)
    assert "it is damaged" in refused(tmp_path, layout_of(tmp_path / "alien", alien))


# The cache of unpacked images -----------------------------------------------------------------------------------------


def test_those_who_come_at_once_unpack_one_folder(artifact: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / ".part-killed" / "models").mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ready_image(str(artifact), cache, nobody), range(4)))
    assert len({one.folder for one in found}) == 1
    assert sorted(path.name for path in cache.iterdir()) == [".lock", found[0].folder.name]
    assert found[0].folder.stat().st_mode & 0o777 == 0o700


def test_layers_that_would_write_elsewhere_are_refused(tmp_path: Path) -> None:
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    layout = layout_of(tmp_path / "layout", container(evil.getvalue(), artifactType=MEDIA_MODEL_MANIFEST))
    with pytest.raises(ImageNotServable, match=r"'\.\./evil' leads out of the archive"):
        ready_image(str(layout), tmp_path / "cache", nobody)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_layout_of_several_images_is_refused(artifact: Path, tmp_path: Path) -> None:
    layout = copied(artifact, tmp_path / "several")
    document = json.loads((layout / "index.json").read_bytes())
    other = container(b"layer")
    for content in (other.manifest, *other.blobs):
        blob_path(layout, descriptor(content, "")["digest"]).write_bytes(content)
    document["manifests"].append(descriptor(other.manifest, other.media_type))
    (layout / "index.json").write_text(json.dumps(document))
    with pytest.raises(ImageNotServable, match="it holds 2 images"):
        ready_image(str(layout), tmp_path / "cache", nobody)


def test_one_image_under_two_names_is_one_image(artifact: Path, tmp_path: Path) -> None:
    layout = copied(artifact, tmp_path / "twice")
    document = json.loads((layout / "index.json").read_bytes())
    document["manifests"] *= 2
    (layout / "index.json").write_text(json.dumps(document))
    assert (ready_image(str(layout), tmp_path / "cache", nobody).folder / "hedgerow.json").is_file()


_ENTRY = ["python3", "-P", "-m", "runtime", "--image"]
_TO_NO_END = b'{"a":' * 50_000 + b"1" + b"}" * 50_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"history": 5}, "its configuration cannot be read"),
        ({"history": [5]}, "its configuration cannot be read"),
        ({"config": 5}, "its configuration cannot be read"),
        ({"config": {"Entrypoint": [*_ENTRY, "/a\0b"]}}, "its configuration cannot be read"),
        (
            {"config": {"Entrypoint": [*_ENTRY, "/etc"], "Env": ["PYTHONDONTWRITEBYTECODE=\0"]}},
            "its configuration cannot be read",
        ),
        ({"config": {"Entrypoint": [*_ENTRY, "/" + "a" * 5000], "Env": 5}}, "no hedgerow.json in it"),
        ({"config": {"Entrypoint": [*_ENTRY, "/loop"], "Env": ["PYTHONPATH=/" + "a" * 5000]}}, "no hedgerow.json in it"),
        ({"config": {"Entrypoint": [*_ENTRY, "/../../../../etc"]}}, "no hedgerow.json in it"),
        (_TO_NO_END, "its configuration cannot be read"),
        (b'{"architecture":"\xff"}', "its configuration cannot be read"),
    ],
)
def test_whatever_a_config_says_it_is_refused_in_words(tmp_path: Path, change: dict[str, Any] | bytes, said: str) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        loop = tarfile.TarInfo("loop")
        loop.type, loop.linkname = tarfile.SYMTYPE, "loop"
        tar.addfile(loop)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    usual = {"architecture": machine, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    history = {"history": [{"created_by": "hedgerow: x"}]}
    config = change if isinstance(change, bytes) else json.dumps(usual | history | change).encode()
    layout = layout_of(tmp_path / "layout", image_of(config, MEDIA_OCI_CONFIG, [layer.getvalue()]))
    with pytest.raises(ImageNotServable, match=said):
        ready_image(str(layout), tmp_path / "cache", nobody)


def test_nothing_is_run_out_of_a_cache_that_others_may_write_to(artifact: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(ImageNotServable, match="others may write to it"):
        ready_image(str(artifact), cache, nobody)
    assert list(cache.iterdir()) == []
    cache.chmod(0o755)
    ready_image(str(artifact), cache, nobody)


def test_what_a_killed_one_unpacked_goes_and_what_another_one_needs_stays(artifact: Path, tmp_path: Path) -> None:
    image, cache = tmp_path / "image.tar.gz", tmp_path / "cache"
    image.write_bytes(gzip.compress(packed(artifact, tmp_path / "image.tar").read_bytes()))
    for name in (".layout-killed", ".layout-working"):
        (cache / name / "blobs").mkdir(parents=True)
    working = os.open(cache / ".layout-working", os.O_RDONLY)
    try:
        fcntl.flock(working, fcntl.LOCK_EX)
        ready_image(str(image), cache, nobody)
        assert sorted(path.name for path in cache.glob(".layout-*")) == [".layout-working"]
    finally:
        os.close(working)
    ready_image(str(image), cache, nobody)
    assert list(cache.glob(".layout-*")) == []
