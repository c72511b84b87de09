"""What modules report, on a real disk: kept before it is answered, found again, bounded, and nothing of what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import MessageRefused, TwinRefused, TwinUnwritable
from edge_agent.observing.metrics import Metrics
from edge_agent.twins.held import Held
from edge_agent.twins.http import TwinsHttp
from edge_agent.twins.reported import ReportedTwins
from hedgerow.clock import SystemClock
from hedgerow.contracts.twins import MAX_REPORTED_BYTES
from tests.process_folders import need_root
from tests.waiting import wait_for


class Place:
    """A folder with twins, and what was told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "twins"
        self.told: list[tuple[str, str, int]] = []
        self.twins = self.open()

    def open(self) -> ReportedTwins:
        self.twins = ReportedTwins(self.folder, SystemClock(), Metrics())
        self.twins.on_reported = lambda *what: self.told.append(what)
        self.twins.load()
        self.twins.keep_only({"m", "n"})
        return self.twins

    def report(self, properties: object, module: str = "m", *, whole: bool = False) -> Held:
        return self.send(properties, module, whole=whole).result(30)

    def send(self, properties: object, module: str = "m", *, whole: bool = False) -> Future[Held]:
        return self.twins.report(module, json.dumps(properties).encode(), whole=whole)

    def restart(self) -> None:
        self.twins.close()
        self.open()

    def properties(self) -> dict[str, dict[str, Any]]:
        return {module: held.properties for module, held in self.twins.held().items()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.twins.close()


def test_patches_are_merged_wholes_replace_and_both_are_there_after_a_restart(place: Place) -> None:
    assert place.report({"a": {"b": 1, "c": None}, "d": [None]}).version == 1
    assert place.report({"a": {"e": 2}, "d": None}).version == 2
    first = place.twins.held()["m"]
    assert first.properties == {"a": {"b": 1, "e": 2}}
    place.restart()
    assert place.twins.held() == {"m": first}
    whole = place.report({"f": {"g": None}}, whole=True)
    assert (whole.version, whole.epoch, whole.properties) == (3, first.epoch, {"f": {}})
    assert place.report({"x": 1}, "n").epoch != first.epoch


def test_who_wants_to_know_is_told_each_version_as_a_patch(place: Place) -> None:
    place.report({"a": 1, "b": 2})
    place.report({"a": 1})
    place.report({"b": 2, "c": 3}, whole=True)
    place.twins.close()
    assert place.told == [("m", '{"a":1,"b":2}', 1), ("m", '{"a":null,"c":3}', 2)]


def test_what_changes_nothing_is_answered_and_written_nowhere(place: Place) -> None:
    place.report({"a": 1})
    path = place.folder / "m.json"
    before = path.stat().st_ino
    assert place.report({"a": 1}).version == 1
    assert path.stat().st_ino == before
    assert place.report({"a": 1.0}).version == 2  # another text is another value


def test_many_reports_at_once_cost_few_writes_and_all_of_them_are_kept(place: Place) -> None:
    sent = [place.send({f"k{number}": number}) for number in range(200)]
    answers = [one.result(30) for one in sent]
    assert place.properties() == {"m": {f"k{number}": number for number in range(200)}}
    assert all(f"k{number}" in answer.properties for number, answer in enumerate(answers))
    assert answers[-1].version < 200
    place.restart()
    assert len(place.properties()["m"]) == 200


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b'{"a": "\\u0000"}',
        b'{"a\\u0000": 1}',
        b'{"a": 1e999}',
        b"\xff",
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
)
def test_what_is_no_bounded_json_object_is_refused_and_changes_nothing(place: Place, payload: bytes) -> None:
    place.report({"a": 1})
    with pytest.raises(TwinRefused):
        place.twins.report("m", payload, whole=False)
    assert place.properties() == {"m": {"a": 1}}


