"""Bases out of registries: good ones, far ones over bad lines, and ones that mean no good."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from hedgerow.backoff import Backoff
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_ZSTD
from hedgerow.contracts.oci import Platform
from hedgerow.egress import EgressPolicy, EgressRefused, tls_context
from hedgerow.errors import HedgerowError
from packager.bases.fetch import BaseImage, fetch_base
from packager.cache.layers import LayerCache
from packager.distribution.access import RemoteAccess
from packager.distribution.errors import (
    RegistryFailed,
    RegistryLoginFailed,
    RegistryUnreachable,
    RemoteDocumentTooLarge,
    RemoteImageUnknown,
    TransferBroken,
)
from packager.distribution.login import Login
from packager.errors import BaseUnreadable, BaseUnsupported, BlobCorrupt
from packager.oci.blobs import DOCUMENT_BYTES_MAX
from tests.fixtures.oci_registry import OciRegistry
from tests.hostile_registry import HostileRegistry, hostile_registry
from tests.packager_builders import write_base_archive
from tests.waiting import free_port
from tests.webhook_receivers import make_ca

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
QUICK = Backoff(first_s=0.001, cap_s=0.002)


def access(**changes: Any) -> RemoteAccess:
    """Loopback is allowed, and nobody waits."""
    plain: dict[str, Any] = {"policy": EgressPolicy.parse("127.0.0.1"), "backoff": QUICK}
    return RemoteAccess(**{**plain, **changes})


def python_layer(version: str = "3.11", size: int = 0) -> bytes:
    """A layer with the link by which a Python is recognised, and ``size`` bytes that cannot be packed."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, f"python{version}"
        tar.addfile(link)
        weight = tarfile.TarInfo("weight")
        weight.size = size
        tar.addfile(weight, io.BytesIO(random.Random(7).randbytes(size)))
    return layer.getvalue()


