"""The examples in the SDK's docstrings, run as they stand against a real control plane.

In scope: ``client`` and ``Path``; the current folder is an empty one. All examples share one workspace, so each uses names
of its own. ``...`` in an answer stands for anything.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow import sdk
from hedgerow.sdk.client import Client
from tests.fixtures.control_plane import ControlPlane

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(f"{sdk.__name__}.{found.name}") for found in pkgutil.iter_modules(sdk.__path__)]
    return [test for module in modules for test in finder.find(module, module.__name__) if test.examples]


EXAMPLES = examples()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    plane = ControlPlane(tmp_path_factory.mktemp("examples"))
    try:
        with plane.start().client() as connected:
            yield connected
    finally:
        plane.end()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example.name))
def test_an_example_does_what_it_says(
    client: Client, example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    scope = {"client": client, "Path": Path}
    example = doctest.DocTest(example.examples, scope, example.name, example.filename, example.lineno, example.docstring)
    doctest.DocTestRunner(optionflags=_FLAGS).run(example, out=said.append)
    assert said == [], "".join(said)


def test_there_are_examples() -> None:
    assert {"hedgerow.sdk.models.Models.register", "hedgerow.sdk.models.Models.iterate"} <= {one.name for one in EXAMPLES}


def test_a_wrong_example_is_noticed() -> None:
    said: list[str] = []
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    doctest.DocTestRunner(optionflags=_FLAGS).run(wrong, out=said.append)
    assert said
