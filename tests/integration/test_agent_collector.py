"""Clearing up on real folders and on a real Docker engine: what is ours and unneeded goes, everything else stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

import docker
import msgspec
import pytest

from edge_agent.images.collector import Collector, Quotas
from edge_agent.images.docker_images import DockerImages, image_reference, remove_image, repository_of
from edge_agent.images.docker_ledger import DockerLedger
from edge_agent.images.image_store import ImageStore
from hedgerow.clock import SystemClock
from hedgerow.contracts.service import ImagePin
from tests.agent_builders import Workspace, pin
from tests.fixtures.oci_registry import OciRegistry

PLENTY = Quotas(10**12, timedelta(days=7), 0)
FULL = Quotas(10**12, timedelta(days=7), 2**60)
MONTH_S = 30 * 24 * 3600


class Yard:
    """A state folder with images and leftovers, and what was told about clearing it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ImageStore(folder / "images")
        self.in_use: set[str] | None = set()
        self.modules: set[str] = set()
        self.told: list[tuple[int, str]] = []

    def image(self, end: str, *, size: int = 50_000, age_s: float = 0.0) -> str:
        image = pin(end)
        path = self.store.path_of(image)
        path.mkdir(parents=True)
        (path / "model.onnx").write_bytes(os.urandom(size))
        self._aged(path, age_s)
        return image.digest

    def file(self, name: str, *, age_s: float = 0.0) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
        return self._aged(path, age_s)

    def _aged(self, path: Path, age_s: float) -> Path:
        at = SystemClock().now().timestamp() - age_s
        os.utime(path, (at, at))
        return path

    def collector(self, quotas: Quotas = PLENTY, others: Collection[DockerLedger] = ()) -> Collector:
        return Collector(
            self.folder,
            self.store,
            list(others),
            quotas,
            SystemClock(),
            in_use=lambda: self.in_use,
            modules=lambda: self.modules,
            on_freed=lambda freed, words: self.told.append((freed, words)),
        )

    def here(self, digest: str) -> bool:
        return any(image.digest == digest for image in self.store.stored())


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_an_image_nobody_needs_goes_after_its_time_and_it_is_told(yard: Yard) -> None:
    old, used, new = yard.image("1", age_s=MONTH_S), yard.image("2", age_s=MONTH_S), yard.image("3")
    yard.in_use = {used}
    freed = yard.collector().collect()
    assert [yard.here(digest) for digest in (old, used, new)] == [False, True, True]
    assert freed >= 50_000
    assert yard.told == [(freed, f"{freed} bytes given back, nobody needs them: process image {old[:19]}")]
    # What is in use now is not old the moment that it no longer is.
    yard.in_use = set()
    assert yard.collector().collect() == 0
    assert yard.here(used)
    assert yard.collector(FULL).collect() > 0
    assert not yard.here(used)


def test_while_it_is_not_known_what_is_needed_nothing_goes(yard: Yard) -> None:
    old = yard.image("1", age_s=MONTH_S)
    yard.in_use = None
    assert yard.collector(FULL).collect() == 0
    assert yard.here(old)


def test_a_full_disk_takes_all_that_is_unused_and_leftovers_but_not_what_is_being_fetched(yard: Yard) -> None:
    unused, used = yard.image("1"), yard.image("2")
    abandoned, coming = pin("3"), pin("4")
    yard.in_use = {used, coming.digest}
    blobs = {name: yard.file(f"images/downloads/sha256-{name}", age_s=3600) for name in ("old", "mine", "fresh")}
    os.utime(blobs["fresh"])
    yard.store.claim(abandoned, ["sha256:old"])
    yard.store.claim(coming, ["sha256:mine"])
    damaged, torn = yard.file("history.json.damaged", age_s=3600), yard.file(".report.json.x1.tmp", age_s=3600)
    kept = [yard.file("history.json"), yard.file("modules/m/process/log"), yard.file("modules/m/.launch.json.a.tmp")]
    unstarted = yard.file("modules/gone/launch.json", age_s=3600).parent
    os.utime(unstarted, (0, 0))
    assert yard.collector(FULL).collect() > 50_000
    assert not yard.here(unused)
    assert yard.here(used)
    assert [path.exists() for path in (blobs["old"], damaged, torn, unstarted)] == [False] * 4
    assert [path.exists() for path in (blobs["mine"], blobs["fresh"], *kept)] == [True] * 5
    assert "the disk is nearly full" in yard.told[0][1]


def test_a_removal_that_was_cut_short_leaves_no_half_image(yard: Yard) -> None:
    unused = yard.image("1", age_s=MONTH_S)
    path = yard.folder / "images" / unused.replace(":", "-")
    # As the next agent finds it: moved out of the way, and not emptied yet.
    path.rename(path.with_name(path.name + ".part"))
    os.utime(path.with_name(path.name + ".part"), (0, 0))
    assert not yard.here(unused)
    assert yard.collector().collect() > 0
    assert list((yard.folder / "images").iterdir()) == []


