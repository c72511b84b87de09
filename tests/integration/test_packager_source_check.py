"""A scoring source is judged against what its image will really have: wheels, base layers, the folder itself."""

from __future__ import annotations

import io
import tarfile
from gzip import compress
from pathlib import Path

import pytest
import zstandard

from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP
from hedgerow.contracts.oci import Descriptor, ImageConfig, RootFs
from packager.bases.base_image import BaseImage
from packager.bases.base_modules import base_modules
from packager.cache.layers import LayerCache
from packager.errors import ImportsMissing
from packager.scripts.check_source import check_source
from packager.source_files import list_files

CALLED = "def init(): ...\ndef run(data): ...\n"


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    (tmp_path / "scratch").mkdir()
    return LayerCache(tmp_path / "cache", tmp_path / "scratch")


def layer(*names: str) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return plain.getvalue()


def base_of(cache: LayerCache, *layers: bytes) -> BaseImage:
    stored = [cache.blobs.add([data]) for data in layers]
    descriptors = tuple(Descriptor(media_type=MEDIA_OCI_LAYER_GZIP, digest=blob.digest, size=blob.size_bytes) for blob in stored)
    config = ImageConfig(architecture="amd64", os="linux", rootfs=RootFs(diff_ids=[]))
    return BaseImage("sha256:" + "1" * 64, config, descriptors, "Python 3.11")


def check(folder: Path, script: str, cache: LayerCache, base: BaseImage) -> tuple[str, ...]:
    source = folder / "source"
    source.mkdir(exist_ok=True)
    (source / "score.py").write_text(script + "\n" + CALLED)
    return check_source(list_files(source), "score.py", "3.11", ["numpy/__init__.py"], base, cache)


def test_what_wheels_and_base_have_is_there(tmp_path: Path, cache: LayerCache) -> None:
    base = base_of(
        cache,
        compress(layer("./usr/lib/python3/dist-packages/apt/__init__.py", "usr/bin/x")),
        zstandard.ZstdCompressor().compress(layer("opt/conda/lib/python3.11/site-packages/torch/__init__.py")),
        layer("usr/local/lib/python3.11/site-packages/six.py"),
    )
    assert check(tmp_path, "import numpy, torch.nn, apt, six", cache, base) == ()
    with pytest.raises(ImportsMissing, match=r"cv2 \(score\.py:1\)$"):
        check(tmp_path, "import cv2, torch", cache, base)


def test_what_may_be_missing_is_only_noted(tmp_path: Path, cache: LayerCache) -> None:
    notes = check(tmp_path, "def later():\n    import yaml", cache, base_of(cache))
    assert notes == ("yaml (score.py:2) is missing, if it is ever imported; pyyaml may have it.",)


def test_a_base_that_cannot_be_looked_through_makes_nothing_certain(tmp_path: Path, cache: LayerCache) -> None:
    damaged = base_of(cache, b"\x1f\x8bno gzip at all")
    assert base_modules(damaged, cache) is None
    assert check(tmp_path, "import torch", cache, damaged)[0].startswith("torch (score.py:1) may be missing")


def test_a_base_is_looked_through_once(tmp_path: Path, cache: LayerCache) -> None:
    base = base_of(cache, compress(layer("usr/lib/python3/dist-packages/apt/__init__.py")))
    assert base_modules(base, cache) == frozenset({"apt"})
    cache.blobs.path(base.layers[0].digest).unlink()
    assert base_modules(base, cache) == frozenset({"apt"})
