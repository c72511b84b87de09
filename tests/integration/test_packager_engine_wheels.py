"""What has no wheel is built by the real Docker engine, without a network, and then used like any other wheel."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from hedgerow.contracts.oci import Platform
from packager.bases.fetch import BaseImage, fetch_base
from packager.cache.layers import LayerCache
from packager.distribution.access import RemoteAccess
from packager.engine.docker_engine import DockerEngine
from packager.engine.port import ContainerEngine
from packager.environment.dockerfile_base import LABEL
from packager.environment.engine_wheels import EngineLock, lock_with_engine
from packager.environment.lock import lock_environment
from packager.environment.uv_command import Uv, environment_for_uv, find_uv
from packager.environment.wheels import environment_layers
from packager.errors import EngineFailed, EngineMissing, EnvironmentUnsolvable, SourceBuildFailed
from tests.packager_builders import write_wheel
from tests.waiting import wait_for

# A build backend that needs nothing, so that no other package must be fetched: it zips what stands beside it.
BACKEND = """\
import os, zipfile
NAME, VERSION, NEEDS = {name!r}, {version!r}, {needs!r}
def _metadata(folder):
    info = os.path.join(folder, f"{{NAME}}-{{VERSION}}.dist-info")
    os.makedirs(info)
    with open(os.path.join(info, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n")
        file.writelines(f"Requires-Dist: {{need}}\\n" for need in NEEDS)
    with open(os.path.join(info, "WHEEL"), "w") as file:
        file.write("Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py2-none-any\\nTag: py3-none-any\\n")
    return info
def prepare_metadata_for_build_wheel(folder, settings=None):
    return os.path.basename(_metadata(folder))
def build_wheel(folder, settings=None, metadata=None):
    {before}
    info = _metadata(os.path.join(folder, "t"))
    target = f"{{NAME}}-{{VERSION}}-py2.py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, target), "w") as wheel:
        wheel.write(f"{{NAME}}.py")
        for file in sorted(os.listdir(info)):
            wheel.write(os.path.join(info, file), f"{{os.path.basename(info)}}/{{file}}")
        wheel.writestr(f"{{os.path.basename(info)}}/RECORD", "")
    return target
"""


def write_source(folder: Path, name: str, version: str = "1.0", *, needs: tuple[str, ...] = (), before: str = "pass") -> None:
    """A source distribution of one module; ``before`` is run by whoever builds it."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "backend.py": BACKEND.format(name=name, version=version, needs=needs, before=before),
        f"{name}.py": f"VERSION = {version!r}\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))


def uv_of(folder: Path, links: Path) -> Uv:
    """uv that finds packages in ``links`` and nowhere else."""
    empty = folder / "empty-index"
    empty.mkdir(exist_ok=True)
    python = Path(sys.executable)
    kept: Mapping[str, str] = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    settings = {"UV_DEFAULT_INDEX": empty.as_uri(), "UV_FIND_LINKS": str(links), "UV_CACHE_DIR": str(folder / "uv-cache")}
    return Uv(find_uv(python, kept), python, environment_for_uv({**kept, **settings}, folder))


@pytest.fixture(scope="module")
def engine(docker_engine: docker.DockerClient, docker_host: str) -> ContainerEngine:
    return DockerEngine(docker_engine, docker_host)


@pytest.fixture(scope="module")
def base(
    engine: ContainerEngine, python_base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseImage, LayerCache]:
    """The base and a cache that has its layers."""
    folder = tmp_path_factory.mktemp("cache")
    cache = LayerCache(folder, folder)
    return fetch_base(f"docker:{python_base_image}", Platform.parse("linux/amd64"), cache, lambda: engine, RemoteAccess), cache


@pytest.fixture
def cache(base: tuple[BaseImage, LayerCache], tmp_path: Path) -> LayerCache:
    """A cache of the test's own."""
    return LayerCache(tmp_path / "cache", _made(tmp_path / "scratch"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


class Order:
    """What a build asks for."""

    bases: LayerCache

    def __init__(self, folder: Path, cache: LayerCache, base: BaseImage, engine: ContainerEngine | None) -> None:
        self.links = folder / "links"
        self.links.mkdir()
        self.cache, self.base, self.engine = cache, base, engine
        self.uv = uv_of(folder, self.links)
        self.log: list[str] = []

    def lock(self, *requirements: str, platform: str = "linux/amd64") -> EngineLock:
        return lock_with_engine(
            list(requirements), "3.11", platform, self.base, self.cache, self.uv, lambda: self.engine, self.log.append
        )


@pytest.fixture
def order(tmp_path: Path, cache: LayerCache, base: tuple[BaseImage, LayerCache], engine: ContainerEngine) -> Order:
    made = Order(tmp_path, cache, base[0], engine)
    made.bases = base[1]
    return made


def left_behind(client: docker.DockerClient) -> tuple[int, int, list[str]]:
    labelled = client.images.list(all=True, filters={"label": LABEL})
    tags = [tag for image in client.images.list() for tag in image.tags if tag.startswith("hedgerow-engine-build")]
    return len(client.containers.list(all=True)), len(labelled), tags


def test_what_has_no_wheel_is_built_and_becomes_a_layer(order: Order, docker_engine: docker.DockerClient) -> None:
    before = left_behind(docker_engine)
    write_wheel(order.links, "plain", "2.0")
    write_source(order.links, "onlysource", needs=("plain", "deeper"))
    write_source(order.links, "deeper", "3.0")
    with pytest.raises(EnvironmentUnsolvable, match="onlysource"):
        lock_environment(["onlysource"], "3.11", "linux/amd64", order.cache, order.uv)

    made = order.lock("onlysource>=1")
    assert [(package.name, package.version) for package in made.lock.packages] == [
        ("deeper", "3.0"),
        ("onlysource", "1.0"),
        ("plain", "2.0"),
    ]
    assert len(made.notes) == 1
    assert "onlysource 1.0, deeper 3.0" in made.notes[0]
    assert "another machine may make another image" in made.notes[0]
    assert any("Dockerfile" not in line and "onlysource" in line for line in order.log)
    done = environment_layers(made.lock, "site", "application/vnd.oci.image.layer.v1.tar+gzip", order.cache, made.uv)
    assert done
    assert left_behind(docker_engine) == before


def test_the_bytes_depend_on_the_content_alone_and_are_made_once(
    order: Order, tmp_path: Path, engine: ContainerEngine, docker_engine: docker.DockerClient
) -> None:
    write_source(order.links, "onlysource")
    first = order.lock("onlysource")
    order.engine = None
    assert order.lock("onlysource").lock == first.lock

    before = {image.id for image in docker_engine.images.list(all=True)}
    # As a base from elsewhere, which the engine has to be given first.
    unknown = replace(order.base, digest="sha256:" + "0" * 64)
    again = Order(
        _made(tmp_path / "again"), LayerCache(order.cache.folder.with_name("c2"), _made(tmp_path / "s2")), unknown, None
    )
    for layer in unknown.layers:
        again.cache.blobs.take(order.bases.blobs, layer.digest)
    write_source(again.links, "onlysource")
    with pytest.raises(EngineMissing, match="onlysource"):
        again.lock("onlysource")
    again.engine = engine
    assert again.lock("onlysource").made == first.made
    assert {image.id for image in docker_engine.images.list(all=True)} == before


def test_no_engine_is_asked_when_all_have_wheels(order: Order) -> None:
    order.engine = None
    write_wheel(order.links, "plain", "2.0")
    made = order.lock("plain")
    assert (made.notes, made.uv) == ((), order.uv)


def test_a_build_that_fails_says_why_and_leaves_nothing(order: Order, docker_engine: docker.DockerClient) -> None:
    before = left_behind(docker_engine)
    write_source(order.links, "broken", before="raise SystemExit('cannot find the header foo.h')")
    with pytest.raises(SourceBuildFailed, match=r"foo\.h") as failed:
        order.lock("broken")
    assert "broken" in str(failed.value)
    assert left_behind(docker_engine) == before


def test_foreign_build_scripts_have_no_network_and_are_not_on_this_machine(order: Order, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    write = f"os.makedirs({str(tmp_path)!r}, exist_ok=True); open({str(witness)!r}, 'w').close()"
    reach = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=30)"
    write_source(order.links, "curious", before=f"{write}; {reach}")
    with pytest.raises(SourceBuildFailed, match="unreachable"):
        order.lock("curious")
    assert not witness.exists()


def test_a_build_that_is_given_up_ends_in_the_engine_too(order: Order, docker_engine: docker.DockerClient) -> None:
    class GivenUp(BaseException):
        pass

    class Log(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if "Running in" in line and "RUN [" in self[-2]:
                raise GivenUp

    before = left_behind(docker_engine)
    write_source(order.links, "endless", before="import time; time.sleep(10_000)")
    order.log = Log()
    with pytest.raises(GivenUp):
        order.lock("endless")
    wait_for(lambda: left_behind(docker_engine) == before, timeout_s=30, what="the engine to end the build")


def test_another_platform_than_the_engines_is_refused(order: Order) -> None:
    write_source(order.links, "onlysource")
    with pytest.raises(EngineFailed, match="linux/arm64"):
        order.lock("onlysource", platform="linux/arm64")


def test_what_is_nowhere_stays_unsolvable(order: Order) -> None:
    with pytest.raises(EnvironmentUnsolvable, match="nosuch"):
        order.lock("nosuch")