@pytest.fixture(scope="module")
def pushed(docker_engine: docker.DockerClient, docker_registry: OciRegistry, python_base_image: str) -> Callable[[str], ImagePin]:
    """Images of the registry that the engine no longer has; each with an identity of its own."""

    def push(name: str) -> ImagePin:
        repository = f"{docker_registry.address}/{name}"
        container = docker_engine.containers.create(python_base_image, ["true"])
        image = container.commit(repository, "1", changes=f"LABEL collector={name}")
        container.remove()
        lines = list(docker_engine.api.push(repository, tag="1", stream=True, decode=True))
        digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
        docker_engine.images.remove(f"{repository}:1")
        assert image.id
        return ImagePin(name=name, version=1, digest=digest, kind="docker")

    return push


def test_only_docker_images_that_this_agent_pulled_and_nothing_needs_go(
    yard: Yard,
    docker_engine: docker.DockerClient,
    docker_host: str,
    docker_registry: OciRegistry,
    pushed: Callable[[str], ImagePin],
    python_base_image: str,
) -> None:
    config = Workspace(registry_url=f"http://{docker_registry.address}").config
    ledger = DockerLedger(yard.folder, lambda reference: remove_image(reference, docker_host))
    images = DockerImages(config, ledger, SystemClock(), docker_host)
    ours, wanted, held, theirs = (pushed(f"collector-{name}") for name in ("ours", "wanted", "held", "theirs"))
    docker_engine.images.pull(f"{docker_registry.address}/{theirs.name}@{theirs.digest}")
    for image in (ours, wanted, held, theirs):
        images.pull(image, lambda _text: None)
        assert images.present(image)
    container = docker_engine.containers.create(image_reference(config, held), ["true"])
    try:
        assert {image.digest for image in ledger.stored()} == {ours.digest, wanted.digest, held.digest}
        assert all(image.size_bytes > 0 for image in ledger.stored())
        yard.in_use = {wanted.digest}
        # The next agent knows it as well.
        again = DockerLedger(yard.folder, lambda reference: remove_image(reference, docker_host))
        yard.collector(FULL, [again]).collect()
        present = [images.present(image) for image in (ours, wanted, held, theirs)]
        assert present == [False, True, True, True]
        assert docker_engine.images.get(python_base_image)
        assert {image.digest for image in ledger.stored()} == {wanted.digest, held.digest}
    finally:
        container.remove()
        for image in (wanted, held, theirs):
            docker_engine.images.remove(image_reference(config, image))


def test_an_image_of_another_registry_comes_by_its_digest_without_the_workspaces_token(
    yard: Yard,
    docker_engine: docker.DockerClient,
    docker_host: str,
    docker_registry: OciRegistry,
    pushed: Callable[[str], ImagePin],
) -> None:
    elsewhere = pushed("team/elsewhere")
    foreign = msgspec.structs.replace(elsewhere, name="elsewhere", reference=f"{docker_registry.address}/team/elsewhere:1")
    config = Workspace(registry_url="http://127.0.0.1:1").config
    ledger = DockerLedger(yard.folder, lambda reference: remove_image(reference, docker_host))
    images = DockerImages(config, ledger, SystemClock(), docker_host)
    assert not images.present(foreign)
    images.pull(foreign, lambda _text: None)
    assert images.present(foreign)
    assert image_reference(config, foreign) == f"{docker_registry.address}/team/elsewhere@{elsewhere.digest}"
    assert docker_engine.images.get(image_reference(config, foreign))
    yard.in_use = set()
    yard.collector(FULL, [ledger]).collect()
    assert not images.present(foreign)


@pytest.mark.parametrize(
    ("reference", "repository"),
    [("busybox", "busybox"), ("busybox:1.36", "busybox"), ("h:5000/a/b", "h:5000/a/b"), ("h:5000/a/b:1@sha256:0", "h:5000/a/b")],
)
def test_the_repository_of_a_reference(reference: str, repository: str) -> None:
    image = ImagePin(name="x", version=1, digest="sha256:0", kind="docker", reference=reference)
    assert repository_of(Workspace().config, image) == repository


def test_a_ledger_that_is_damaged_gives_nothing_away(yard: Yard) -> None:
    ledger = DockerLedger(yard.folder, lambda _reference: pytest.fail("nothing may be removed"))
    ledger.pulled("sha256:1", "x@sha256:1", SystemClock().now(), 5)
    (yard.folder / "docker-images.json").write_text("{")
    assert ledger.stored() == []
    assert ledger.remove("sha256:1") is False
