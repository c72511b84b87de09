"""What of this machine an answer rests on, by how its base was named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.environment import EnvironmentLock
from packager.cache.layers import LayerCache
from packager.environment.lock import lock_key
from packager.rests_on import look_at_bases, rests_on

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PINNED = f"ghcr.io/base@{digest_of(b'base')}"


def request(**changes: Any) -> BuildRequest:
    return BuildRequest(
        **{"name": "x", "version": 1, "kind": "docker", "models": [], "out": "/out", "cache": "/cache", **changes}
    )


def paths(request: BuildRequest, default: str | None = None) -> list[str] | None:
    found = look_at_bases(request, default, NOW)
    return None if found is None else [fact.path for fact in found]


def test_a_layout_is_its_index_and_an_archive_is_itself(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / "base.tar").write_text("tar")
    layout, archive = f"oci:{tmp_path}", f"docker-archive:{tmp_path}/base.tar"
    assert paths(request(base=layout)) == [f"{tmp_path}/index.json"]
    assert paths(request(base=archive)) == [f"{tmp_path}/base.tar"]
    assert paths(request(), default=archive) == [f"{tmp_path}/base.tar"]
    both = request(platforms=["linux/amd64", "linux/arm64"], base=layout, bases={"linux/arm64": archive})
    assert paths(both) == [f"{tmp_path}/base.tar", f"{tmp_path}/index.json"]


@pytest.mark.parametrize(
    "base", ["docker:python:3.11", "registry:ghcr.io/base:3.11", "ghcr.io/base", "ghcr.io/base@sha256:short", "nonsense", ""]
)
def test_what_a_tag_means_today_only_others_know(base: str) -> None:
    assert paths(request(base=base)) is None
    assert paths(request(platforms=["linux/amd64", "linux/arm64"], base=base, bases={"linux/arm64": PINNED})) is None


@pytest.mark.parametrize("base", [PINNED, f"registry:{PINNED}"])
def test_a_digest_means_one_thing(base: str) -> None:
    assert paths(request(base=base)) == []


def test_what_cannot_be_found_again_is_not_rested_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("index.json").write_text("{}")
    assert paths(request(base="oci:.")) is None, "another folder for who looks from another one"
    assert paths(request(base=f"oci:{tmp_path}/absent")) is None


def test_an_artifact_rests_on_nothing() -> None:
    assert paths(request(kind="onnx")) == []


def test_a_lock_is_rested_on_as_it_was_read_not_as_it_lies_there_now(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path / "cache", tmp_path)
    lock = EnvironmentLock(
        python_version="3.11", platform="linux/amd64", requirements=["a"], packages=[], digest=digest_of(b"lock")
    )
    key = lock_key(lock.requirements, lock.python_version, lock.platform)
    cache.keep("lock", key, lock)
    (fact,) = rests_on(request(), [], [lock], cache) or []
    assert (Path(fact.path).is_absolute(), digest_of(Path(fact.path).read_bytes())) == (True, fact.seen)
    cache.keep("lock", key, EnvironmentLock(**{**vars_of(lock), "digest": digest_of(b"renewed")}))
    assert rests_on(request(), [], [lock], cache) == [fact]
    assert digest_of(Path(fact.path).read_bytes()) != fact.seen


def test_an_engine_has_its_say_in_what_it_makes(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path / "cache", tmp_path)
    assert rests_on(request(dockerfile=True), [], [], cache) is None
    assert rests_on(request(), None, [], cache) is None


def vars_of(lock: EnvironmentLock) -> dict[str, Any]:
    return {name: getattr(lock, name) for name in lock.__struct_fields__}
