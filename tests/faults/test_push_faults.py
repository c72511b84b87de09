"""Pushes that are cut off: by the network, by a restart, by kill -9, by another pusher; and what nobody goes on with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from hedgerow.contracts.names import ARTIFACT_SBOM
from tests.oci_client import OCTETS, Pusher, artifact, container, digest_of, oci_code
from tests.registry_server import RunningServer, running_server
from tests.registry_stores import BACKENDS
from tests.small_disk import small_disk
from tests.waiting import wait_for

MEGABYTE = 1024 * 1024


def half_sent(server: RunningServer, location: str, content: bytes, announced: int) -> socket.socket:
    """A PATCH of ``announced`` bytes of which only ``content`` is sent."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10)
    head = (
        f"PATCH {location} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.owner_token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {announced}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def unfinished(server: RunningServer) -> list[Path]:
    return list((server.workspace / "work" / "pushes").glob("*"))


def size_on_disk(server: RunningServer) -> int:
    return sum(path.stat().st_size for path in unfinished(server))


def test_an_upload_goes_on_after_its_connection_broke(tmp_path: Path) -> None:
    content = os.urandom(4 * MEGABYTE)
    with running_server(tmp_path) as server, server.client() as api:
        pusher = Pusher(api, "poor-link")
        location = pusher.begin().headers["location"]
        with half_sent(server, location, content[: 2 * MEGABYTE], len(content)):
            wait_for(lambda: size_on_disk(server) == 2 * MEGABYTE, what="half of the upload on disk")
            busy = pusher.chunk(location, b"x")
            assert (busy.status_code, oci_code(busy)) == (409, "BLOB_UPLOAD_INVALID"), "one writes at a time"
        wait_for(lambda: pusher.chunk(location, b"").status_code == 202, what="the broken request to end")
        assert api.get(location).headers["range"] == f"0-{2 * MEGABYTE - 1}"
        assert pusher.finish(location, content[2 * MEGABYTE :], digest_of(content)).status_code == 201
        assert pusher.get(f"blobs/{digest_of(content)}").content == content
        assert unfinished(server) == []


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    content = os.urandom(4 * MEGABYTE)
    image = container(content)
    with running_server(tmp_path) as server:
        with server.client() as api:
            pusher = Pusher(api, "killed")
            pusher.upload(image.blobs[0])
            location = pusher.begin().headers["location"]
            with half_sent(server, location, content[: 2 * MEGABYTE], len(content)):
                wait_for(lambda: size_on_disk(server) == 2 * MEGABYTE, what="half of the upload on disk")
                server.process.kill()
        server.start()
        with server.client() as api:
            pusher = Pusher(api, "killed")
            assert pusher.get(f"blobs/{digest_of(content)}").status_code == 404
            assert pusher.get("tags/list").status_code == 404
            there = int(api.get(location).headers["range"].partition("-")[2]) + 1
            assert there == 2 * MEGABYTE
            assert pusher.finish(location, content[there:], digest_of(content)).status_code == 201
            assert pusher.manifest(image, "1").status_code == 201
            assert pusher.tags() == ["1"]


def test_a_server_killed_at_any_moment_of_a_push_has_all_of_it_or_nothing(tmp_path: Path) -> None:
    """Again and again, each time a little later."""
    images = [container(os.urandom(200_000), labels={"n": str(number)}) for number in range(4)]
    with running_server(tmp_path) as server:
        for number, image in enumerate(images):

            def push(image: object = image, number: int = number) -> None:
                with server.client() as api:
                    pusher = Pusher(api, "cut")
                    for content in images[number].blobs:
                        pusher.upload(content)
                    pusher.manifest(images[number], "t")

            with ThreadPoolExecutor(1) as pool:
                pushing = pool.submit(push)
                # The delay is the work of the server itself: so many of its answers later.
                with server.client() as other:
                    for _ in range(number * 4):
                        other.get("/healthz")
                server.process.kill()
                assert isinstance(pushing.exception(30), httpx.HTTPError | KeyError | AssertionError | None)
            server.start()
            with server.client() as api:
                pusher = Pusher(api, "cut")
                answered = pusher.get("tags/list")
                for tag in answered.json()["tags"] if answered.status_code == 200 else []:
                    manifest = pusher.get(f"manifests/{tag}")
                    assert manifest.content in [one.manifest for one in images]
                    body = manifest.json()
                    for one in (body["config"], *body["layers"]):
                        assert digest_of(pusher.get(f"blobs/{one['digest']}").content) == one["digest"]
                pusher.push(image, "t")
                assert pusher.get("manifests/t").content == image.manifest


@pytest.fixture(params=BACKENDS)
def options(request: pytest.FixtureRequest) -> list[str]:
    """Of a server on either database: locks differ most where pushers meet."""
    return ["--database", request.getfixturevalue("postgres_url")] if request.param == "postgresql" else []


def test_two_push_the_same_at_once(tmp_path: Path, options: list[str]) -> None:
    layer = os.urandom(3 * MEGABYTE)
    image = container(layer)
    beside = artifact(image, b"sbom", ARTIFACT_SBOM)

    def push(number: int) -> str:
        with server.client() as api:
            pusher = Pusher(api, "both")
            if number % 2:
                pusher.push(beside)
            pusher.push(image, "same")
            pusher.push(beside)
            return pusher.get("manifests/same").headers["docker-content-digest"]

    with running_server(tmp_path, *options) as server, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(push, range(8))) == {image.digest}
        with server.client() as api:
            pusher = Pusher(api, "both")
            assert pusher.tags() == ["1", "same"]
            assert len(pusher.get(f"referrers/{image.digest}").json()["manifests"]) == 1
            assert digest_of(pusher.get(f"blobs/{digest_of(layer)}").content) == digest_of(layer)


