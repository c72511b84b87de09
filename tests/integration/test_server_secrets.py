"""Secrets over the API, the SDK and the command line: taken, listed by name, never given out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from registry.store import secrets
from registry.vault import Vault
from tests.registry_app import Asker, RunningApp, running_app
from tests.registry_server import RunningServer, running_server
from tests.registry_stores import BACKENDS

VALUE = "s3cr3t-of-the-press"
PATH = "/api/v1/secrets"


@pytest.fixture(params=BACKENDS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningApp]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with running_app(tmp_path, url) as app:
        yield app


@pytest.fixture
def owner(running: RunningApp) -> Asker:
    return running.asker()


def test_a_secret_is_set_shown_by_name_and_deleted(running: RunningApp, owner: Asker) -> None:
    answered = owner.ask("PUT", f"{PATH}/mail", {"value": VALUE})
    assert answered.status_code == 200
    assert VALUE not in answered.text
    assert answered.headers["etag"] == '"1"'
    assert owner.done("PUT", f"{PATH}/mail", {"value": VALUE + "2"})["revision"] == 2
    for path in (PATH, f"{PATH}/mail", "/api/v1/events"):
        assert VALUE not in owner.ask("GET", path).text
    assert [one["name"] for one in owner.done("GET", PATH)["items"]] == ["mail"]
    with running.here.database.read() as connection:
        assert secrets.reveal(connection, Vault(running.here.workspace.keys), "mail") == VALUE + "2"
    owner.done("DELETE", f"{PATH}/mail")
    assert owner.code("DELETE", f"{PATH}/mail") == owner.code("GET", f"{PATH}/mail") == "not_found"
    told = [(one["kind"], one["subject"]) for one in owner.done("GET", "/api/v1/events?kind=secret.*")["items"]]
    assert sorted(told) == [("secret.deleted", "secret/mail"), ("secret.set", "secret/mail"), ("secret.set", "secret/mail")]


def test_pages_of_names(owner: Asker) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in reversed(names):
        owner.done("PUT", f"{PATH}/{name}", {"value": "x"})
    found, after = [], ""
    while True:
        page = owner.done("GET", f"{PATH}?limit=2{after}")
        found += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == names


def test_conditions(owner: Asker) -> None:
    def code(**headers: str) -> str:
        answered = owner.ask("PUT", f"{PATH}/mail", {"value": "x"}, **headers)
        found = dict(answered.json or {})
        return str(found["error"]["code"] if answered.status_code >= 400 else found["revision"])

    assert code(if_match="*") == code(if_match='"1"') == "precondition_failed", "there is none yet"
    assert code(if_none_match="*") == "1"
    assert code(if_none_match="*") == code(if_none_match='"1"') == code(if_none_match='W/"1"') == "precondition_failed"
    assert code(if_match='"1"') == "2"
    assert code(if_match='"1"') == "precondition_failed"
    assert code(if_match='W/"2"') == "precondition_failed", "a weak tag never matches a write"
    assert code(if_match='"7", W/"2" ,"2"') == "3"
    assert code(if_match="*") == "4"
    assert code(if_none_match='"3"') == "5"
    for garbage in ("5", "'5'", '"5', '"5" "6"', ',"5"', "", "* , *", 'w/"5"', "W/5"):
        assert code(if_match=garbage) == "malformed_request", garbage
    assert code(if_none_match="5") == "malformed_request"
    assert owner.code("DELETE", f"{PATH}/mail", if_match='"4"') == "precondition_failed"
    owner.done("DELETE", f"{PATH}/mail", if_match='"5"')
    seen = owner.done("PUT", f"{PATH}/mail", {"value": "x"})
    assert owner.ask("GET", f"{PATH}/mail", if_none_match=f'W/"{seen["revision"]}"').status_code == 304


@pytest.mark.parametrize(
    "body",
    [
        {"value": VALUE * 4000},
        {"value": [VALUE]},
        {"value": VALUE, VALUE: 1},
        {"valu": VALUE},
        {"value": VALUE + "\0"},
        [VALUE],
        {"value": ""},
    ],
    ids=lambda body: str(body)[:20],
)
def test_no_error_shows_a_value(owner: Asker, body: object) -> None:
    answered = owner.ask("PUT", f"{PATH}/mail", body)
    assert answered.status_code == 400
    assert VALUE[:6] not in answered.text


def test_who_may(running: RunningApp, owner: Asker) -> None:
    owner.done("PUT", f"{PATH}/mail", {"value": VALUE})
    contributor, reader, limited = (
        running.asker("contributor"),
        running.asker("reader"),
        running.asker("contributor", ["secrets:ci-*"]),
    )
    contributor.done("PUT", f"{PATH}/mail", {"value": VALUE})
    assert contributor.code("POST", f"{PATH}/rotate-key") == "role_forbids"
    for method in ("GET", "PUT", "DELETE"):
        assert reader.code(method, f"{PATH}/mail", {"value": "x"}) == "role_forbids"
        assert limited.code(method, f"{PATH}/mail", {"value": "x"}) == "scope_forbids"
    limited.done("PUT", f"{PATH}/ci-token", {"value": VALUE})


def test_the_key_is_changed(running: RunningApp, owner: Asker) -> None:
    vault = Vault(running.here.workspace.keys)
    for number in range(3):
        owner.done("PUT", f"{PATH}/s{number}", {"value": f"{VALUE}{number}"})
    hook = owner.ask("POST", "/api/v1/webhooks", {"name": "hook", "url": "https://example.com/"})
    before = vault.key_ids()
    done = owner.done("POST", f"{PATH}/rotate-key", idempotency_key="k")
    assert done["resealed"] == 3 + (hook.status_code == 201)
    assert vault.key_ids() == [done["key_id"]] != before
    assert owner.done("POST", f"{PATH}/rotate-key", idempotency_key="k") == done, "the repeated request changes nothing"
    with running.here.database.read() as connection:
        assert secrets.reveal(connection, vault, "s1") == f"{VALUE}1"
    assert {one["key_id"] for one in owner.done("GET", PATH)["items"]} == {done["key_id"]}
    vault.path.unlink()
    problem = (owner.ask("POST", f"{PATH}/rotate-key").json or {})["error"]
    assert problem["code"] == "vault_key_missing"
    assert "vault.keys" in problem["remedy"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), "--log-level", "debug") as started:
        yield started


def hedgerow(server: RunningServer, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from hedgerow.cli.main import main; main()", "-w", str(server.workspace), *words]
    return subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text(VALUE + "\n")
    assert hedgerow(server, "secret", "set", "mail", "--value-file", str(file)).stdout == "Set mail (revision 1)\n"
    assert json.loads(hedgerow(server, "secret", "set", "mail", "--json", given=VALUE + "\n").stdout)["revision"] == 2
    listed = hedgerow(server, "secret", "list")
    assert "mail" in listed.stdout
    assert VALUE not in listed.stdout
    assert "are sealed under the new key" in hedgerow(server, "secret", "rotate-key").stdout
    for words, given, said in (
        (("secret", "set", "empty"), "", "The value is empty"),
        (("secret", "set", "Not A Name"), VALUE, "not allowed"),
        (("secret", "delete", "nosuch", "--yes"), None, "no secret nosuch"),
    ):
        ended = hedgerow(server, *words, given=given)
        assert (ended.returncode, ended.stdout) == (1, ""), words
        assert said in ended.stderr
        assert VALUE not in ended.stderr
    assert hedgerow(server, "secret", "set", "mail", VALUE).returncode == 2, "there is no way to give it as an argument"
    assert hedgerow(server, "secret", "delete", "mail", "--yes").stdout == "Deleted mail\n"
    assert VALUE not in server.process.log_text()
    for process in psutil.Process(server.process.pid).children(recursive=True):
        assert VALUE not in " ".join(process.cmdline())


def test_the_command_line_of_tokens(server: RunningServer) -> None:
    made = json.loads(
        hedgerow(
            server, "token", "create", "ci", "--role", "contributor", "--scope", "models:ci-*", "--expires", "30d", "--json"
        ).stdout
    )
    assert made["scopes"] == ["models:ci-*"]
    assert made["created_by"].startswith("owner:this-machine:")
    shown = hedgerow(server, "token", "show", made["id"]).stdout
    assert "models:ci-*" in shown
    assert made["secret"] not in shown
    me = json.loads(hedgerow(server, "token", "whoami", "--json").stdout)
    assert (me["name"], me["role"]) == ("this-machine", "owner")
    assert made["id"] in hedgerow(server, "token", "list").stdout
    assert hedgerow(server, "token", "revoke", made["id"], "--yes").returncode == 0
    assert "revoked" in hedgerow(server, "token", "list").stdout
    for words, said in (
        (("--scope", "model:iris", "--role", "reader"), "nothing that the scope"),
        (("--scope", "models:iris", "--role", "owner"), "reaches everything"),
    ):
        ended = hedgerow(server, "token", "create", "x", *words)
        assert ended.returncode == 1, ended.stderr
        assert said in ended.stderr
    assert hedgerow(server, "token", "create", "x", "--expires", "soon").returncode == 2
