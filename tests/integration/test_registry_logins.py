"""Logins that programs keep, and identity tokens: real helper programs, and a registry that wants to know who asks."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hedgerow.backoff import Backoff
from hedgerow.contracts.push import PushRequest, RegistryCredentials
from hedgerow.contracts.remote_image import HUB_LOGIN_KEY, RemoteImage
from hedgerow.egress import EgressPolicy
from packager.distribution.access import RemoteAccess
from packager.distribution.credential_helper import CredentialHelpers
from packager.distribution.errors import LoginHelperFailed, LoginHelperMissing, RegistryLoginFailed
from packager.distribution.login import Login
from packager.distribution.logins import read_logins
from packager.distribution.push import push
from packager.distribution.repository import Repository
from tests.hostile_registry import HostileRegistry, hostile_registry
from tests.integration.test_push import run_push, write_layout

# A helper as Docker wants it: it keeps what its file says, by registry.
_HELPER = """\
#!{python} -I
import json, os, pathlib, sys
asked = sys.stdin.read()
here = pathlib.Path(__file__)
with here.with_suffix(".log").open("a") as log:
    log.write(" ".join([*sys.argv[1:], asked]) + "\\n")
known = json.loads(here.with_suffix(".json").read_text())
if asked not in known:
    print("credentials not found in native keychain")
    sys.exit(1)
print(json.dumps({{"ServerURL": asked, "Username": known[asked][0], "Secret": known[asked][1]}}))
"""


def helper(folder: Path, name: str, **known: tuple[str, str]) -> Path:
    """A credential helper in ``folder``; the path of the file into which it writes what it was asked."""
    program(folder, name, _HELPER.format(python=sys.executable))
    (folder / f"docker-credential-{name}.json").write_text(json.dumps(known))
    return folder / f"docker-credential-{name}.log"


def program(folder: Path, name: str, text: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(text)
    path.chmod(0o755)


def pull_token(registry: HostileRegistry, folder: Path, **config: Any) -> None:
    """Look for a manifest there with the logins of a file like Docker's, and with helpers of ``folder``."""
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    known, helpers = read_logins(file), CredentialHelpers({"PATH": str(folder)})
    access = RemoteAccess(
        EgressPolicy.parse("127.0.0.1"),
        look_up_login=lambda image: known.find(image, helpers),
        attempts=2,
        backoff=Backoff(first_s=0.01, cap_s=0.02),
    )
    with (
        Repository(RemoteImage.parse(f"{registry.address}/churn:1"), access) as repository,
        repository.ask("GET", repository.address("manifests/1")) as answer,
    ):
        assert answer.status == 404


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_helper_says_who_we_are(tmp_path: Path, scheme: str) -> None:
    with hostile_registry(scheme=scheme, login=("ada", "right")) as registry:
        asked = helper(tmp_path, "safe", **{registry.address: ("ada", "right")})
        other = helper(tmp_path, "other")
        pull_token(registry, tmp_path, credHelpers={registry.address: "safe"}, credsStore="other")
        assert asked.read_text().split() == ["get", registry.address]
        assert not other.exists()


def test_the_store_is_asked_for_all_others(tmp_path: Path) -> None:
    with hostile_registry(scheme="basic", login=("ada", "right")) as registry:
        helper(tmp_path, "store", **{registry.address: ("ada", "right")})
        pull_token(registry, tmp_path, auths={registry.address: {}}, credHelpers={"elsewhere.example": "x"}, credsStore="store")


def test_nobody_is_asked_where_nobody_wants_to_know(tmp_path: Path) -> None:
    with hostile_registry() as registry:
        asked = helper(tmp_path, "store", **{registry.address: ("ada", "right")})
        pull_token(registry, tmp_path, credsStore="store")
        assert not asked.exists()


def test_a_helper_that_knows_nothing_is_no_error_of_its_own(tmp_path: Path) -> None:
    with hostile_registry(scheme="basic", login=("ada", "right")) as registry:
        helper(tmp_path, "store")
        with pytest.raises(RegistryLoginFailed, match="no user is known for it"):
            pull_token(registry, tmp_path, credsStore="store")


def test_a_helper_that_is_not_there_is_named(tmp_path: Path) -> None:
    with hostile_registry(scheme="basic", login=("ada", "right")) as registry, pytest.raises(LoginHelperMissing) as missing:
        pull_token(registry, tmp_path, credsStore="desktop")
    assert "docker-credential-desktop" in missing.value.sentence()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho 'the safe is locked'\nexit 1\n", "the safe is locked"),
        ("#!/bin/sh\nexit 3\n", "ended with 3"),
        ("#!/bin/sh\necho geheim\n", "no login"),
        ('#!/bin/sh\necho \'{"Username": 3, "Secret": "geheim"}\'\n', "no login"),
        ("#!/bin/sh\nhead -c 100000 /dev/zero\n", "more than"),
        ("#!/no/such/program\n", "cannot be started"),
    ],
)
def test_a_helper_that_fails_is_told_in_its_words_and_never_in_secrets(tmp_path: Path, text: str, said: str) -> None:
    program(tmp_path, "bad", text)
    with pytest.raises(LoginHelperFailed) as failed:
        CredentialHelpers({"PATH": f"{tmp_path}:/usr/bin:/bin"}).ask("bad", "a.example")
    assert said in failed.value.sentence()
    assert "geheim" not in failed.value.sentence()
    assert failed.value.__cause__ is None or "geheim" not in str(failed.value.__cause__)


