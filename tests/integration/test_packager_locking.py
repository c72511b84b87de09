"""The real uv locks for a platform from stand-in wheels, and what it refuses is said in one sentence."""

from __future__ import annotations

import os
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP
from packager.cache.layers import LayerCache
from packager.environment.conda_packages import conda_requirements
from packager.environment.lock import lock_environment
from packager.environment.uv_command import Uv, environment_for_uv, find_uv
from packager.environment.wheels import environment_layers
from packager.errors import EnvironmentUnsolvable, IndexUnreachable
from packager.settings import RUNTIME_REQUIREMENTS
from tests.packager_builders import write_wheel
from tests.waiting import free_port


class Shelf:
    """A folder of wheels, and uv that finds packages there and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.links = folder, folder / "links"
        for made in (self.links, folder / "empty-index", folder / "scratch"):
            made.mkdir()
        self.settings = {"UV_DEFAULT_INDEX": (folder / "empty-index").as_uri(), "UV_FIND_LINKS": str(self.links)}

    def add(self, name: str, version: str = "1.0", tags: str = "py3-none-any") -> None:
        wheel = write_wheel(self.links, name, version)
        wheel.rename(wheel.with_name(wheel.name.replace("py3-none-any", tags)))

    def add_source(self, name: str, version: str = "1.0") -> None:
        with tarfile.open(self.links / f"{name}-{version}.tar.gz", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(f"{name}-{version}/PKG-INFO"), BytesIO())

    @property
    def cache(self) -> LayerCache:
        return LayerCache(self.folder / "cache", self.folder / "scratch")

    @property
    def uv(self) -> Uv:
        python = Path(sys.executable)
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        given = {**kept, "UV_CACHE_DIR": str(self.folder / "uv-cache"), **self.settings}
        return Uv(find_uv(python, kept), python, environment_for_uv(given, self.folder))

    def lock(self, *requirements: str, platform: str = "linux/amd64", python_version: str = "3.11") -> dict[str, str]:
        lock = lock_environment(list(requirements), python_version, platform, self.cache, self.uv)
        return {package.name: package.version for package in lock.packages}

    def refusal(self, *requirements: str, platform: str = "linux/amd64", python_version: str = "3.11") -> str:
        with pytest.raises(EnvironmentUnsolvable) as refused:
            self.lock(*requirements, platform=platform, python_version=python_version)
        return refused.value.sentence()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_conda_packages_are_locked_as_wheels(shelf: Shelf) -> None:
    for name, version in (("torch", "2.1.2"), ("torch", "2.2.0"), ("opencv-python-headless", "4.8.1.78"), ("tables", "3.9.2")):
        shelf.add(name, version)
    wanted = conda_requirements(["pytorch=2.1", "opencv=4.8.1=py311h2", "pytables>=3", "mkl", "pip"], "3.11").requirements
    assert shelf.lock(*wanted) == {"torch": "2.1.2", "opencv-python-headless": "4.8.1.78", "tables": "3.9.2"}


def test_a_version_that_is_nowhere_comes_with_its_neighbours(shelf: Shelf) -> None:
    for version in ("1.26.3", "1.26.4", "2.0.0", "2.1.0"):
        shelf.add("numpy", version)
    told = shelf.refusal("numpy==1.26.99")
    assert "for linux/amd64, Python 3.11: numpy==1.26.99 is not on the package index" in told
    assert "The nearest with a wheel that fits: 1.26.4 and 2.0.0." in told
    assert "The newest with a wheel that fits is 2.1.0." in shelf.refusal("numpy>=9")
    assert "numpy==1.26.99+cpu" in shelf.refusal("numpy==1.26.99+cpu")


def test_every_package_without_a_wheel_is_named_and_what_would_do(shelf: Shelf) -> None:
    shelf.add("fast", "1.0", "cp311-cp311-manylinux_2_17_x86_64")
    shelf.add("fast", "0.9", "py3-none-any")
    shelf.add("plain")
    shelf.add_source("onlysource")
    shelf.add("winonly", "1.0", "cp311-cp311-win_amd64")
    told = shelf.refusal("fast==1.0", "plain", "onlysource", "winonly", platform="linux/arm64")
    assert "fast==1.0, onlysource and winonly have no wheels that fit" in told
    assert "What has one: fast 0.9." in told
    assert "there is only: its source" in shelf.refusal("onlysource")
    assert "Windows amd64" in shelf.refusal("winonly")
    assert shelf.lock("fast==1.0", "plain") == {"fast": "1.0", "plain": "1.0"}


def test_a_python_that_is_too_new_is_said(shelf: Shelf) -> None:
    shelf.add("fast", "1.0", "cp311-cp311-manylinux_2_17_x86_64")
    shelf.add("fast", "1.0", "cp310-cp310-manylinux_2_17_x86_64")
    told = shelf.refusal("fast", python_version="3.13")
    assert "fast has no wheel that fits" in told
    assert "fast has wheels for Python 3.11." in told  # no image can have 3.10


def test_32_bit_arm_takes_its_own_wheels(shelf: Shelf) -> None:
    shelf.add("plain")
    shelf.add("fast", "1.0", "cp311-cp311-manylinux_2_31_armv7l")
    shelf.add("fast", "2.0", "cp311-cp311-manylinux_2_17_x86_64")
    shelf.add("pi", "1.0", "cp311-cp311-linux_armv7l")
    assert shelf.lock("fast", "plain", "pi", platform="linux/arm/v7") == {"fast": "1.0", "plain": "1.0", "pi": "1.0"}
    assert shelf.lock("fast") == {"fast": "2.0"}
    lock = lock_environment(["fast", "plain"], "3.11", "linux/arm/v7", shelf.cache, shelf.uv)
    assert environment_layers(lock, "site", MEDIA_OCI_LAYER_GZIP, shelf.cache, shelf.uv).layers


def test_32_bit_arm_names_what_has_no_wheels(shelf: Shelf) -> None:
    shelf.add("numpy", "2.4.0", "cp311-cp311-manylinux_2_28_aarch64")
    shelf.add("onnxruntime", "1.31.0", "cp311-cp311-manylinux_2_28_x86_64")
    for requirement in RUNTIME_REQUIREMENTS:
        name = requirement.partition(">=")[0]
        if name not in ("numpy", "onnxruntime"):
            shelf.add(name, "99.0")
    told = shelf.refusal(*RUNTIME_REQUIREMENTS, "numpy<3", platform="linux/arm/v7")
    assert "linux/arm/v7, Python 3.11: " in told
    assert "numpy<3, numpy>=1.26 and onnxruntime>=1.20 have no wheels that fit" in told
    assert "use a package index that has them for linux/arm/v7" in told


def test_requirements_that_clash_are_both_named(shelf: Shelf) -> None:
    shelf.add("numpy", "1.0")
    shelf.add("numpy", "2.0")
    assert "numpy==1.0 and numpy>=2 are both asked for" in shelf.refusal("numpy==1.0", "numpy>=2")


def test_pins_of_old_files_are_all_named_with_what_follows_them(shelf: Shelf) -> None:
    """As in Azure ML's examples of 2020: pinned to versions without wheels for this Python, and against the scoring server."""
    for tags in ("cp36-cp36m-manylinux1_x86_64", "cp38-cp38-manylinux1_x86_64"):
        shelf.add("numpy", "1.18.5", tags)
    for version in ("1.23.5", "1.26.4", "2.4.0"):
        shelf.add("numpy", version, "cp311-cp311-manylinux_2_17_x86_64")
    shelf.add("scikit-learn", "0.22.2", "cp38-cp38-manylinux1_x86_64")
    shelf.add("scikit-learn", "1.1.3", "cp311-cp311-manylinux_2_17_x86_64")
    told = shelf.refusal("numpy>=1.26", "numpy==1.18.5", "scikit-learn==0.22.2")
    assert "numpy>=1.26 (of the scoring server)" in told
    assert "and numpy==1.18.5 and scikit-learn==0.22.2 have no wheels that fit" in told
    assert "What has one: numpy 1.23.5 and newer, scikit-learn 1.1.3 and newer." in told
    assert "numpy==1.23.5 and numpy>=1.26 (of the scoring server) are both asked for. What the scoring server needs stays" in (
        shelf.refusal("numpy>=1.26", "numpy==1.23.5")
    )


def test_an_index_that_does_not_answer_is_named(shelf: Shelf) -> None:
    shelf.settings = {"UV_DEFAULT_INDEX": f"http://user:geheim@127.0.0.1:{free_port()}/simple", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(IndexUnreachable, match=r"127\.0\.0\.1:\d+/simple/numpy/: Connection refused") as refused:
        shelf.lock("numpy")
    assert "geheim" not in str(refused.value)


def test_an_index_without_a_network_is_no_missing_package(shelf: Shelf) -> None:
    shelf.settings = {"UV_OFFLINE": "1"}
    with pytest.raises(IndexUnreachable, match="network was disabled"):
        shelf.lock("numpy")
