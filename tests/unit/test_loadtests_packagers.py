"""The pure parts of the comparison of packagers: the caller's network, the base, which docker will do, sizes, the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.packagers.base_image import CallersNetwork, dockerfile, names
from loadtests.packagers.engine import Pushed, blobs_of, has_build_kit
from loadtests.packagers.figures import PHASES, Column, parts_of, plain, rows_of, table


def test_without_anything_set_the_base_says_nothing_of_the_network() -> None:
    network = CallersNetwork.of({"PATH": "/usr/bin", "HTTP_PROXY": ""})
    assert network == CallersNetwork(None, {})
    assert "ENV" not in dockerfile(network)
    assert "certificates" not in dockerfile(network)


def test_an_index_is_told_to_pip_and_uv_and_certificates_are_copied() -> None:
    network = CallersNetwork.of(
        {"PIP_INDEX_URL": "https://a.test/simple", "SSL_CERT_FILE": "/own/ca.pem", "HTTPS_PROXY": "http://p.test:3128"}
    )
    assert network.certificates == Path("/own/ca.pem")
    text = dockerfile(network)
    assert 'ENV PIP_INDEX_URL="https://a.test/simple"\n' in text
    assert 'ENV UV_DEFAULT_INDEX="https://a.test/simple"\n' in text
    assert 'ENV HTTPS_PROXY="http://p.test:3128"\n' in text
    copied = text.partition("COPY certificates.pem ")[2].partition("\n")[0]
    assert f'ENV SSL_CERT_FILE="{copied}"\n' in text
    assert "/own/ca.pem" not in text, "a path of this machine means nothing in an image"


def test_uvs_own_word_for_an_index_wins() -> None:
    network = CallersNetwork.of({"PIP_INDEX_URL": "https://old.test", "UV_DEFAULT_INDEX": "https://new.test"})
    assert set(network.variables.values()) == {"https://new.test"}


def test_the_base_has_the_names_that_the_peers_write_behind_from() -> None:
    assert names("3.11.7") == ("python:3.11.7-slim", "python:3.11-slim")


@pytest.mark.parametrize(
    ("version", "buildx", "builds"),
    [("20.10.24+dfsg1, build 297e128", False, True), ("28.2.2", False, False), ("28.2.2", True, True), ("", True, False)],
)
def test_a_docker_command_from_23_on_needs_buildx(version: str, buildx: bool, builds: bool) -> None:
    assert has_build_kit(version, lambda: buildx) == builds


def test_what_is_sent_again_is_what_the_one_before_has_not() -> None:
    before = blobs_of(
        {"config": {"digest": "c1", "size": 7}, "layers": [{"digest": "a", "size": 100}, {"digest": "m1", "size": 9}]}
    )
    after = blobs_of(
        {"config": {"digest": "c2", "size": 8}, "layers": [{"digest": "a", "size": 100}, {"digest": "m2", "size": 11}]}
    )
    assert (before.size_bytes, after.size_bytes) == (116, 119)
    assert after.beyond(before) == 19
    assert after.beyond(after) == 0
    assert after.beyond(Pushed({})) == 119


def test_a_table_has_medians_and_leaves_open_what_was_not_measured() -> None:
    ours, theirs = Column("ours"), Column("theirs")
    for took in (0.2, 0.4, 9.0):
        ours.add("first", took)
    theirs.add("first", 65.4)
    ours.digests, theirs.digests = ["a", "a", "a"], ["a", "b"]
    ours.unchanged = [True, False]
    ours.packed_bytes, theirs.stored_bytes = 46_100_000, 1_040_000_000
    found = dict(rows_of([ours, theirs]))
    assert found[PHASES["first"]] == ["0.40 s", "65 s"]
    assert found[PHASES["model"]] == ["", ""]
    assert found["compressed, base included"] == ["46.1 MB", ""]
    assert found["as the engine keeps it"] == ["", "1040 MB"]
    assert found["built twice from nothing: one digest"] == ["yes", "no"]
    assert found["nothing changed: one digest"] == ["no", ""]
    lines = table([ours, theirs]).splitlines()
    assert lines[:2] == ["|  | ours | theirs |", "| --- | --: | --: |"]
    assert len({line.count("|") for line in lines}) == 1


def test_one_build_says_nothing_about_digests() -> None:
    column = Column("ours")
    column.digests = ["a"]
    assert column.reproducible is None


def test_parts_are_told_by_phase() -> None:
    column = Column("theirs")
    column.add_parts("model", {"prepare": 1.0, "build": 20.0})
    column.add_parts("model", {"prepare": 3.0, "build": 22.0})
    assert parts_of([Column("ours"), column]) == f"theirs, {PHASES['model']}: prepare 2.0 s, build 21 s"
    assert plain([column])["theirs"]["parts"] == {"model": {"prepare": [1.0, 3.0], "build": [20.0, 22.0]}}
