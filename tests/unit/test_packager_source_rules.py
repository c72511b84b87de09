"""Names that must not enter an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import SecretInSource
from packager.source_files import is_reserved, list_source, looks_secret


@pytest.mark.parametrize(
    "path",
    [
        *(".env", ".env.production", "conf/.ENV", "tls/server.pem", "id_rsa", "keys/id_ed25519", "a.key", ".aws/config"),
        *(
            ".netrc",
            "prod.env",
            ".envrc",
            ".pgpass",
            "gcloud/application_default_credentials.json",
            "id_ed25519_sk",
            ".vault-token",
        ),
    ],
)
def test_secrets_are_known_by_their_names(path: str) -> None:
    assert looks_secret(path)


@pytest.mark.parametrize("path", [".env.example", "environment.yml", "keyboard.py", "score.py", "id_rsa.pub", "docs/aws.md"])
def test_ordinary_names_are_no_secrets(path: str) -> None:
    assert not looks_secret(path)


@pytest.mark.parametrize(
    "path", ["runtime.py", "runtime/x.txt", "hedgerow/__init__.py", "hedgerow.cpython-311-x86_64-linux-gnu.so"]
)
def test_our_own_names_are_reserved_at_the_top(path: str) -> None:
    assert is_reserved(path)


@pytest.mark.parametrize(
    "path", ["registry.py", "lib/runtime.py", "runtime_utils.py", "hedgerow.json", "runtime", "my/hedgerow/a.py"]
)
def test_other_names_are_free(path: str) -> None:
    assert not is_reserved(path)


@pytest.mark.parametrize("target", [".git/config", ".env"])
def test_a_link_is_also_what_it_leads_to(tmp_path: Path, target: str) -> None:
    (tmp_path / target).parent.mkdir(exist_ok=True)
    (tmp_path / target).write_text("password")
    (tmp_path / "settings.txt").symlink_to(target)
    with pytest.raises(SecretInSource, match=r"settings\.txt"):
        list_source(tmp_path, frozenset({".env"}))
    assert "settings.txt" in {file.path for file in list_source(tmp_path, frozenset({".env", "settings.txt"}))}