def test_docker_s_own_registry_has_a_name_of_its_own_towards_helpers(tmp_path: Path) -> None:
    asked = helper(tmp_path, "store", **{HUB_LOGIN_KEY: ("ada", "right")})
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "store"}))
    known = read_logins(tmp_path / "config.json")
    assert known.find(RemoteImage.parse("ada/churn:1"), CredentialHelpers({"PATH": str(tmp_path)})) == Login("ada", "right")
    assert asked.read_text() == f"get {HUB_LOGIN_KEY}\n"


def test_a_helper_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    # The child keeps the pipe open: who waited for that would wait for a minute.
    program(tmp_path, "slow", "#!/bin/sh\nsleep 60 &\nsleep 60\n")
    begun = time.monotonic()
    with pytest.raises(LoginHelperFailed, match=r"no answer within 0\.3 s"):
        CredentialHelpers({"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout_s=0.3).ask("slow", "a.example")
    assert time.monotonic() - begun < 20


def test_a_helper_that_talks_without_end_is_ended_before_it_fills_the_memory(tmp_path: Path) -> None:
    program(tmp_path, "huge", "#!/bin/sh\nexec cat /dev/zero\n")
    begun = time.monotonic()
    with pytest.raises(LoginHelperFailed, match="more than 65536 bytes"):
        CredentialHelpers({"PATH": f"{tmp_path}:/usr/bin:/bin"}).ask("huge", "a.example")
    assert time.monotonic() - begun < 20, "it was listened to until its time was up"


@pytest.mark.parametrize("name", ["../huge", "a b", "-x", "x/../y", "x\n", "", "x\0y", "ä"])
def test_a_name_that_is_none_starts_no_program(tmp_path: Path, name: str) -> None:
    (tmp_path / "docker-credential-").mkdir()
    (tmp_path / "huge").write_text("#!/bin/sh\ntouch $0.ran\n")
    (tmp_path / "huge").chmod(0o755)
    with pytest.raises(LoginHelperMissing):
        CredentialHelpers({"PATH": f"{tmp_path}:/usr/bin:/bin"}).ask(name, "a.example")
    assert not (tmp_path / "huge.ran").exists()


def test_a_helper_that_does_not_read_is_asked_all_the_same(tmp_path: Path) -> None:
    program(tmp_path, "deaf", '#!/bin/sh\nexec <&-\necho \'{"Username": "ada", "Secret": "right"}\'\n')
    assert CredentialHelpers({"PATH": str(tmp_path)}).ask("deaf", "a.example") == Login("ada", "right")


def test_an_identity_token_becomes_tokens_again_and_again(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(scheme="bearer", identity="first-identity", good_for=3) as registry:
        access = RemoteAccess(EgressPolicy.parse("127.0.0.1"), backoff=Backoff(first_s=0.01, cap_s=0.02))
        request = PushRequest(
            layout=str(tmp_path / "1"),
            source=top.digest,
            target=f"{registry.address}/churn:1",
            credentials=RegistryCredentials(username="<token>", password="first-identity"),
        )
        made = push(request, access, lambda *_: None)
        assert made.digest in registry.manifests
        # A token is good for three requests, and each time the identity token was another one.
        assert len(registry.asked("POST", "/token")) > 1
        assert not registry.asked("GET", "/token")
        assert "first-identity" not in str(registry.seen)


def test_an_identity_token_that_is_not_taken(tmp_path: Path) -> None:
    with hostile_registry(scheme="bearer", identity="another") as registry:
        with pytest.raises(RegistryLoginFailed, match="does not accept the identity token"):
            pull_token(registry, tmp_path, auths={registry.address: {"identitytoken": "geheim"}})
        registry.scheme = "basic"
        with pytest.raises(RegistryLoginFailed, match="it wants a password"):
            pull_token(registry, tmp_path, auths={registry.address: {"identitytoken": "geheim"}})
        assert "geheim" not in str(registry.seen)


def test_the_process_asks_the_helper_that_its_file_names(tmp_path: Path) -> None:
    top = write_layout(tmp_path / "1")
    with hostile_registry(scheme="bearer", identity="kept") as registry:
        helper(tmp_path, "safe", **{registry.address: ("<token>", "kept")})
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"credHelpers": {registry.address: "safe"}}))
        request = PushRequest(layout=str(tmp_path / "1"), source=top.digest, target=f"{registry.address}/churn:1")
        environment = {
            "HEDGEROW_EGRESS_ALLOW": "127.0.0.1",
            "HEDGEROW_REGISTRY_LOGINS": str(file),
            "PATH": f"{tmp_path}:/usr/bin:/bin",
        }
        code, lines, stderr = run_push(tmp_path, request, environment)
        assert code == 0, (lines[-1], stderr)
        assert "kept" not in stderr + str(lines)
