"""Names that must not enter an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.contracts.secret_files import SEARCHED_BYTES_MAX, SecretInSource, looks_secret, secret_by_content
from packager.source_files import is_reserved, list_model, list_source


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
            ".kaggle/kaggle.json",
            ".databrickscfg",
            "_netrc",
            "client_secret_12.json",
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


KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
BASE64 = "MIIEpAIBAAKCAQEA7bq98+/0123456789abcdefABCDEFxyzXYZ"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (f"{KEY}\n{BASE64}\n{BASE64}\n", "a private key"),
        (f"{KEY}\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\n{BASE64}", "a private key"),
        (f'{{"private_key": "{KEY.replace("RSA ", "")}\\n{BASE64}\\n"}}', "a private key"),
        ("aws_secret_access_key = " + BASE64[:40], "a secret key of AWS"),
        (f'"AWS_SECRET_ACCESS_KEY": "{BASE64[:40]}"', "a secret key of AWS"),
        (f"AccountName=x;AccountKey={BASE64}{BASE64[: 86 - len(BASE64)]}==;", "an Azure storage account"),
        (f"HostName=h;SharedAccessKey={BASE64[:43]}=", "a shared access key of Azure"),
        ("token: ghp_" + "a1B2" * 9, "a token of GitHub"),
        ("hf_" + "aB" * 17, "a token of Hugging Face"),
        ("key=AI" + "za" + "aB_-1" * 7, "a key of Google's services"),
        ("sk-" + "proj-" + "aB3_" * 12, "the key of a language model's service"),
        ("'sk-" + "ant-api03-" + "aB3-" * 12, "the key of a language model's service"),
    ],
)
def test_secrets_are_known_by_what_they_hold(content: str, what: str) -> None:
    found = secret_by_content(b"\x00\xff noise " + content.encode() + b" and more")
    assert found is not None
    assert what in found or f"the key of {what}" in found


@pytest.mark.parametrize(
    "content",
    [
        f"if '{KEY}' in text:\n    raise ValueError('keep your keys')\n" + "x = 1\n" * 50,
        "-----BEGIN CERTIFICATE-----\n" + BASE64,
        "-----BEGIN PUBLIC KEY-----\n" + BASE64,
        "aws_secret_access_key = os.environ['AWS_SECRET_ACCESS_KEY']",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "xhf_" + "aB" * 17,
        "sk-" + "learn-" * 20,
        '{"vocab": {"sk-": 1, "AIza": 2, "hf_": 3, "ghp_": 4}}',
    ],
)
def test_what_only_speaks_of_keys_is_no_secret(content: str) -> None:
    assert secret_by_content(content.encode()) is None


def test_a_search_of_hostile_content_ends_soon() -> None:
    assert secret_by_content((KEY.encode() * 40_000)[:SEARCHED_BYTES_MAX]) is None
    assert secret_by_content(b"aws_secret_access_key" * 49_000) is None


def test_small_files_of_a_source_are_read(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f"KEY = '{KEY}\\n{BASE64}\\n'")
    with pytest.raises(SecretInSource, match=r"settings\.py holds a private key and would"):
        list_source(tmp_path, frozenset())
    assert [file.path for file in list_source(tmp_path, frozenset({"settings.py"}))] == ["settings.py"]


def test_model_folders_are_searched_and_exceptions_name_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / ".env").write_text("TOKEN=1")
    (tmp_path / "notes.txt").write_text(f"{KEY}\n{BASE64}\n")
    with pytest.raises(SecretInSource, match=r"churn/conf/\.env looks like a secret") as refused:
        list_model(tmp_path, "churn", frozenset({"conf/.env"}))
    assert "--allow-secret churn/conf/.env" in refused.value.sentence()
    with pytest.raises(SecretInSource, match=r"churn/notes\.txt holds a private key"):
        list_model(tmp_path, "churn", frozenset({"churn/conf/.env"}))
    assert len(list_model(tmp_path, "churn", frozenset({"churn/conf/.env", "churn/notes.txt"}))) == 3


def test_what_is_too_large_for_a_key_is_judged_by_name_alone(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(f"{KEY}\n{BASE64}\n".encode() + bytes(SEARCHED_BYTES_MAX))
    assert len(list_model(tmp_path, "churn", frozenset())) == 1