def config_of(layers: list[bytes], architecture: str = "amd64") -> dict[str, Any]:
    return {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    (tmp_path / "scratch").mkdir()
    return LayerCache(tmp_path / "cache", tmp_path / "scratch")


@contextmanager
def with_base(size: int = 0, **behaviour: Any) -> Iterator[HostileRegistry]:
    """A registry with the base `team/python:1`."""
    layer = python_layer(size=size)
    with hostile_registry(**behaviour) as registry:
        registry.add_image([layer], config=config_of([layer]))
        yield registry


def fetch(registry: HostileRegistry, cache: LayerCache, wanted: str = ":1", **changes: Any) -> BaseImage:
    reference = f"registry:{registry.address}/team/python{wanted}"
    return fetch_base(reference, AMD64, cache, lambda: None, lambda: access(**changes))


def no_blob_of(cache: LayerCache, digest: str) -> bool:
    return not cache.blobs.path(digest).exists()


def test_a_base_is_fetched_once_and_pinned(cache: LayerCache) -> None:
    with with_base() as registry:
        digest = digest_of(registry.manifests["1"][1])
        base = fetch(registry, cache)
        assert (base.digest, base.python, str(base.config.platform)) == (digest, "Python 3.11", "linux/amd64")
        assert all(cache.blobs.holds(layer.digest) for layer in base.layers)
        fetched = len(registry.asked("GET", "/blobs/"))
        assert fetch(registry, cache) == base
        assert len(registry.asked("GET", "/blobs/")) == fetched
        assert fetch(registry, cache, f"@{digest}") == base
        before = len(registry.seen)
        assert fetch(registry, cache, f"@{digest}") == base
        assert len(registry.seen) == before, "a base that a digest names and that is here needs no network"


def test_the_platform_is_chosen_from_an_index(cache: LayerCache) -> None:
    with hostile_registry() as registry:
        layers = {"amd64": python_layer("3.11"), "arm64": python_layer("3.12")}
        digests = {
            f"linux/{name}": registry.add_image([layer], tag=name, config=config_of([layer], name))
            for name, layer in layers.items()
        }
        registry.add_index(digests, "1")
        reference = f"registry:{registry.address}/team/python:1"
        found = fetch_base(reference, ARM64, cache, lambda: None, access)
        assert (found.digest, found.python) == (digests["linux/arm64"], "Python 3.12")
        with pytest.raises(BaseUnreadable, match="linux/riscv64; it has linux/amd64, linux/arm64"):
            fetch_base(reference, Platform.parse("linux/riscv64"), cache, lambda: None, access)


def test_layers_that_are_here_are_not_fetched_again(cache: LayerCache) -> None:
    shared, other = python_layer(), gzip.compress(python_layer("3.12"))
    with hostile_registry() as registry:
        registry.add_image([shared], config=config_of([shared]), tag="1")
        registry.add_image([shared, other], config=config_of([shared, gzip.decompress(other)]), tag="2")
        fetch(registry, cache, ":1")
        fetch(registry, cache, ":2")
        assert len(registry.asked("GET", digest_of(shared))) == 1
        assert len(registry.asked("GET", digest_of(other))) == 1


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_connection_that_drops_is_taken_up_where_it_was(cache: LayerCache, knows_ranges: bool) -> None:
    with with_base(size=3_000_000, cut_downloads=[100, 1_500_000, 400_000], knows_ranges=knows_ranges) as registry:
        # The first cut hits the config, the others the layer.
        base = fetch(registry, cache)
        layer = base.layers[0].digest
        ranges = [one.headers.get("range") for one in registry.asked("GET", layer)]
        assert cache.blobs.holds(layer)
        begins = [int((text or "bytes=0-")[6:-1]) for text in ranges]
        assert begins[0] == 0
        assert begins == sorted(begins)
        assert begins[1] > 0


def test_a_connection_that_always_drops_is_told_with_how_far_it_got(cache: LayerCache) -> None:
    with with_base(size=2_000_000) as registry:
        layer = max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))
        fetch_small = next(digest for digest in registry.blobs if digest != layer)
        cache.blobs.add([registry.blobs[fetch_small]])
        registry.cut_downloads = [1000] * 50
        with pytest.raises(TransferBroken, match=rf"5 times: 5000 of \d+ bytes of {layer}"):
            fetch(registry, cache)
        assert no_blob_of(cache, layer)
        registry.cut_downloads = []
        assert fetch(registry, cache).python == "Python 3.11"


def test_a_corrupt_blob_is_told_and_not_kept(cache: LayerCache) -> None:
    with with_base(lies="blob") as registry:
        with pytest.raises(BlobCorrupt, match=registry.address):
            fetch(registry, cache)
        assert list(cache.blobs.folder.glob("blobs/sha256/*")) == []
        registry.lies = ""
        assert fetch(registry, cache).python == "Python 3.11"


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(cache: LayerCache) -> None:
    with with_base(lies="manifest") as registry:
        for wanted in (":1", f"@{digest_of(registry.manifests['1'][1])}"):
            with pytest.raises(BlobCorrupt):
                fetch(registry, cache, wanted)


def test_more_bytes_than_announced_are_not_read(cache: LayerCache) -> None:
    with with_base() as registry:
        layer = max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))
        registry.blobs[layer] += bytes(50_000_000)
        with pytest.raises(BlobCorrupt):
            fetch(registry, cache)


def test_a_layer_that_is_not_what_the_config_says_is_refused(cache: LayerCache) -> None:
    layer = gzip.compress(python_layer())
    with hostile_registry() as registry:
        registry.add_image([layer], config=config_of([python_layer("3.12")]))
        with pytest.raises(BaseUnreadable, match="a layer is not what its config says"):
            fetch(registry, cache)


