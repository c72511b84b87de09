"""Pushing an image to registries of others: a real one, and one that breaks the line, forgets, or wants to know who asks."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from hedgerow.backoff import Backoff
from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.document import convert, digest_of, encode
from hedgerow.contracts.names import (
    ARTIFACT_BUILD_REPORT,
    ARTIFACT_SBOM,
    MEDIA_OCI_CONFIG,
    MEDIA_OCI_INDEX,
    MEDIA_OCI_LAYER_TAR,
)
from hedgerow.contracts.oci import Descriptor, Platform
from hedgerow.contracts.push import PushRequest, PushResult, RegistryCredentials
from hedgerow.contracts.remote_image import RemoteReferenceInvalid
from hedgerow.egress import EgressPolicy, EgressRefused
from packager.distribution.access import RemoteAccess
from packager.distribution.errors import (
    RegistryLoginFailed,
    RegistryUnreachable,
    TransferBroken,
)
from packager.distribution.push import push
from packager.errors import BlobCorrupt
from packager.oci.layout import OciLayout
from tests.cutting_proxy import cutting_proxy
from tests.fixtures.oci_registry import OciRegistry
from tests.hostile_registry import HostileRegistry, hostile_registry
from tests.packager_process import run_verb
from tests.waiting import free_port, wait_for

MB = 1_000_000
SHARED = random.Random(1).randbytes(2 * MB)


def write_layout(folder: Path, *, model: bytes = b"model", platforms: tuple[str, ...] = ("linux/amd64",)) -> Descriptor:
    """An image of a shared layer and a model's, with an SBOM and a report beside it; returns its top."""
    layout = OciLayout(folder)
    layers = [_layer(layout, SHARED), _layer(layout, model)]
    manifests = []
    for platform in platforms:
        config = layout.add_document(json.dumps({"platform": platform}).encode(), MEDIA_OCI_CONFIG)
        manifests.append(layout.add_manifest(config, layers, platform=Platform.parse(platform)))
    top = layout.add_top(manifests)
    beside = [layout.add_artifact(top, ARTIFACT_SBOM, b'{"sbom": 1}'), layout.add_artifact(top, ARTIFACT_BUILD_REPORT, b"{}")]
    layout.seal(top, "churn:1", beside)
    return top


def _layer(layout: OciLayout, data: bytes) -> Descriptor:
    blob = layout.blobs.add([data])
    return Descriptor(media_type=MEDIA_OCI_LAYER_TAR, digest=blob.digest, size=blob.size_bytes)


def push_it(folder: Path, top: Descriptor, target: str, *, access: dict[str, Any] | None = None, **changes: Any) -> PushResult:
    allowed: dict[str, Any] = {"policy": EgressPolicy.parse("127.0.0.1"), "backoff": Backoff(first_s=0.001, cap_s=0.002)}
    request = PushRequest(layout=str(folder), source=top.digest, target=target, **changes)
    return push(request, RemoteAccess(**{**allowed, **(access or {})}), lambda _share, _step: None)


