"""Files of collected records: rotation, bounds, whole lines and whole files, a disk that takes no more; and bodies as values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from runtime.errors import CollectionUnusable
from runtime.observing.collected_files import CollectLimits, Record, collected_files, make_room
from runtime.observing.collecting import readable
from runtime.settings import CollectFormat, RuntimeSettings


class SetClock:
    """A clock that stands until it is told otherwise."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.moment + timedelta(seconds=self.seconds)

    def monotonic_s(self) -> float:
        return self.seconds


def limits(
    folder: Path, kind: CollectFormat = "jsonl", *, file_bytes: int = 4096, files: int = 5, total: int = 100_000
) -> CollectLimits:
    return CollectLimits(folder, kind, file_bytes, files, total)


def record(number: int, size: int = 500) -> Record:
    return {"Timestamp": "2026-01-02T03:04:05.678Z", "Number": number, "Models": ["m:1"], "Input": {"data": "x" * size}}


def lines(folder: Path) -> list[int]:
    return [
        json.loads(line)["Number"] for file in sorted(folder.glob("*.jsonl"), key=order) for line in file.read_text().splitlines()
    ]


def order(file: Path) -> int:
    return int(file.stem.rsplit("-", 1)[1])


def test_lines_go_into_files_that_stay_small_enough_and_private(tmp_path: Path) -> None:
    files = collected_files(limits(tmp_path), "requests", SetClock())
    for number in range(20):
        files.write([record(number)])
    found = sorted(tmp_path.iterdir(), key=order)
    assert len(found) > 2
    assert all(file.stat().st_size <= 4096 for file in found)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in found)
    assert found[0].name.startswith("requests-20260102T030405.678-")
    assert lines(tmp_path) == list(range(20))
    files.flush()


def test_the_oldest_go_and_never_more_than_the_bound_is_there(tmp_path: Path) -> None:
    clock = SetClock()
    (tmp_path / "notes.jsonl").write_text("not ours")
    files = collected_files(limits(tmp_path, files=1000, total=20_000), "requests", clock)
    for number in range(200):
        clock.seconds += 1
        files.write([record(number)])
        assert sum(file.stat().st_size for file in tmp_path.glob("requests-*")) <= 20_000
    files.flush()
    kept = lines_of_ours(tmp_path)
    assert kept == list(range(kept[0], 200)), "what is left is the newest, without a hole"
    assert (tmp_path / "notes.jsonl").exists()


def lines_of_ours(folder: Path) -> list[int]:
    files = sorted(folder.glob("requests-*.jsonl"), key=order)
    return [json.loads(line)["Number"] for file in files for line in file.read_text().splitlines()]


def test_never_more_files_than_the_bound(tmp_path: Path) -> None:
    clock = SetClock()
    for process in range(4):
        files = collected_files(limits(tmp_path, files=3), f"requests{'abcd'[process]}", clock)
        clock.seconds += 1
        files.write([record(process)])
        files.flush()
        assert len(list(tmp_path.iterdir())) <= 3


def test_links_and_folders_are_left_alone(tmp_path: Path) -> None:
    name = "requests-20260102T030405.678-h-1-{}.jsonl"
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "collected"
    folder.mkdir()
    (folder / name.format(1)).symlink_to(outside)
    (folder / name.format(2)).mkdir()
    make_room(folder, 0, 0)
    assert outside.read_text() == "mine"
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_leaves_whole_lines_and_goes_on_in_the_same_file(tmp_path: Path) -> None:
    files = collected_files(limits(tmp_path), "requests", SetClock())
    files.write([record(0)])
    (file,) = tmp_path.iterdir()
    import resource
    import signal

    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # The kernel takes a part of the next line and refuses the rest.
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, hard))
        with pytest.raises(OSError, match="large"):
            files.write([record(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
        signal.signal(signal.SIGXFSZ, old)
    files.write([record(2)])
    files.flush()
    assert lines(tmp_path) == [0, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_parquet_comes_in_whole_files_by_size_age_and_end(tmp_path: Path) -> None:
    clock = SetClock()
    files = collected_files(limits(tmp_path, "parquet"), "requests", clock)
    files.write([record(0)])
    assert not list(tmp_path.iterdir()), "nothing half-way is ever seen"
    clock.seconds += 61
    files.write([])
    assert len(list(tmp_path.iterdir())) == 1, "old enough"
    files.write([record(number) for number in range(1, 10)])
    assert len(list(tmp_path.iterdir())) == 2, "large enough"
    files.write([record(10), {"Timestamp": "x", "Number": 11, "Prediction": [1.5]}])
    files.flush()
    tables = [parquet.read_table(file) for file in sorted(tmp_path.iterdir(), key=order)]
    assert [number for table in tables for number in table["Number"].to_pylist()] == list(range(12))
    assert json.loads(tables[0]["Input"][0].as_py()) == {"data": "x" * 500}
    assert tables[0]["Models"][0].as_py() == ["m:1"]
    assert tables[-1]["Prediction"].to_pylist()[-1] == "[1.5]"


def test_a_folder_that_cannot_be_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CollectionUnusable, match="cannot be kept in"):
        CollectLimits.of(RuntimeSettings(collect_dir=tmp_path / "file" / "below"))
    assert CollectLimits.of(RuntimeSettings(collect_dir=tmp_path / "a" / "b", collect_bytes=10_000)).file_bytes == 5000
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        (b"[NaN, Infinity]", ["NaN", "Infinity"]),
        (b"plain words", "plain words"),
        ("ümlaut".encode(), "ümlaut"),
        (b"\xff\x00", {"base64": "/wA="}),
        (b"[" * 100_000, "[" * 100_000),
        (b"", ""),
    ],
)
def test_bodies_as_values(body: bytes, value: object) -> None:
    assert readable(body, None, "inputs") == value


def test_binary_tensors_become_lists() -> None:
    numbers = np.array([[1.5, -2.0]], dtype="<f4").tobytes()
    texts = b"".join(len(text).to_bytes(4, "little") + text for text in (b"ab", "ü".encode()))
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": len(numbers)}},
                {"name": "y", "datatype": "INT8", "shape": [1], "data": [7]},
                {"name": "z", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(texts)}},
            ]
        }
    ).encode()
    found = readable(head + numbers + texts, len(head), "inputs")
    assert isinstance(found, dict)
    assert [tensor["data"] for tensor in found["inputs"]] == [[1.5, -2.0], [7], ["ab", "ü"]]


@pytest.mark.parametrize("head", [b"{", b"[]", b'{"inputs": 5}', b'{"inputs": [{"parameters": {"binary_data_size": "x"}}]}'])
def test_what_cannot_be_read_is_kept_as_it_came(head: bytes) -> None:
    found = readable(head + b"rest", len(head), "inputs")
    assert isinstance(found, dict)
    assert "base64" in found