@pytest.mark.parametrize("kind", [MEDIA_OCI_LAYER_ZSTD, "application/vnd.docker.image.rootfs.diff.tar.zstd"])
def test_layers_in_zstd_are_read_and_checked(cache: LayerCache, kind: str) -> None:
    plain = python_layer("3.13", size=300_000)
    half = len(plain) // 2
    # Two frames one after the other, as parallel compressors write them.
    packed = zstandard.compress(plain[:half]) + zstandard.compress(plain[half:])
    with hostile_registry() as registry:
        registry.add_image([packed], config=config_of([plain]), layer_type=kind, tag="1")
        registry.add_image([packed], config=config_of([python_layer()]), layer_type=kind, tag="2")
        registry.add_image([packed[:-40]], config=config_of([plain]), layer_type=kind, tag="3")
        base = fetch(registry, cache)
        assert (base.python, base.layers[0].media_type) == ("Python 3.13", MEDIA_OCI_LAYER_ZSTD)
        for wrong in (":2", ":3"):
            with pytest.raises(BaseUnreadable, match="a layer"):
                fetch(registry, cache, wrong)


def test_a_layer_in_docker_s_own_type_gets_its_oci_name(cache: LayerCache) -> None:
    plain = python_layer()
    with hostile_registry() as registry:
        kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        registry.add_image([gzip.compress(plain)], config=config_of([plain]), layer_type=kind)
        assert fetch(registry, cache).layers[0].media_type == MEDIA_OCI_LAYER_GZIP


def test_two_builds_at_once_fetch_one_base(cache: LayerCache) -> None:
    with with_base(size=1_000_000) as registry:
        found: list[BaseImage | HedgerowError] = []

        def work() -> None:
            try:
                found.append(fetch(registry, cache))
            except HedgerowError as problem:
                found.append(problem)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [found[0]] * 4
        assert isinstance(found[0], BaseImage)


def test_an_unknown_image_is_told(cache: LayerCache) -> None:
    with with_base() as registry, pytest.raises(RemoteImageUnknown, match=f"{registry.address} has no image .*team/python:9"):
        fetch(registry, cache, ":9")


def test_a_registry_that_is_down_is_told(cache: LayerCache) -> None:
    nobody = HostileRegistry(address=f"127.0.0.1:{free_port()}")
    with pytest.raises(RegistryUnreachable, match="refused"):
        fetch(nobody, cache)


def test_a_registry_that_is_busy_is_asked_again(cache: LayerCache) -> None:
    with with_base(busy=2) as registry:
        assert fetch(registry, cache).python == "Python 3.11"
        registry.busy = 50
        with pytest.raises(RegistryFailed, match="503"):
            fetch_base(f"{registry.address}/a:1", AMD64, cache, lambda: None, access)


def test_a_manifest_that_would_fill_the_memory_is_refused(cache: LayerCache) -> None:
    with with_base() as registry:
        registry.manifests["1"] = ("application/json", bytes(DOCUMENT_BYTES_MAX + 10))
        with pytest.raises(RemoteDocumentTooLarge):
            fetch(registry, cache)


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_who_may_gets_in_and_who_may_not_is_told(cache: LayerCache, scheme: str) -> None:
    with with_base(scheme=scheme, login=("ada", "right")) as registry:
        with pytest.raises(RegistryLoginFailed) as refused:
            fetch(registry, cache, logins={registry.address: Login("ada", "wrong")})
        assert "'ada'" in str(refused.value)
        assert "wrong" not in refused.value.sentence()
        with pytest.raises(RegistryLoginFailed):
            fetch(registry, cache)
        assert fetch(registry, cache, logins={registry.address: Login("ada", "right")}).python == "Python 3.11"


def test_anybody_gets_a_token_where_the_service_gives_one(cache: LayerCache) -> None:
    with with_base(scheme="bearer") as registry:
        assert fetch(registry, cache).python == "Python 3.11"
        (asked,) = registry.asked("GET", "/token")
        assert "scope=repository%3Ateam%2Fpython%3Apull" in asked.path


def test_a_token_that_runs_out_is_asked_for_anew(cache: LayerCache) -> None:
    with with_base(scheme="bearer", good_for=1) as registry:
        assert fetch(registry, cache).python == "Python 3.11"
        assert len(registry.asked("GET", "/token")) == 3