def test_only_what_the_registry_lacks_is_sent(tmp_path: Path, docker_registry: OciRegistry) -> None:
    first, second = write_layout(tmp_path / "1"), write_layout(tmp_path / "2", model=b"better model")
    target = f"{docker_registry.address}/only/churn"
    made = push_it(tmp_path / "1", first, f"{target}:1")
    assert made.digest == first.digest
    assert made.reference == f"{target}@{first.digest}"
    assert digest_of(SHARED) in [blob.digest for blob in made.pushed]
    again = push_it(tmp_path / "2", second, f"{target}:2")
    model = digest_of(b"better model")
    assert [(blob.digest, blob.size_bytes) for blob in again.pushed] == [(model, 12)]
    assert again.pushed_bytes == 12
    assert digest_of(SHARED) in again.already_there
    nothing = push_it(tmp_path / "2", second, f"{target}:2")
    assert (nothing.pushed, nothing.mounted, nothing.manifests) == ([], [], [])
    with httpx.Client(base_url=f"http://{docker_registry.address}/v2/only/churn") as there:
        assert digest_of(there.get(f"/blobs/{model}").content) == model
        head = there.head("/manifests/2", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        assert head.headers["docker-content-digest"] == second.digest


def test_blobs_of_a_neighbour_are_mounted(tmp_path: Path, docker_registry: OciRegistry) -> None:
    first, second = write_layout(tmp_path / "1"), write_layout(tmp_path / "2", model=b"another")
    push_it(tmp_path / "1", first, f"{docker_registry.address}/mount/one:1")
    made = push_it(tmp_path / "2", second, f"{docker_registry.address}/mount/two:1", mount_from=["mount/nobody", "mount/one"])
    assert digest_of(SHARED) in made.mounted
    assert [blob.digest for blob in made.pushed if blob.media_type == MEDIA_OCI_LAYER_TAR] == [digest_of(b"another")]


def test_an_index_and_what_lies_beside_it_arrive(tmp_path: Path, docker_registry: OciRegistry) -> None:
    top = write_layout(tmp_path / "1", platforms=("linux/amd64", "linux/arm64"))
    target = f"{docker_registry.address}/several/churn"
    made = push_it(tmp_path / "1", top, f"{target}:1")
    with httpx.Client(base_url=f"http://{docker_registry.address}/v2/several/churn") as there:
        accept = {"Accept": MEDIA_OCI_INDEX}
        index = there.get("/manifests/1", headers=accept).json()
        assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]
        # This registry keeps no lists of referrers, so they are a tag.
        listed = there.get(f"/manifests/{top.digest.replace(':', '-')}", headers=accept).json()["manifests"]
    assert {one["artifactType"] for one in listed} == {ARTIFACT_SBOM, ARTIFACT_BUILD_REPORT}
    assert {one["digest"] for one in listed} == set(made.referrers)
    assert made.manifests[-1] == top.digest, "the tag moves last"