def test_different_images_of_shared_layers_at_once(tmp_path: Path, options: list[str]) -> None:
    """Each wants the same blobs in another order; nobody waits for anybody in a circle."""
    shared = [b"layer %d" % number * 10_000 for number in range(4)]

    def push(number: int) -> str:
        with server.client() as api:
            pusher, image = Pusher(api, "sharing"), container(*shared[number:], *shared[:number], labels={"n": str(number)})
            for turn in range(3):
                pusher.push(image, f"tag-{number}")
                pusher.push(artifact(image, b"note %d" % turn, ARTIFACT_SBOM))
            assert len(pusher.get(f"referrers/{image.digest}").json()["manifests"]) == 3
            return f"tag-{number}"

    with running_server(tmp_path, *options) as server, ThreadPoolExecutor(4) as pool:
        tags = list(pool.map(push, range(4)))
        with server.client() as api:
            assert Pusher(api, "sharing").tags() == ["1", "2", "3", "4", *tags]


def test_numbers_are_given_once_to_pushers_at_once(tmp_path: Path, options: list[str]) -> None:
    images = [container(b"layer %d" % number) for number in range(8)]

    def push(number: int) -> int:
        with server.client() as api:
            pusher = Pusher(api, "numbered")
            for content in images[number].blobs:
                pusher.upload(content)
            return pusher.manifest(images[number], "1").status_code

    with running_server(tmp_path, *options) as server, ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(push, range(8))) == [201] + [409] * 7


def test_what_nobody_goes_on_with_ends(tmp_path: Path) -> None:
    with running_server(tmp_path, "--blob-lease-s", "1") as server, server.client() as api:
        pusher, image = Pusher(api, "left"), container(b"layer left alone")
        location = pusher.begin().headers["location"]
        pusher.chunk(location, b"begun")
        for content in image.blobs:
            pusher.upload(content)

        def is_over() -> bool:
            pusher.begin()
            return api.get(location).status_code == 404

        wait_for(is_over, what="the upload to be forgotten")
        # Content that no manifest named in time is nobody's.
        wait_for(lambda: pusher.get(f"blobs/{digest_of(b'layer left alone')}").status_code == 404, what="the blob to be let go")
        assert oci_code(pusher.manifest(image, "1")) == "MANIFEST_BLOB_UNKNOWN"


def test_a_collection_takes_pushes_that_nobody_went_on_with(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as api:
        pusher = Pusher(api, "swept")
        location = pusher.begin().headers["location"]
        pusher.chunk(location, b"begun")

        def collect(*options: str) -> dict[str, int]:
            argv = [
                sys.executable,
                "-P",
                "-m",
                "registry.controller.garbage_work",
                "--workspace",
                str(server.workspace),
                *options,
            ]
            done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
            return dict(json.loads(done.stdout.splitlines()[-1])["result"])

        assert collect()["leftovers"] == 0
        assert api.get(location).status_code == 204
        assert collect("--blob-lease-s", "0")["leftover_bytes"] == len(b"begun")
        assert api.get(location).status_code == 404


def test_a_full_disk_in_the_middle_of_a_chunk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "12m") as folder, running_server(folder) as server, server.client() as api:
        pusher = Pusher(api, "full")
        location = pusher.begin().headers["location"]
        refused = pusher.chunk(location, b"x" * (16 * MEGABYTE))
        assert refused.status_code == 503, refused.text
        assert "space" in refused.text
        assert api.delete(location).status_code == 204
        assert pusher.upload(b"small again").status_code == 201


def test_a_large_push_takes_little_memory(tmp_path: Path) -> None:
    size = 300 * MEGABYTE
    piece = os.urandom(MEGABYTE)
    whole = sha256(piece * 300).hexdigest()
    with running_server(tmp_path) as server, server.client() as api:
        pusher = Pusher(api, "large")
        pusher.upload(b"warm up")
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        location = pusher.begin().headers["location"]
        assert api.patch(location, content=(piece for _ in range(300)), headers=OCTETS).headers["range"] == f"0-{size - 1}"
        most = process.memory_info().rss
        assert pusher.finish(location, b"", f"sha256:{whole}").status_code == 201
        most = max(most, process.memory_info().rss)
        assert most - before < 64 * MEGABYTE
        # The content was linked into the store, not copied; a chunk of it is there to be pulled.
        part = pusher.get(f"blobs/sha256:{whole}", range=f"bytes={size - 10}-")
        assert (part.status_code, part.content) == (206, piece[-10:])
