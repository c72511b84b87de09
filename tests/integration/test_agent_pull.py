"""Images by digest over real HTTP: verified, resumed, unpacked; and everything that an evil archive could try."""

from __future__ import annotations

import gzip
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.engines.engine import ImageSource
from edge_agent.errors import ImageRefused, PullFailed
from edge_agent.images.image_store import ImageStore
from edge_agent.images.pull_oci import OciImages, choose_platform
from edge_agent.images.puller import Puller
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import ImageDocument
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import HedgerowError
from tests.agent_builders import Workspace, pin
from tests.agent_registry import Registry, digest, open_registry, special, tar
from tests.waiting import wait_for


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def images(registry: Registry, store: ImageStore) -> OciImages:
    return OciImages(Workspace(registry_url=registry.url).config, store)


def quiet(_text: str) -> None:
    pass


def test_an_image_is_fetched_with_the_token_verified_and_unpacked(
    registry: Registry, images: OciImages, store: ImageStore
) -> None:
    image = registry.image(tar(("models/a/model.onnx", b"onnx" * 1000)), tar(("hedgerow.json", b"{}")))
    assert not images.present(image)
    told: list[str] = []
    images.pull(image, told.append)
    assert images.present(image)
    assert (store.path_of(image) / "models/a/model.onnx").read_bytes() == b"onnx" * 1000
    assert (store.path_of(image) / "hedgerow.json").read_bytes() == b"{}"
    assert store.path_of(image).name == image.digest.replace(":", "-")
    assert {authorization for _, authorization, _ in registry.requests} == {"Bearer pull-secret"}
    assert any("100 %" in text for text in told)
    assert list(store.downloads().iterdir()) == []


def test_gzip_layers_and_platforms_of_an_index(registry: Registry, images: OciImages, store: ImageStore) -> None:
    inner = registry.image(gzip.compress(tar(("f", b"x"))), media_type=MEDIA_OCI_LAYER_GZIP)
    manifests = [
        {"mediaType": MEDIA_OCI_MANIFEST, "digest": "sha256:" + "0" * 64, "size": 1, "platform": {"architecture": "s390x"}},
        {"mediaType": MEDIA_OCI_MANIFEST, "digest": inner.digest, "size": 1, "platform": {"architecture": "any"}},
    ]
    index = registry.pinned({"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": manifests})
    images.pull(index, quiet)
    assert (store.path_of(index) / "f").read_bytes() == b"x"
    both, first = (msgspec.convert({"manifests": some}, ImageDocument) for some in (manifests, manifests[:1]))
    assert choose_platform(index, both, machine="s390x") == "sha256:" + "0" * 64
    with pytest.raises(ImageRefused, match="no variant for arm64"):
        choose_platform(index, first, machine="aarch64")


def test_a_cut_download_is_continued_where_it_ended(registry: Registry, images: OciImages) -> None:
    image = registry.image(tar(("big", bytes(300_000))))
    registry.cut_after = 100_000
    with pytest.raises(PullFailed):
        images.pull(image, quiet)
    images.pull(image, quiet)
    assert [wanted for path, _, wanted in registry.requests if "/blobs/" in path] == ["", "bytes=100000-307199"]
    assert images.present(image)


def test_a_registry_without_ranges_sends_it_again(registry: Registry, images: OciImages) -> None:
    image = registry.image(tar(("big", bytes(300_000))))
    registry.cut_after, registry.ranges = 100_000, False
    with pytest.raises(PullFailed):
        images.pull(image, quiet)
    images.pull(image, quiet)
    assert images.present(image)


