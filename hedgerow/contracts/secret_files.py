"""Which files look like secrets, by name and by content: what must not enter an image unless somebody names it. Pure.

Judged twice: by the SDK before a source folder is uploaded, and by the packager for everything that it packs. A search like
this finds what people and tools leave lying about; it does not find what somebody hides.
"""

from __future__ import annotations

import re
from fnmatch import translate

from hedgerow.errors import UserError

# Made by tools on the way, never part of what a user means by "my source".
LEFT_OUT_FOLDERS = frozenset({"__pycache__", ".git", ".hg", ".svn", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
LEFT_OUT_SUFFIXES = (".pyc", ".pyo")
# Larger files are judged by name alone: keys are small, and weights are read once, when they are packed.
SEARCHED_BYTES_MAX = 1 << 20
_SECRET_NAMES = (
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd"),
    *(".pgpass", ".my.cnf", ".dockercfg", ".boto", ".s3cfg", ".vault-token", "kubeconfig"),
    *("_netrc", ".databrickscfg", "kaggle.json", "client_secret*.json"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
    *("credentials", "credentials.json", "application_default_credentials.json", "service-account*.json"),
)
# One pattern: folders of a hundred thousand files are looked through.
_SECRET_NAME = re.compile("|".join(map(translate, _SECRET_NAMES)))
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg", ".azure", ".kube", ".docker"})
_HARMLESS_NAMES = frozenset({".env.example", ".env.sample", ".env.template"})
# Each with enough of the secret itself that code which only speaks of such a key is none. No pattern repeats a repetition.
# In front of it words of which one is there (in lower case): to look for them takes a hundredth of the time.
_CONTENTS = tuple(
    (tuple(word.encode() for word in words.split()), re.compile(pattern), what)
    for words, pattern, what in (
        (
            "private",
            rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,2}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/]{40}",
            "holds a private key",
        ),
        (
            "secret",
            rb"(?i)aws_?secret_?access_?key[\"']?\s{0,9}[:=]\s{0,9}[\"']?[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=])",
            "holds a secret key of AWS",
        ),
        ("accountkey=", rb"AccountKey=[A-Za-z0-9+/]{86}==", "holds the key of an Azure storage account"),
        ("sharedaccesskey=", rb"SharedAccessKey=[A-Za-z0-9+/]{43}=", "holds a shared access key of Azure"),
        (
            "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
            rb"(?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})(?![\w-])",
            "holds a token of GitHub",
        ),
        ("glpat-", rb"(?<![\w-])glpat-[\w-]{20}(?![\w-])", "holds a token of GitLab"),
        ("hf_", rb"(?<![\w-])hf_[A-Za-z0-9]{34}(?![\w-])", "holds a token of Hugging Face"),
        ("xoxa- xoxb- xoxp- xoxr- xoxs-", rb"(?<![\w-])xox[abprs]-[0-9A-Za-z-]{20}", "holds a token of Slack"),
        ("aiza", rb"(?<![\w-])AIza[\w-]{35}(?![\w-])", "holds a key of Google's services"),
        (
            "sk-ant-api sk-proj- sk-svcacct-",
            rb"(?<![\w-])sk-(?:ant-api\d\d|proj|svcacct)-[\w-]{40}",
            "holds the key of a language model's service",
        ),
        ("pypi-", rb"(?<![\w-])pypi-AgEIcHlwaS5vcmc[\w-]{50}", "holds a token of PyPI"),
    )
)
# What documentation writes in the place of a key.
_MADE_UP = b"EXAMPLE"
_BY_NAME = "looks like a secret"


class SecretInSource(UserError):
    """A file that is hardly meant for an image. ``what`` it does, in words; ``allow`` is how it is named as an exception."""

    key = "secret_in_source"
    message = "{path} {what} and would become part of the image"
    remedy = "Take it out of the folder, or name it with --allow-secret {allow} when it is none."

    def __init__(self, path: str, what: str = _BY_NAME, allow: str | None = None) -> None:
        super().__init__(path=path, what=what, allow=allow or path)


def secret_by_name(path: str, real: str) -> str | None:
    """What speaks against ``path``, in words; None where nothing does. ``real`` is what it leads to, when it is a link.

    The folders that are left out hold passwords of their own (.git/config), to which a link could lead.
    """
    hidden = looks_secret(path) or (real != path and looks_secret(real)) or (is_left_out(real) and not is_left_out(path))
    return _BY_NAME if hidden else None


def secret_by_content(content: bytes) -> str | None:
    """What secret is in ``content``, in words (`holds a private key`); None where none is found."""
    lowered = content.lower()
    for words, pattern, what in _CONTENTS:
        if not any(word in lowered for word in words):
            continue
        for match in pattern.finditer(content):
            if _MADE_UP not in match[0]:
                return what
    return None


def looks_secret(path: str) -> bool:
    """Judged by name alone, as people and tools name them."""
    *folders, name = path.lower().split("/")
    if name in _HARMLESS_NAMES:
        return False
    return not _SECRET_FOLDERS.isdisjoint(folders) or _SECRET_NAME.match(name) is not None


def is_left_out(path: str) -> bool:
    """Whether a file of a source folder is none of the source."""
    parts = path.split("/")
    return not LEFT_OUT_FOLDERS.isdisjoint(parts[:-1]) or path.endswith(LEFT_OUT_SUFFIXES)
