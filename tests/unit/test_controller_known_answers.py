"""Which requests are the same, what an answer is kept for, and when it is none any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.contracts.build import BuildModel, BuildRequest, FileFact
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.model import FileEntry
from hedgerow.file_facts import seen_at
from registry.controller.installation import fingerprint
from registry.controller.known_answers import Answer, KnownAnswers, question

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ONE, OTHER = digest_of(b"1"), digest_of(b"2")
SOURCE = [FileEntry(path="score.py", digest=ONE, size_bytes=1), FileEntry(path="a.txt", digest=OTHER, size_bytes=1)]
MODEL = BuildModel(ref=ModelRef(name="m", version=1, digest=ONE), folder="/jobs/1/m")
REQUEST = BuildRequest(name="x", version=3, kind="docker", models=[MODEL], source="/jobs/1/s", out="/jobs/1/out", cache="/cache")


def key(request: BuildRequest = REQUEST, **changes: Any) -> str:
    usual: dict[str, Any] = {"source": SOURCE, "installed": "code", "environment": {"PATH": "/bin"}}
    return question(request, **{**usual, **changes})


def test_where_things_lie_and_what_the_image_is_called_is_no_part_of_a_request() -> None:
    elsewhere = msgspec.structs.replace(
        REQUEST,
        name="y",
        version=4,
        models=[msgspec.structs.replace(MODEL, folder="/jobs/2/m", sample_input="/jobs/2/row.json")],
        source="/jobs/2/s",
        out="/jobs/2/out",
        cache="/other",
        verify=False,
        rebuild=True,
        upgrade=True,
    )
    assert key(elsewhere, source=SOURCE[::-1], environment={"PATH": "/usr/bin"}) == key()


# Of every field that there is: one that is added later is either here or among those above.
CHANGES: dict[str, Any] = {
    "kind": "onnx",
    "models": [msgspec.structs.replace(MODEL, ref=ModelRef(name="m", version=1, digest=OTHER))],
    "script": "score.py",
    "allowed_secrets": [".env"],
    "requirements": ["numpy"],
    "conda_packages": ["numpy=1.26"],
    "channels": ["conda-forge"],
    "python_version": "3.12",
    "variables": {"A": "1"},
    "platforms": ["linux/arm64"],
    "base": "oci:/base",
    "bases": {"linux/amd64": "oci:/base"},
    "compression": "zstd",
    "dockerfile": True,
}
PLACES = {"name", "version", "source", "out", "cache", "verify", "rebuild", "upgrade", "schema_version"}


@pytest.mark.parametrize("name", sorted(set(BuildRequest.__struct_fields__) - PLACES))
def test_everything_else_is(name: str) -> None:
    assert key(msgspec.structs.replace(REQUEST, **{name: CHANGES[name]})) != key()


@pytest.mark.parametrize(
    "changes",
    [
        {"source": SOURCE[:1]},
        {"source": [msgspec.structs.replace(SOURCE[0], path="other.py"), SOURCE[1]]},
        {"installed": "other code"},
        {"environment": {"PATH": "/bin", "HEDGEROW_BASE_IMAGE": "docker:other"}},
        {"environment": {"PATH": "/bin", "UV_DEFAULT_INDEX": "https://other.example/simple"}},
    ],
    ids=["a file less", "another name", "our code", "another default base", "another index"],
)
def test_so_is_what_it_is_built_with(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


@pytest.fixture
def answers(tmp_path: Path) -> KnownAnswers:
    return KnownAnswers(tmp_path / "answers")


def fact(path: Path) -> FileFact:
    seen = seen_at(path, NOW)
    assert seen is not None
    return FileFact(path=str(path), seen=seen)


def test_an_answer_holds_while_its_files_do(answers: KnownAnswers, tmp_path: Path) -> None:
    lock, index = tmp_path / "lock.json", tmp_path / "index.json"
    lock.write_text("lock")
    index.write_text("index")
    answers.keep("x", Answer(key=ONE, digest=OTHER, rests_on=[fact(lock), fact(index)]))
    assert answers.find("x", ONE, NOW) == OTHER
    assert answers.find("x", OTHER, NOW) is None
    assert answers.find("y", ONE, NOW) is None, "of another image"
    index.write_text("moved")
    assert answers.find("x", ONE, NOW) is None
    index.write_text("index")
    lock.unlink()
    assert answers.find("x", ONE, NOW) is None


def test_the_newest_answers_of_a_name_are_kept(answers: KnownAnswers) -> None:
    keys = [digest_of(str(number).encode()) for number in range(40)]
    for one in keys:
        answers.keep("x", Answer(key=one, digest=ONE, rests_on=[]))
    answers.keep("x", Answer(key=keys[20], digest=OTHER, rests_on=[]))
    known = {one: answers.find("x", one, NOW) for one in keys}
    assert (known[keys[0]], known[keys[39]], known[keys[20]]) == (None, ONE, OTHER)
    assert sum(digest is not None for digest in known.values()) == 32


def test_a_name_of_the_first_release_leads_nowhere_else(answers: KnownAnswers) -> None:
    answers.keep("../../x", Answer(key=ONE, digest=OTHER, rests_on=[]))
    assert [path.parent for path in answers.folder.parent.rglob("*.json")] == [answers.folder]
    assert answers.find("../../x", ONE, NOW) == OTHER


def _touched(root: Path) -> None:
    (root / "packager" / "build.py").write_text("other")


def _added(root: Path) -> None:
    (root / "runtime" / "new.py").write_text("")


def _removed(root: Path) -> None:
    (root / "hedgerow" / "a.py").unlink()


@pytest.mark.parametrize("change", [_touched, _added, _removed])
def test_other_code_has_another_fingerprint(tmp_path: Path, change: Callable[[Path], None]) -> None:
    for name in ("hedgerow/a.py", "packager/build.py", "runtime/deep/b.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    before = fingerprint(tmp_path)
    (tmp_path / "runtime" / "__pycache__").mkdir()
    (tmp_path / "runtime" / "__pycache__" / "a.pyc").write_text("made by running it")
    assert fingerprint(tmp_path) == before
    change(tmp_path)
    assert fingerprint(tmp_path) != before


def test_what_an_editor_leaves_lying_about_is_no_obstacle(tmp_path: Path) -> None:
    for name in ("hedgerow", "packager", "runtime"):
        (tmp_path / name).mkdir()
    (tmp_path / "packager" / ".#build.py").symlink_to("ada@machine.123")
    before = fingerprint(tmp_path)
    (tmp_path / "packager" / ".#build.py").unlink()
    assert fingerprint(tmp_path) != before
