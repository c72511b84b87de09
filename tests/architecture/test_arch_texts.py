"""What no committed text may hold: hosts of package registries (machines have their own), and paths of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.inventory import TOP
from tests.architecture.test_arch_sizes import tracked

# Written with [] so that this file does not find itself.
_HOSTS = [
    r"pypi[.]org",
    r"pythonhosted[.]org",
    r"(?:deb|security|ftp)[.]debian[.]org",
    r"(?:archive|security)[.]ubuntu[.]com",
    r"npmjs[.](?:org|com)",
    r"(?:registry-1|index)[.]docker[.]io",
    r"crates[.]io\b",
    r"proxy[.]golang[.]org",
]
_PATHS = [r"(?<![\w.$}/-])/[w]ork/", r"(?<![\w.])/tmp/[w]\b", r"(?<![\w.])/[r]oot/", r"(?<![\w.])/[h]ome/[a-z]"]
_FORBIDDEN = re.compile("|".join([*_HOSTS, *_PATHS]))


def _texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked("*"):
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_no_text_names_a_package_registry_or_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(TOP)}:{number} {line.strip()[:120]}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if _FORBIDDEN.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("bad", ["https://py_pi.org/simple", "see /wo_rk/main", "in /ro_ot/.cache", "cd /ho_me/ann/x"])
def test_the_pattern_finds_what_it_looks_for(bad: str) -> None:
    assert _FORBIDDEN.search(bad.replace("_", ""))


@pytest.mark.parametrize("good", ["docker.io", "/opt/hedgerow", "a/wo_rk/b", "$HOME/.cache", "apache.org"])
def test_the_pattern_leaves_the_rest_alone(good: str) -> None:
    assert not _FORBIDDEN.search(good.replace("_", ""))