def test_content_that_is_not_what_it_was_called_is_refused_and_not_kept(
    registry: Registry, images: OciImages, store: ImageStore
) -> None:
    layer = tar(("f", b"good"))
    image = registry.image(layer)
    registry.contents[digest(layer)] = tar(("f", b"evil"))
    with pytest.raises(ImageRefused, match="hashes to"):
        images.pull(image, quiet)
    assert list(store.downloads().iterdir()) == []
    registry.contents[digest(layer)] = layer
    images.pull(image, quiet)
    assert (store.path_of(image) / "f").read_bytes() == b"good"
    registry.contents[image.digest] = b"{}"
    with pytest.raises(ImageRefused, match="manifest hashes to"):
        OciImages(Workspace(registry_url=registry.url).config, ImageStore(store.downloads() / "elsewhere")).pull(image, quiet)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([], "Expected `object`"),
        ({}, "no layers"),
        ({"layers": "x"}, "Expected `array"),
        ({"layers": [{"mediaType": "x", "digest": "../../x", "size": 1}]}, "no digest"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": -1}]}, "the size -1"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(registry: Registry, images: OciImages, manifest: object, words: str) -> None:
    with pytest.raises(ImageRefused, match=words):
        images.pull(registry.pinned(manifest), quiet)


def test_a_missing_image_and_a_dead_registry_are_failures_that_may_pass(registry: Registry, images: OciImages) -> None:
    with pytest.raises(PullFailed, match="answered 404"):
        images.pull(pin(), quiet)
    nobody = OciImages(Workspace(registry_url="http://127.0.0.1:1").config, ImageStore(Path("unused")))
    with pytest.raises(PullFailed, match="refused"):
        nobody.pull(pin(), quiet)


EVIL = [
    tar(("/etc/x", b"x")),
    tar(("../x", b"x")),
    tar(("a/../../x", b"x")),
    tar(special("link", tarfile.SYMTYPE, "/etc"), ("link/x", b"x")),
    tar(special("link", tarfile.SYMTYPE, "..")),
    tar(special("a", tarfile.SYMTYPE, "."), special("a/b", tarfile.SYMTYPE, "..")),
    tar(special("device", tarfile.CHRTYPE)),
    tar(special("fifo", tarfile.FIFOTYPE)),
    tar(special("hard", tarfile.LNKTYPE, "/etc/passwd")),
    b"this is no archive" * 100,
]


@pytest.mark.parametrize("layer", EVIL)
def test_an_evil_archive_writes_nothing_outside_and_leaves_nothing(
    registry: Registry, images: OciImages, store: ImageStore, layer: bytes
) -> None:
    image = registry.image(layer)
    with pytest.raises(ImageRefused):
        images.pull(image, quiet)
    assert not images.present(image)
    folder = store.path_of(image).parent
    assert [path.name for path in folder.iterdir()] == ["downloads"]
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


def test_links_inside_the_image_are_kept(registry: Registry, images: OciImages, store: ImageStore) -> None:
    image = registry.image(tar(("models/v1/m.onnx", b"m"), special("models/current", tarfile.SYMTYPE, "v1")))
    images.pull(image, quiet)
    assert (store.path_of(image) / "models/current/m.onnx").read_bytes() == b"m"


# --- in the background ------------------------------------------------------------------------------------------------


class Slow:
    """An image source under the test's control."""

    def __init__(self) -> None:
        self.fail_times = 0
        self.attempts: list[str] = []
        self.go = threading.Event()
        self.at_work = 0
        self.most_at_work = 0

    def present(self, image: ImagePin) -> bool:
        return False

    def pull(self, image: ImagePin, progress: Callable[[str], None]) -> None:
        self.attempts.append(image.digest)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.go.wait(20)
        self.at_work -= 1
        if self.fail_times:
            self.fail_times -= 1
            raise PullFailed(image=image.name, registry="r", problem="no network")


def make(source: ImageSource) -> tuple[Puller, list[int]]:
    changes: list[int] = []
    return Puller({"process": lambda: source, "docker": lambda: source}, lambda: changes.append(1)), changes


def ready(puller: Puller, image: ImagePin) -> bool:
    state = puller.images().get(image.digest)
    return state is not None and state.ready


def test_an_image_is_pulled_once_however_often_it_is_wanted() -> None:
    source = Slow()
    puller, changes = make(source)
    for _ in range(5):
        puller.want("process", pin())
    assert not ready(puller, pin())
    source.go.set()
    wait_for(lambda: ready(puller, pin()), what="the image")
    assert source.attempts == [pin().digest]
    assert changes


@pytest.mark.alone
def test_a_failed_pull_is_told_and_tried_again_at_once_when_the_network_is_back() -> None:
    source = Slow()
    source.go.set()
    source.fail_times = 1
    puller, _ = make(source)
    puller.want("process", pin())
    state = wait_for(lambda: next((s for s in puller.images().values() if s.failures), None), what="the failure")
    assert state is not None
    assert "no network" in state.detail
    puller.hurry()
    wait_for(lambda: ready(puller, pin()), timeout_s=1.5, what="the image")


def test_few_are_pulled_at_a_time_and_what_is_here_waits_for_nobody(store: ImageStore) -> None:
    source = Slow()
    puller, _ = make(source)
    for end in "abcd":
        puller.want("process", pin(end))
    wait_for(lambda: source.at_work == 2, what="two pulls")
    store.path_of(pin("e")).mkdir(parents=True)
    here = OciImages(Workspace().config, store)
    puller_here = Puller({"process": lambda: here, "docker": lambda: here}, lambda: None)
    puller_here.want("process", pin("e"))
    wait_for(lambda: ready(puller_here, pin("e")), what="what is here already")
    source.go.set()
    wait_for(lambda: all(ready(puller, pin(end)) for end in "abcd"), what="all images")
    assert source.most_at_work == 2


def test_what_is_no_longer_wanted_is_forgotten_and_can_be_wanted_again() -> None:
    source = Slow()
    puller, _ = make(source)
    puller.want("process", pin())
    wait_for(lambda: source.at_work == 1, what="the pull")
    puller.keep_only([])
    assert puller.images() == {}
    puller.want("process", pin())
    source.go.set()
    wait_for(lambda: ready(puller, pin()), what="the image")
    assert source.most_at_work == 1


def test_an_unexpected_error_of_a_source_ends_nothing() -> None:
    class Broken(Slow):
        def pull(self, image: ImagePin, progress: Callable[[str], None]) -> None:
            self.attempts.append(image.digest)
            if len(self.attempts) == 1:
                raise KeyError("surprise")

    source = Broken()
    puller, _ = make(source)
    puller.want("docker", pin())
    wait_for(lambda: source.attempts, what="the first attempt")
    wait_for(lambda: next((s for s in puller.images().values() if "surprise" in s.detail), None), what="the problem")
    puller.hurry()
    wait_for(lambda: ready(puller, pin()), what="the image")
    assert issubclass(PullFailed, HedgerowError)
