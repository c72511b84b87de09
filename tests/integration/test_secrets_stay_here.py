"""Files that look like secrets are refused before anything of a scoring source leaves this machine, and told of in a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hedgerow.cli.main import cli
from hedgerow.contracts.secret_files import SecretInSource
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.transport import Transport
from tests.registry_server import Api, RunningServer

KEY = f"-----BEGIN {'PRIVATE'} KEY-----\n" + "MIIEpAIBAAKCAQEA7bq98+" * 3 + "\n"


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Transport(server.url, server.owner_token)) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path, client: Client) -> Path:
    folder = tmp_path / "source"
    (folder / "conf").mkdir(parents=True)
    (folder / "score.py").write_text(f"# {tmp_path}\ndef init(): pass\ndef run(data): return data\n")
    (tmp_path / "model.onnx").write_bytes(b"weights")
    client.models.register("guarded", tmp_path / "model.onnx")
    return folder


def is_stored(api: Api, content: bytes) -> bool:
    return api.head(f"/api/v1/blobs/sha256:{sha256(content).hexdigest()}").status_code == 200


def hedgerow(server: RunningServer, *words: object) -> Result:
    env = {"HEDGEROW_URL": server.url, "HEDGEROW_TOKEN": server.owner_token}
    return CliRunner().invoke(cli, [str(word) for word in words], env=env)


@pytest.mark.parametrize(("name", "content"), [("conf/.env", "TOKEN=1"), ("conf/settings.txt", KEY), ("id_rsa", "x")])
def test_a_source_with_a_secret_is_not_uploaded(api: Api, client: Client, source: Path, name: str, content: str) -> None:
    (source / name).write_text(f"{content}\n{source}")
    with pytest.raises(SecretInSource, match=re.escape(name)) as refused:
        client.images.build("leaky", ["guarded:1"], kind="docker", script="score.py", source=source)
    assert f"--allow-secret {name}" in refused.value.sentence()
    assert not is_stored(api, (source / name).read_bytes())
    assert not is_stored(api, (source / "score.py").read_bytes())
    client.images.build("leaky", ["guarded:1"], kind="docker", script="score.py", source=source, allowed_secrets=[name])
    assert is_stored(api, (source / name).read_bytes())


def test_a_link_is_what_it_leads_to(api: Api, client: Client, source: Path) -> None:
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text(f"password = {source}")
    (source / "plain.txt").symlink_to(".git/config")
    with pytest.raises(SecretInSource, match=r"plain\.txt looks like a secret"):
        client.images.build("leaky", ["guarded:1"], kind="docker", script="score.py", source=source)
    assert not is_stored(api, (source / "plain.txt").read_bytes())


def test_what_an_image_leaves_out_is_not_uploaded_either(api: Api, client: Client, source: Path) -> None:
    (source / ".hg").mkdir()
    (source / ".hg" / ".env").write_text(f"TOKEN={source}")
    client.images.build("leaky", ["guarded:1"], kind="docker", script="score.py", source=source)
    assert is_stored(api, (source / "score.py").read_bytes())
    assert not is_stored(api, (source / ".hg" / ".env").read_bytes())


def test_the_command_line_refuses_as_the_sdk_does(server: RunningServer, source: Path) -> None:
    (source / ".env").write_text("TOKEN=1")
    answer = hedgerow(server, "image", "build", "leaky", "-m", "guarded:1", "--kind=docker", f"--script={source / 'score.py'}")
    assert isinstance(answer.exception, SecretInSource)


def test_a_model_with_a_secret_is_registered_and_told_of(server: RunningServer, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "conf").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "conf" / ".env").write_text("TOKEN=1")
    (folder / "notes.txt").write_text(KEY)
    answer = hedgerow(server, "model", "register", "chatty", folder)
    assert answer.exit_code == 0, answer.output
    assert "conf/.env looks like a secret. It is in the workspace now" in answer.stderr
    assert "--allow-secret chatty/conf/.env" in answer.stderr
    assert "notes.txt holds a private key" in answer.stderr
    assert "model.onnx" not in answer.stderr
    seen: list[str] = []
    client.models.register("chatty", folder, on_secret=lambda path, _: seen.append(path))
    assert seen == ["conf/.env", "notes.txt"]
    with pytest.raises(ApiError):
        client.models.get("chatty:3")