def test_what_was_pushed_is_pulled_by_another_tool(tmp_path: Path, docker_registry: OciRegistry, skopeo_binary: Path) -> None:
    top = write_layout(tmp_path / "1", platforms=("linux/amd64", "linux/arm64"))
    target = f"{docker_registry.address}/skopeo/churn:1"
    push_it(tmp_path / "1", top, target)
    copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", f"docker://{target}", f"oci:{tmp_path / 'pulled'}:1"]
    subprocess.run([str(skopeo_binary), "--insecure-policy", *copy], check=True, capture_output=True, timeout=60)
    index = json.loads((tmp_path / "pulled" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == top.digest


@pytest.mark.parametrize("cuts", [[700_000], [700_000, 50_000, 900_000]])
def test_a_broken_upload_goes_on_where_it_was(tmp_path: Path, cuts: list[int]) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(cut_uploads=list(cuts)) as registry:
        made = push_it(tmp_path / "1", top, f"{registry.address}/churn:1", chunk_bytes=MB)
        assert registry.blobs[digest_of(SHARED)] == SHARED
        assert digest_of(SHARED) in [blob.digest for blob in made.pushed]
        chunks = [*registry.asked("PATCH", "uploads"), *registry.asked("PUT", "uploads")]
        begins = sorted(int(one.headers.get("content-range", "0-").partition("-")[0]) for one in chunks)
        assert 700_000 in begins, "the registry's word is taken for how far it got"
        assert sum(one.sent_bytes for one in chunks) < len(SHARED) + MB


def test_a_registry_that_forgets_an_upload_gets_it_anew(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(cut_uploads=[700_000], forget_uploads=True) as registry:
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1", chunk_bytes=MB)
        assert registry.blobs[digest_of(SHARED)] == SHARED


def test_a_line_that_always_breaks_is_told(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(cut_uploads=[0] * 100) as registry:
        with pytest.raises((TransferBroken, RegistryUnreachable)):
            push_it(tmp_path / "1", top, f"{registry.address}/churn:1", attempts=3)
        assert "1" not in registry.manifests


def test_a_real_registry_takes_chunks(tmp_path: Path, docker_registry: OciRegistry) -> None:
    top = write_layout(tmp_path / "1", model=random.Random(2).randbytes(3 * MB))
    made = push_it(tmp_path / "1", top, f"{docker_registry.address}/chunks/churn:1", chunk_bytes=MB)
    found = httpx.get(f"http://{docker_registry.address}/v2/chunks/churn/blobs/{made.pushed[0].digest}").content
    assert digest_of(found) == made.pushed[0].digest


def test_a_registry_with_lists_of_referrers_gets_no_tag(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(keeps_referrers=True) as registry:
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1")
        assert [name for name in registry.manifests if name.startswith("sha256-")] == []


def test_the_list_by_tag_keeps_what_others_put_there(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    tag = top.digest.replace(":", "-")
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + "b" * 64, "size": 3}
    with hostile_registry() as registry:
        there = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": [entry]}).encode()
        registry.add_manifest(there, MEDIA_OCI_INDEX, tag)
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1")
        digests = [one["digest"] for one in json.loads(registry.manifests[tag][1])["manifests"]]
    assert digests[0] == entry["digest"]
    assert len(digests) == 3


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_credentials_are_given_to_who_asks_for_them(tmp_path: Path, scheme: str) -> None:
    top = write_layout(tmp_path / "1")
    good, wrong = RegistryCredentials(username="ada", password="right"), RegistryCredentials(username="ada", password="geheim")
    with hostile_registry(scheme=scheme, login=("ada", "right")) as registry:
        with pytest.raises(RegistryLoginFailed) as refused:
            push_it(tmp_path / "1", top, f"{registry.address}/churn:1", credentials=wrong)
        assert "geheim" not in refused.value.sentence()
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1", credentials=good, mount_from=["a/b"])
        assert registry.manifests["1"][1]
        if scheme == "bearer":
            asked = registry.asked("GET", "/token")[-1].path
            assert "repository%3Achurn%3Apull%2Cpush" in asked
            assert "repository%3Aa%2Fb%3Apull" in asked


def test_uploads_elsewhere_get_content_and_no_credentials(tmp_path: Path) -> None:
    """Registries in front of a store of objects say so; the store is another host, which the password is not for."""
    top = write_layout(tmp_path / "1")
    login = RegistryCredentials(username="ada", password="right")
    with hostile_registry() as store, hostile_registry(scheme="basic", login=("ada", "right")) as registry:
        store.blobs, store.uploads = registry.blobs, registry.uploads
        registry.uploads_at = f"http://{store.address}"
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1", credentials=login)
        assert registry.blobs[digest_of(SHARED)] == SHARED
        assert store.seen
        assert not [one for one in store.seen if "authorization" in one.headers]
        registry.blobs.clear()
        for nowhere in ("http://10.0.0.1", "https://169.254.169.254"):
            registry.uploads_at = nowhere
            with pytest.raises(EgressRefused):
                push_it(tmp_path / "1", top, f"{registry.address}/churn:2", credentials=login)


def test_tokens_that_run_out_during_a_push_are_renewed(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(scheme="bearer", good_for=3) as registry:
        push_it(tmp_path / "1", top, f"{registry.address}/churn:1", chunk_bytes=MB // 2)
        assert registry.blobs[digest_of(SHARED)] == SHARED


def test_a_private_registry_is_not_called_without_leave(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry() as registry:
        with pytest.raises(EgressRefused):
            push_it(tmp_path / "1", top, f"{registry.address}/churn:1", access={"policy": EgressPolicy()})
        assert registry.seen == []


def test_a_layout_that_lacks_content_sends_nothing(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    (tmp_path / "1" / "blobs" / "sha256" / digest_of(SHARED).removeprefix("sha256:")).unlink()
    with hostile_registry() as registry:
        with pytest.raises(BlobCorrupt):
            push_it(tmp_path / "1", top, f"{registry.address}/churn:1")
        assert registry.seen == []


def test_another_digest_than_the_image_s_is_no_target(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with pytest.raises(RemoteReferenceInvalid):
        push_it(tmp_path / "1", top, f"127.0.0.1:1/churn@sha256:{'a' * 64}")


def run_push(folder: Path, request: PushRequest, environment: dict[str, str]) -> tuple[int, list[ProgressLine], str]:
    done = run_verb("push", request, folder, environment, timeout_s=60)
    return done.exit_code, done.lines, done.stderr


def test_the_process_tells_its_progress_and_never_the_password(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(scheme="bearer", login=("ada", "geheim")) as registry:
        credentials = RegistryCredentials(username="ada", password="geheim")
        request = PushRequest(
            layout=str(tmp_path / "1"), source=top.digest, target=f"{registry.address}/churn:1", credentials=credentials
        )
        environment = {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1", "HEDGEROW_LOG_LEVEL": "debug"}
        code, lines, stderr = run_push(tmp_path, request, environment)
        assert code == 0, (lines[-1], stderr)
        result = convert(lines[-1].result or {}, PushResult)
        assert result.pushed_bytes > len(SHARED)
        shares = [line.progress for line in lines if line.progress is not None]
        assert shares == sorted(shares)
        assert "geheim" not in stderr + str(lines)
        registry.login = ("ada", "other")
        registry.manifests.clear()
        code, lines, stderr = run_push(tmp_path, request, environment)
        assert code == 1
        assert lines[-1].problem is not None
        assert lines[-1].problem.code == "registry_login_failed"
        assert "geheim" not in stderr + str(lines)


def test_a_push_that_is_asked_to_end_ends(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    order, goes_on = tmp_path / "push.json", threading.Event()
    with hostile_registry(holds=goes_on) as registry:
        order.write_bytes(encode(PushRequest(layout=str(tmp_path / "1"), source=top.digest, target=f"{registry.address}/a:1")))
        argv = [sys.executable, "-P", "-m", "packager", "push", str(order)]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"}) as process:
            wait_for(lambda: registry.asked("PUT", "uploads"), what="uploads being under way")
            process.terminate()
            assert process.wait(timeout=5) == 128 + signal.SIGTERM
        goes_on.set()


def test_logins_come_from_a_docker_config_too(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(scheme="basic", login=("ada", "right")) as registry:
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"auths": {registry.address: {"username": "ada", "password": "right"}}}))
        request = PushRequest(layout=str(tmp_path / "1"), source=top.digest, target=f"{registry.address}/churn:1")
        environment = {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1", "HEDGEROW_REGISTRY_LOGINS": str(file)}
        code, lines, stderr = run_push(tmp_path, request, environment)
        assert code == 0, (lines[-1], stderr)


def test_a_registry_that_is_down_is_told_by_the_process(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    nobody = HostileRegistry(address=f"127.0.0.1:{free_port()}")
    request = PushRequest(layout=str(tmp_path / "1"), source=top.digest, target=f"{nobody.address}/churn:1", attempts=1)
    code, lines, _ = run_push(tmp_path, request, {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"})
    assert code == 1
    assert lines[-1].problem is not None
    assert lines[-1].problem.code == "registry_unreachable"


def test_a_real_registry_behind_a_line_that_breaks_gets_everything_once(tmp_path: Path, docker_registry: OciRegistry) -> None:
    model = random.Random(3).randbytes(4 * MB)
    top = write_layout(tmp_path / "1", model=model)
    with cutting_proxy(docker_registry.address, [1_500_000, 2_700_000]) as line:
        made = push_it(tmp_path / "1", top, f"{line}/broken/churn:1", chunk_bytes=MB)
    assert digest_of(model) in [blob.digest for blob in made.pushed]
    found = httpx.get(f"http://{docker_registry.address}/v2/broken/churn/blobs/{digest_of(model)}").content
    assert found == model