def test_a_registry_with_a_certificate_of_one_s_own(cache: LayerCache, tmp_path: Path) -> None:
    ca_file, context = make_ca(tmp_path, "127.0.0.1")
    with with_base(tls=context) as registry:
        reference = f"registry:https://{registry.address}/team/python:1"
        with pytest.raises(RegistryUnreachable, match="no encrypted connection"):
            fetch_base(reference, AMD64, cache, lambda: None, lambda: access(attempts=2))
        trusting = access(tls=lambda: tls_context(ca_file))
        assert fetch_base(reference, AMD64, cache, lambda: None, lambda: trusting).python == "Python 3.11"


def test_a_base_of_a_real_registry(cache: LayerCache, tmp_path: Path, docker_registry: OciRegistry, skopeo_binary: Path) -> None:
    archive = write_base_archive(tmp_path / "base.tar", python="3.12", gzip=True)
    target = f"{docker_registry.address}/bases/python"
    for form in ("oci", "v2s2"):
        copy = [
            "copy",
            "-q",
            "--format",
            form,
            "--dest-tls-verify=false",
            f"docker-archive:{archive}",
            f"docker://{target}:{form}",
        ]
        subprocess.run([str(skopeo_binary), "--insecure-policy", *copy], check=True, capture_output=True, timeout=60)
        base = fetch_base(f"{target}:{form}", AMD64, cache, lambda: None, access)
        assert base.python == "Python 3.12"
        assert [layer.media_type for layer in base.layers] == [MEDIA_OCI_LAYER_GZIP]


def test_credentials_do_not_follow_a_redirect_to_another_host(cache: LayerCache) -> None:
    login = Login("ada", "right")
    with with_base(scheme="basic", login=("ada", "right")) as registry, hostile_registry() as other:
        other.blobs, registry.moved_to = registry.blobs, f"http://{other.address}"
        assert fetch(registry, cache, logins={registry.address: login}).python == "Python 3.11"
        assert other.seen
        assert not [one for one in other.seen if "authorization" in one.headers]


def test_a_challenge_of_the_other_host_is_not_answered(cache: LayerCache) -> None:
    """What a redirect leads to cannot ask for the password, nor for a token to be fetched from where it likes."""
    with with_base() as registry, hostile_registry(scheme="basic", login=("ada", "right")) as other:
        registry.moved_to = f"http://{other.address}"
        logins = {registry.address: Login("ada", "right"), other.address: Login("ada", "right")}
        with pytest.raises(RegistryFailed, match="401"):
            fetch(registry, cache, logins=logins)
        assert not [one for one in other.seen if "authorization" in one.headers]


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "https://169.254.169.254/latest", "https://10.0.0.1/token"])
def test_a_token_service_where_nobody_should_ask_is_refused(cache: LayerCache, realm: str) -> None:
    with (
        with_base(scheme="bearer", realm=realm) as registry,
        pytest.raises(EgressRefused, match=r"169\.254\.169\.254|10\.0\.0\.1"),
    ):
        fetch(registry, cache)


@pytest.mark.parametrize(
    "where", ["http://10.0.0.1", "http://169.254.169.254", "https://192.168.1.1", "file:///etc", "http://[::1]:1"]
)
def test_a_redirect_to_a_private_address_is_refused(cache: LayerCache, where: str) -> None:
    with with_base(moved_to=where) as registry, pytest.raises(EgressRefused):
        fetch(registry, cache)


def test_redirects_in_circles_end(cache: LayerCache) -> None:
    with with_base() as registry:
        registry.moved_to = f"http://{registry.address}"
        with pytest.raises(RegistryFailed, match="circles"):
            fetch(registry, cache)


def test_without_leave_no_private_registry_is_called(cache: LayerCache) -> None:
    with with_base() as registry:
        with pytest.raises(EgressRefused, match="no public address"):
            fetch(registry, cache, policy=EgressPolicy())
        assert registry.seen == []


def test_a_reference_that_is_none_is_refused(cache: LayerCache) -> None:
    for reference in ("registry:", "ftp:thing", "python:3.11", "oci:"):
        with pytest.raises(BaseUnsupported):
            fetch_base(reference, AMD64, cache, lambda: None, access)
