"""``client.models`` against a real server: small models in one request, large ones uploaded, and what goes wrong between."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.contracts.model import SourceCommit, TensorSpec
from hedgerow.errors import InvalidDocument
from hedgerow.sdk.client import Client
from hedgerow.sdk.connect import connect
from hedgerow.sdk.errors import ApiError, NothingToRegister
from tests.registry_server import RunningServer
from tests.waiting import wait_for

LARGE = 300 * 1024


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server.workspace, start=False) as connected:
        yield connected


def test_a_misspelt_filter_never_answers_with_everything(client: Client) -> None:
    misspelt: dict[str, str] = {"frmework": "onnx"}
    with pytest.raises(TypeError, match="There is no filter 'frmework'; there are name, tags, properties, framework"):
        client.models.list(**misspelt)  # type: ignore[arg-type]  # the mistake that is tried here


def test_one_text_is_no_list_of_requirements(client: Client) -> None:
    with pytest.raises(TypeError, match="a list of lines"):
        client.environments.create("letters", "scikit-learn")


def test_everything_comes_back_byte_for_byte(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "large.bin").write_bytes(os.urandom(LARGE))
    (folder / "config.json").write_text("{}")
    (tmp_path / "sample.json").write_text("[1]")
    told: list[tuple[int, int]] = []
    model = client.models.register(
        "whole",
        folder,
        sample_input=tmp_path / "sample.json",
        progress=lambda done, total: told.append((done, total)),
        framework="mine",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=[-1]),),
        commit=SourceCommit(commit="a" * 40),
        aliases=("champion", "newest-one"),
        data={"config": folder / "config.json"},
    )
    assert told[-1] == (LARGE + 5, LARGE + 5)
    assert (model.source, model.aliases) == (SourceCommit(commit="a" * 40), ["champion", "newest-one"])
    client.models.download("whole@champion", tmp_path / "back")
    for path in ("weights/large.bin", "config.json"):
        assert (tmp_path / "back" / path).read_bytes() == (folder / path).read_bytes()
    sample = client.models.download_sample_input("whole", tmp_path / "samples")
    assert sample is not None
    assert sample.read_text() == "[1]"


def test_content_that_went_away_before_its_registration_is_sent_again(
    client: Client, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(LARGE + 1))
    gone: list[int] = []

    def forget(done: int, total: int) -> None:
        """As a garbage collection a day later would: the content is sent, its row comes, and goes."""
        if done < total or gone:
            return
        with closing(sqlite3.connect(server.workspace / "records.db", timeout=10, isolation_level=None)) as database:
            delete = "delete from blobs where size_bytes = ?"
            gone.append(wait_for(lambda: database.execute(delete, (LARGE + 1,)).rowcount, what="the row of the content"))

    assert client.models.register("forgotten", tmp_path / "large.bin", progress=forget).version == 1
    assert gone == [1]


def test_what_changed_meanwhile_is_not_overwritten(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"w")
    seen = client.models.register("contended", tmp_path / "m", tags={"a": "1"})
    client.models.update("contended", tags={"a": "2"})
    with pytest.raises(ApiError) as refused:
        client.models.update("contended", tags={"a": "3"}, revision=seen.revision)
    assert (refused.value.problem.code, refused.value.status) == ("precondition_failed", 412)
    assert client.models.update("contended", remove_tags=["a"]).tags == {}


def test_filters_reach_the_server(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"w")
    began = datetime.now(UTC)
    for number in range(3):
        client.models.register("filtered", tmp_path / "m", tags={"n": str(number), "all": "x"}, properties={"p": "1"})
    assert [m.version for m in client.models.iterate("filtered", tags={"all": None, "n": "1"}, properties={"p": None})] == [2]
    assert [m.version for m in client.models.iterate("filt*", newest=True, since=began)] == [3]
    assert list(client.models.iterate("filtered", until=began - timedelta(hours=1))) == []
    page = client.models.list("filtered", 2)
    assert [m.version for m in client.models.list("filtered", 2, page.next).items] == [1]


def test_wrong_input_is_told_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"w")
    with pytest.raises(NothingToRegister):
        client.models.register("nothing")
    with pytest.raises(InvalidDocument, match="tags"):
        client.models.register("wrong", tmp_path / "m", tags={"a": 1})  # type: ignore[dict-item]  # what is tried here
    for name in ("", "A" * 10_000, "a/b", "..", "a\0b", "名前"):
        with pytest.raises(InvalidDocument):
            client.models.register(name, tmp_path / "m")
    assert list(client.models.iterate("wrong")) == []
