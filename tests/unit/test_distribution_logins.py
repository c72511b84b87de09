"""Where logins are looked for, and which of several is the right one; programs that keep them are asked in tests/integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.remote_image import RemoteImage
from packager.distribution.challenge import exchange_form, read_challenges
from packager.distribution.credential_helper import CredentialHelpers
from packager.distribution.errors import LoginHelperMissing
from packager.distribution.login import Login
from packager.distribution.logins import find_login, places, read_logins

NO_HELPERS = CredentialHelpers({"PATH": ""})


def written(path: Path, **config: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def found(path: Path, image: str) -> str | None:
    login = read_logins(path).find(RemoteImage.parse(image), NO_HELPERS)
    return login.password if login else None


def test_the_longest_beginning_of_a_repository_wins(tmp_path: Path) -> None:
    keys = ["a.example", "a.example/team", "a.example/team/churn", "b.example/team", "https://c.example/v2/", "d.example/v1"]
    file = written(tmp_path / "auth.json", auths={key: {"username": "u", "password": key} for key in keys})
    assert found(file, "a.example/team/churn:1") == "a.example/team/churn"
    assert found(file, "a.example/team/other:1") == "a.example/team"
    assert found(file, "a.example/teams/churn:1") == "a.example"
    assert found(file, "b.example/team/x:1") == "b.example/team"
    assert found(file, "b.example/other:1") is None
    assert found(file, "c.example/any/thing:1") == "https://c.example/v2/"
    assert found(file, "d.example/any:1") == "d.example/v1"
    assert found(file, "a.example:5000/team/churn:1") is None


def test_an_identity_token_is_no_password(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", auths={"a.example": {"auth": "AAA=", "identitytoken": "it"}})
    login = read_logins(file).find(RemoteImage.parse("a.example/x:1"), NO_HELPERS)
    assert login == Login("<token>", "it")
    assert login is not None
    assert login.is_identity


def test_helpers_come_before_what_the_file_says_and_the_store_after(tmp_path: Path) -> None:
    file = written(
        tmp_path / "config.json",
        auths={"a.example": {"username": "u", "password": "p"}, "b.example": {"username": "u", "password": "p"}, "c.example": {}},
        credHelpers={"a.example": "for-a"},
        credsStore="for-all",
    )
    with pytest.raises(LoginHelperMissing, match="docker-credential-for-a"):
        found(file, "a.example/x:1")
    assert found(file, "b.example/x:1") == "p"
    with pytest.raises(LoginHelperMissing, match="docker-credential-for-all"):
        found(file, "c.example/x:1")


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "x/y", "-x", "$(id)"])
def test_what_names_no_program_is_not_started(name: str) -> None:
    with pytest.raises(LoginHelperMissing):
        CredentialHelpers({"PATH": "/usr/bin:/bin"}).ask(name, "a.example")


def test_nothing_at_all_is_no_login(tmp_path: Path) -> None:
    assert found(written(tmp_path / "1.json"), "a.example/x:1") is None
    assert found(written(tmp_path / "2.json", auths=None, credHelpers=None, credsStore=None), "a.example/x:1") is None


def test_the_places_of_podman_and_docker(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert places({}, home) == [home / ".config/containers/auth.json", home / ".docker/config.json"]
    environment = {
        "REGISTRY_AUTH_FILE": "/named.json",
        "DOCKER_CONFIG": "/docker",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "XDG_CONFIG_HOME": "/etc/mine",
    }
    assert places(environment, home) == [
        Path("/named.json"),
        Path("/docker/config.json"),
        Path("/run/user/1/containers/auth.json"),
        Path("/etc/mine/containers/auth.json"),
        home / ".docker/config.json",
    ]


def test_the_first_file_that_knows_a_login_is_taken(tmp_path: Path) -> None:
    podman = written(tmp_path / "podman.json", auths={"a.example": {"username": "u", "password": "podman"}})
    docker = written(
        tmp_path / "docker.json", auths={host: {"username": "u", "password": host} for host in ("a.example", "b.example")}
    )
    files = [tmp_path / "missing.json", podman, docker]
    assert find_login(RemoteImage.parse("a.example/x:1"), files, NO_HELPERS) == Login("u", "podman")
    assert find_login(RemoteImage.parse("b.example/x:1"), files, NO_HELPERS) == Login("u", "b.example")
    assert find_login(RemoteImage.parse("c.example/x:1"), files, NO_HELPERS) is None


def test_the_form_that_asks_for_a_token_with_an_identity_token() -> None:
    [challenge] = read_challenges(['Bearer realm="https://auth.example/token",service="a.example",scope="repository:x:pull"'])
    asked = exchange_form(challenge, ["repository:x:pull,push"], "a b&c").decode()
    assert asked == (
        "grant_type=refresh_token&client_id=hedgerow&refresh_token=a+b%26c&scope=repository%3Ax%3Apull%2Cpush&service=a.example"
    )
