"""Small models, wheels, base images and build requests for the packager's tests, all made on the spot."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from gzip import compress as gzip_compress
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.contracts.build import BuildModel, BuildRequest, BuildResult
from hedgerow.contracts.document import digest_of, encode
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.model import FileEntry, TensorSpec, digest_of_files
from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_LAYER_TAR, MEDIA_OCI_MANIFEST
from hedgerow.contracts.proof import ParityIndex
from packager.oci.blobs import BlobFolder
from packager.oci.export import export_image
from packager.oci.layout import find_manifest
from packager.settings import RUNTIME_REQUIREMENTS
from tests.packager_process import PackagerRun, own_environment, run_verb

FEATURES = 3


def digest_of_folder(folder: Path) -> str:
    """What the registry would say is the digest of the files there."""
    return digest_of_files(
        FileEntry(path=path.relative_to(folder).as_posix(), digest=digest_of(path.read_bytes()), size_bytes=path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    )


def model_of(folder: Path, name: str = "adder", version: int = 1) -> BuildModel:
    return BuildModel(
        ref=ModelRef(name=name, version=version, digest=digest_of_folder(folder)),
        folder=str(folder),
        inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, FEATURES])],
        outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, FEATURES])],
    )


def write_onnx_model(folder: Path, *, add: float = 1.0, parity: bool = True, wrong_by: float = 0.0) -> Path:
    """A real ONNX model, y = x + ``add``, with parity vectors that are off by ``wrong_by``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "adder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", FEATURES])],
        [numpy_helper.from_array(np.full(FEATURES, add, dtype=np.float32), "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(folder / "model.onnx"))
    if parity:
        rows = np.arange(4 * FEATURES, dtype=np.float32).reshape(4, FEATURES)
        np.savez(folder / "parity.npz", input_0=rows, output_0=rows + add + wrong_by)
        (folder / "parity.json").write_bytes(encode(ParityIndex(inputs=["x"], outputs=["y"])))
    return folder


def request_for(kind: str, models: Iterable[BuildModel], folder: Path, **changes: Any) -> BuildRequest:
    """A request that builds into ``folder/out`` with its cache in ``folder/cache``; tests are asked for explicitly."""
    plain = {"name": "image", "version": 1, "kind": kind, "verify": False}
    places = {"out": str(folder / "out"), "cache": str(folder / "cache")}
    return BuildRequest(**{**plain, **places, "models": list(models), **changes})


@dataclass(frozen=True)
class Built(PackagerRun):
    """What one `python -m packager build` did."""

    @property
    def result(self) -> BuildResult:
        return self.result_as(BuildResult)


def run_packager(
    request: BuildRequest | bytes, folder: Path, environment: Mapping[str, str] | None = None, *, umask: int = 0o022
) -> Built:
    """Build as the controller does, with no container engine unless ``environment`` names one."""
    without_engine = {**own_environment(), "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    done = run_verb("build", request, folder, {**without_engine, **(environment or {})}, umask=umask)
    return Built(done.exit_code, done.lines, done.stderr)


def layout_manifest(layout: Path) -> dict[str, Any]:
    """The image of an OCI layout, reached from index.json as any OCI tool would; the rest there only refers to it."""
    image, *beside = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert "artifactType" not in image
    assert all(one["artifactType"] and "subject" in read_json_blob(layout, one["digest"]) for one in beside)
    return read_json_blob(layout, image["digest"])


def docker_archive(layout: Path, tag: str) -> Iterator[bytes]:
    """The image of an OCI layout as `docker load` takes it, in chunks."""
    return export_image(BlobFolder(layout), find_manifest(layout, None), tag)


def read_json_blob(layout: Path, digest: str) -> dict[str, Any]:
    loaded = json.loads(blob_path(layout, digest).read_bytes())
    assert isinstance(loaded, dict)
    return loaded


def blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def layer_names(layout: Path, digest: str) -> list[str]:
    with tarfile.open(blob_path(layout, digest)) as tar:
        return tar.getnames()


def write_wheel(folder: Path, name: str, version: str = "99.0", files: Mapping[str, bytes] | None = None) -> Path:
    """A pure wheel that any Python takes; by default one module with the package's name, and a script."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    content = dict(files if files is not None else {f"{module}/__init__.py": f"VERSION = {version!r}\n".encode()})
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name}-tool = {module}:VERSION\n".encode()
    record = "".join(f"{path},sha256={_base64(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        for path, data in content.items():
            wheel.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return target


def write_runtime_wheels(folder: Path, large: str = "numpy") -> dict[str, str]:
    """Stand-ins for everything that the runtime requires, so that building needs no network; ``large`` is over 5 MB.

    Returns the environment in which uv finds them and nothing else.
    """
    for requirement in RUNTIME_REQUIREMENTS:
        name = requirement.partition(">=")[0]
        big = {f"{name}/data.bin": bytes(range(256)) * 21_000, f"{name}/__init__.py": b""}
        write_wheel(folder, name, files=big if name == large else None)
    empty = folder / "empty-index"
    empty.mkdir()
    return {"UV_DEFAULT_INDEX": empty.as_uri(), "UV_FIND_LINKS": str(folder), "UV_CACHE_DIR": str(folder / "uv-cache")}


def write_base_archive(
    target: Path,
    *,
    python: str = "3.11",
    architecture: str = "amd64",
    gzip: bool = False,
    settings: dict[str, object] | None = None,
) -> Path:
    """A `docker save` of a base that has nothing but the link by which a Python is recognised."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        link = tarfile.TarInfo("./usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, f"python{python}"
        tar.addfile(link)
    plain = layer.getvalue()
    packed = gzip_compress(plain, mtime=0) if gzip else plain
    config = {
        "architecture": architecture,
        "config": settings or {"Env": ["PATH=/usr/bin", "PYTHONPATH=/base"], "Cmd": ["bash"], "Labels": {"from": "base"}},
        "created": "2024-05-06T07:08:09Z",
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "test"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
    }
    raw = json.dumps(config).encode()
    name = digest_of(raw).removeprefix("sha256:")
    manifest = [{"Config": f"{name}.json", "RepoTags": ["base:1"], "Layers": ["abc/layer.tar"]}]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as tar:
        for path, data in (("abc/layer.tar", packed), (f"{name}.json", raw), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def write_base_layout(target: Path, root_tar: Path, architecture: str) -> Path:
    """An OCI layout with one image: the root file system in ``root_tar``, plain, by hard link where that is possible."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with root_tar.open("rb") as file:
        layer = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    try:
        os.link(root_tar, blob_path(target, layer))
    except OSError:
        shutil.copyfile(root_tar, blob_path(target, layer))
    platform = {"architecture": architecture, "os": "linux"}
    config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]}}

    def put(document: dict[str, Any], media_type: str) -> dict[str, Any]:
        raw = json.dumps(document).encode()
        blob_path(target, digest_of(raw)).write_bytes(raw)
        return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_OCI_MANIFEST,
        "config": put(config, MEDIA_OCI_CONFIG),
        "layers": [{"mediaType": MEDIA_OCI_LAYER_TAR, "digest": layer, "size": root_tar.stat().st_size}],
    }
    listed = {**put(manifest, MEDIA_OCI_MANIFEST), "platform": platform}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return target