def test_no_module_grows_above_its_limit_in_steps(place: Place) -> None:
    large = "x" * (MAX_REPORTED_BYTES // 2)
    place.report({"a": large})
    with pytest.raises(TwinRefused, match="with them its twin has"):
        place.report({"b": large})
    assert place.report({"a": None, "b": large}).version == 2


def test_all_modules_together_have_a_limit(tmp_path: Path) -> None:
    twins = ReportedTwins(tmp_path / "twins", SystemClock(), Metrics(), total_bytes_max=1000)
    twins.keep_only({"m", "n"})
    large = b'{"a": "%s"}' % (b"x" * 600)
    twins.report("m", large, whole=False).result(30)
    with pytest.raises(TwinRefused, match="all modules together"):
        twins.report("n", large, whole=False)
    assert twins.report("n", b'{"a": 1}', whole=False).result(30).version == 1
    twins.close()


def test_only_modules_of_the_desired_state_report_and_what_others_did_goes(place: Place) -> None:
    with pytest.raises(TwinRefused, match="no such module"):
        place.report({}, "stranger")
    epoch = place.report({"a": 1}).epoch
    place.report({"b": 1}, "n")
    place.twins.keep_only({"n"})
    assert place.properties() == {"n": {"b": 1}}
    assert [path.name for path in place.folder.iterdir()] == ["n.json"]
    place.twins.keep_only({"m", "n"})
    again = place.report({"a": 1})
    assert (again.version, again.epoch == epoch) == (1, False)


def test_a_damaged_file_is_set_aside_and_its_module_begins_another_epoch(place: Place) -> None:
    epoch = place.report({"a": 1}).epoch
    place.report({"b": 1}, "n")
    place.twins.close()
    (place.folder / "m.json").write_bytes(b'{"epoch": "e", "ver')
    (place.folder / ".m.json.abc.tmp").write_bytes(b"cut off")
    place.open()
    assert place.twins.damaged == ["m.json"]
    assert place.properties() == {"n": {"b": 1}}
    assert sorted(path.name for path in place.folder.iterdir()) == ["m.json.damaged", "n.json"]
    assert place.report({"a": 2}).epoch != epoch


def test_another_epoch_begins_on_the_disk_with_the_same_properties(place: Place) -> None:
    before, news = place.report({"a": 1}), threading.Event()
    place.twins.on_change = news.set
    place.twins.begin_epoch("m", "some other epoch")
    place.twins.begin_epoch("m", before.epoch)
    assert news.wait(30)
    after = place.twins.held()["m"]
    assert (after.version, after.properties, after.epoch == before.epoch) == (1, {"a": 1}, False)
    place.restart()
    assert place.twins.held() == {"m": after}
    assert len(place.told) == 1


def test_a_poll_waits_for_another_version_and_no_longer_than_the_agent_runs(place: Place) -> None:
    desired: dict[str, dict[str, object]] = {"m": {"rate": 1, "$version": 1}}
    http = TwinsHttp(place.twins, lambda module: desired.get(module, {}), Metrics())

    def poll(version: str, module: str = "m") -> dict[str, object]:
        query = {"version": [version], "wait_s": ["50"]}
        found: dict[str, object] = json.loads(http.answer("GET", "/twin/desired", query, module, b"").body)
        return found

    assert poll("7") == {"rate": 1, "$version": 1}
    with ThreadPoolExecutor(3) as pool:
        mine, other = pool.submit(poll, "1"), pool.submit(poll, "0", "n")
        wait_for(lambda: http.waiting == 2, timeout_s=30, what="both polls to wait")
        desired["m"] = {"rate": 2, "$version": 2}
        http.changed()
        assert mine.result(30) == {"rate": 2, "$version": 2}
        assert not other.done()
        http.close()
        assert other.result(30) == {}
    with pytest.raises(MessageRefused):
        poll("x")


@contextlib.contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    need_root()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_keeps_nothing_and_passes(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        place = Place(disk)
        place.report({"a": 1})
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert os.statvfs(disk).f_bavail == 0
        sent = [place.send({"b": number, "c": "x" * 8000}) for number in range(3)]
        for one in sent:
            assert isinstance(one.exception(30), TwinUnwritable)
        assert place.properties() == {"m": {"a": 1}}
        ballast.unlink()
        assert place.report({"b": 2}).version == 2
        place.restart()
        assert place.properties() == {"m": {"a": 1, "b": 2}}
        place.twins.close()
    assert place.told == [("m", '{"a":1}', 1), ("m", '{"b":2}', 2)]
