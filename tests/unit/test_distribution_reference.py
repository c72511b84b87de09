"""How images in registries are named, what a registry's challenge means, and what a Docker config.json says."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from hedgerow.contracts.push import RegistryCredentials
from hedgerow.contracts.remote_image import DOCKER_HUB, RemoteImage, RemoteReferenceInvalid, names_a_host, push_target
from packager.distribution.challenge import read_challenges, token_address
from packager.distribution.errors import LoginsUnreadable
from packager.distribution.login import Login
from packager.distribution.logins import read_logins

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "origin", "repository", "wanted"),
    [
        ("python", f"https://{DOCKER_HUB}", "library/python", "latest"),
        ("python:3.11-slim", f"https://{DOCKER_HUB}", "library/python", "3.11-slim"),
        ("grafana/grafana:1", f"https://{DOCKER_HUB}", "grafana/grafana", "1"),
        ("docker.io/library/python:3.11", f"https://{DOCKER_HUB}", "library/python", "3.11"),
        ("docker.io/python", f"https://{DOCKER_HUB}", "library/python", "latest"),
        ("ghcr.io/a/b/c:v1", "https://ghcr.io", "a/b/c", "v1"),
        ("Registry.Example.COM:8443/a", "https://registry.example.com:8443", "a", "latest"),
        ("localhost/a", "http://localhost", "a", "latest"),
        ("127.0.0.1:5000/a:1", "http://127.0.0.1:5000", "a", "1"),
        ("[::1]:5000/a", "http://[::1]:5000", "a", "latest"),
        ("https://localhost:5000/a", "https://localhost:5000", "a", "latest"),
        ("http://registry.internal/a", "http://registry.internal", "a", "latest"),
        (f"ghcr.io/a@{DIGEST}", "https://ghcr.io", "a", DIGEST),
        (f"ghcr.io/a:1@{DIGEST}", "https://ghcr.io", "a", DIGEST),
    ],
)
def test_a_reference_says_where_and_what(text: str, origin: str, repository: str, wanted: str) -> None:
    image = RemoteImage.parse(text)
    assert (image.origin, image.repository, image.wanted) == (origin, repository, wanted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghcr.io/",
        "ghcr.io/UPPER",
        "ghcr.io/a:",
        "ghcr.io/a:b c",
        "ghcr.io/a@sha256:short",
        "ghcr.io/../a",
        "ghcr.io/a?x=1",
        "ghcr.io/a#b",
        "ftp://ghcr.io/a",
        "host:port/a",
        "a.b/" + "x" * 300,
        "127.0.0.1:5000/a\n",
    ],
)
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(RemoteReferenceInvalid):
        RemoteImage.parse(text)


def test_a_password_in_a_reference_is_not_repeated() -> None:
    with pytest.raises(RemoteReferenceInvalid) as refused:
        RemoteImage.parse("ada:geheim@ghcr.io/a")
    assert "geheim" not in refused.value.sentence()


@pytest.mark.parametrize(
    ("text", "host"),
    [("a.b/c", True), ("localhost/c", True), ("a:5000/c", True), ("a/c", False), ("a.b", False), ("oci:/a/b", False)],
)
def test_a_first_part_that_can_only_be_a_host(text: str, host: bool) -> None:
    assert names_a_host(text) is host


@pytest.mark.parametrize("text", ["churn", "churn:4", "team/churn:4", "http://churn", "https://team/churn", "ada:geheim@a.b/c"])
def test_a_push_names_its_registry(text: str) -> None:
    with pytest.raises(RemoteReferenceInvalid, match="a push names its registry") as refused:
        push_target(text)
    assert "geheim" not in refused.value.sentence()


def test_a_push_to_docker_hub_says_so() -> None:
    assert push_target("docker.io/ada/churn:4").host == DOCKER_HUB
    assert push_target("http://10.1.2.3:5000/churn").origin == "http://10.1.2.3:5000"
    with pytest.raises(RemoteReferenceInvalid, match="is no tag"):
        push_target("a.b/churn:")


def test_challenges_are_read_as_the_standard_writes_them() -> None:
    text = 'Basic realm="a, \\"b\\"", Bearer realm="https://t.example/token",service="r",scope="repository:a:pull,push"'
    basic, bearer = read_challenges([text])
    assert (basic.scheme, basic.parameters) == ("basic", {"realm": 'a, "b"'})
    assert bearer.parameters["scope"] == "repository:a:pull,push"
    wanted = token_address(bearer, ["repository:a:pull,push", "repository:b:pull"])
    assert wanted == ("https://t.example/token?service=r&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull")


@pytest.mark.parametrize(
    "text", ["", ",,,", "=", '"', "Bearer realm=", 'x="unclosed', "a" * 100_000, "Bearer " + 'a="b",' * 5000]
)
def test_nonsense_in_a_challenge_harms_nobody(text: str) -> None:
    assert len(read_challenges([text])) <= 2


def _auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_logins_of_docker_are_read_by_host(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    auths = {
        f"https://{DOCKER_HUB.replace('registry-1', 'index')}/v1/": {"auth": _auth("hub:pass:word")},
        "ghcr.io": {"username": "ada", "password": "secret"},
        "https://R.example.com/v2/": {"auth": _auth("bob:x\0\0")},
        "kept.by.a.helper": {},
    }
    file.write_text(json.dumps({"auths": auths, "credsStore": "desktop", "psFormat": "x"}))
    assert read_logins(file).logins == {
        DOCKER_HUB: Login("hub", "pass:word"),
        "ghcr.io": Login("ada", "secret"),
        "r.example.com": Login("bob", "x"),
    }


@pytest.mark.parametrize(
    "content",
    ["{", '{"auths": 3}', '{"auths": {"a.b": {"auth": "geheim!"}}}', json.dumps({"auths": {"a": {"auth": _auth("geheim")}}})],
)
def test_a_file_of_logins_that_is_none_is_told_without_what_it_says(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(LoginsUnreadable) as refused:
        read_logins(file)
    assert "geheim" not in refused.value.sentence()
    with pytest.raises(LoginsUnreadable):
        read_logins(tmp_path / "missing")


def test_passwords_are_not_shown() -> None:
    assert "geheim" not in repr(Login("ada", "geheim"))
    assert "geheim" not in repr(RegistryCredentials(username="ada", password="geheim"))
