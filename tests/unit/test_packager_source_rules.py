"""Names that must not enter an image."""

from __future__ import annotations

import pytest

from packager.source_files import is_reserved, looks_secret


@pytest.mark.parametrize(
    "path",
    [".env", ".env.production", "conf/.ENV", "tls/server.pem", "id_rsa", "keys/id_ed25519", "a.key", ".aws/config", ".netrc"],
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
