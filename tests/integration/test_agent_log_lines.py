"""Which lines of a module's log are wanted, and in which form they are given: files in, text out."""

from __future__ import annotations

import base64
import gzip
import io
import os
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.methods.errors import LogFilterInvalid, LogFilterTooSlow, LogsUnreadable, MethodPayloadInvalid
from edge_agent.methods.log_docker import _lines as docker_told
from edge_agent.methods.log_lines import LINE_BYTES, Line, Wanted, chosen, level_of, moment, time_of
from edge_agent.methods.log_process import process_lines
from edge_agent.methods.logs import LogReader, read_log_request
from edge_agent.methods.sieve import Sieve

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOMB, BAIT = r"(a+)+$", "a" * 200 + "!"


# --- what a line says of itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "level"), [("<3> x", 3), ("<0>", 0), ("<7>x", 7), ("<8> x", 6), ("<33> x", 6), ("x <3>", 6), ("", 6)]
)
def test_levels_are_those_of_syslog(text: str, level: int) -> None:
    assert level_of(text) == level


@pytest.mark.parametrize(
    "text",
    [
        "<6> 2026-11-22 12:00:00.000 +00:00 text",
        "2026-11-22T12:00:00Z text",
        "2026-11-22 13:00:00,000+0100 text",
        '{"level": "info", "time": "2026-11-22T12:00:00.000+00:00"}',
        '{"timestamp":"2026-11-22T12:00:00Z"}',
        NOW.astimezone().replace(tzinfo=None).isoformat(sep=" ") + " no zone: this machine's",
    ],
)
def test_times_at_the_beginning_of_a_line(text: str) -> None:
    assert time_of(text) == NOW.timestamp()


@pytest.mark.parametrize(
    "text", ["", "text", "12:00:00 text", "2026-99-22 12:00:00 text", '{"time": "yesterday, as they say"}', "{"]
)
def test_lines_without_a_time(text: str) -> None:
    assert time_of(text) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026-11-22T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-11-22T11:00:00", NOW - timedelta(hours=1)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d 12h 30m", NOW - timedelta(days=1, hours=12, minutes=30)),
        ("1 day 12 hours 30 minutes", NOW - timedelta(days=1, hours=12, minutes=30)),
        (1_795_348_800, datetime.fromtimestamp(1_795_348_800, UTC)),
        ("1795348800", datetime.fromtimestamp(1_795_348_800, UTC)),
    ],
)
def test_moments_as_iot_edge_takes_them(value: object, found: datetime) -> None:
    assert moment(value, "since", NOW) == found.timestamp()


@pytest.mark.parametrize("value", ["", "soon", "2x", "h", True, "2h and more", "999999999d", "999999999d " * 3])
def test_what_is_no_moment_is_refused(value: object) -> None:
    with pytest.raises(LogFilterInvalid):
        moment(value, "since", NOW)


# --- files ---------------------------------------------------------------------------------------------------------------


def texts(log: Path, **wanted: Any) -> list[str]:
    return [line.text for line in process_lines(log, "m", Wanted(**wanted))]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three files, the oldest first: 0 to 9, 10 to 19, 20 to 24."""
    for number, name in enumerate(("log.2", "log.1", "log")):
        lines = range(number * 10, number * 10 + (5 if name == "log" else 10))
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "log"


def test_all_files_in_order(log: Path) -> None:
    assert texts(log) == [str(number) for number in range(25)]


@pytest.mark.parametrize("tail", [0, 1, 5, 6, 15, 24, 25, 1000])
def test_a_tail_over_several_files(log: Path, tail: int) -> None:
    assert texts(log, tail=tail) == [str(number) for number in range(25)][25 - min(tail, 25) :]


def test_a_last_line_without_its_end(log: Path) -> None:
    with log.open("a") as file:
        file.write("begun")
    assert texts(log, tail=2) == ["24", "begun"]
    assert texts(log, tail=2, unfinished=False) == ["24"]


def test_reading_goes_on_behind_a_position_also_after_a_new_file_began(log: Path) -> None:
    last = list(process_lines(log, "m", Wanted()))[-1]
    assert texts(log, after=last.position) == []
    with log.open("a") as file:
        file.write("25\n")
    for older, newer in (("log.3", "log.2"), ("log.2", "log.1"), ("log.1", "log")):
        log.with_name(newer).replace(log.with_name(older))
    log.write_text("26\n")
    assert texts(log, after=last.position) == ["25", "26"]


def test_a_position_whose_file_has_gone_begins_with_the_oldest(log: Path) -> None:
    assert texts(log, after="1:1")[0] == "0"


def test_a_module_that_wrote_nothing(tmp_path: Path) -> None:
    assert texts(tmp_path / "log") == []


def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key\n")
    (tmp_path / "log").symlink_to("secret")
    with pytest.raises(LogsUnreadable):
        texts(tmp_path / "log")


def test_a_pipe_in_place_of_a_log_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert texts(tmp_path / "log") == []
    assert texts(tmp_path / "log", tail=5) == []


def test_lines_without_end_come_in_pieces(tmp_path: Path) -> None:
    content = "ü" * LINE_BYTES + "\nshort\n" + "y" * (3 * LINE_BYTES)
    (tmp_path / "log").write_text(content)
    found = list(process_lines(tmp_path / "log", "m", Wanted()))
    assert max(len(line.text.encode()) for line in found) <= LINE_BYTES + 4
    assert "".join(line.text for line in found) == content.replace("\n", "")
    assert [line.text for line in process_lines(tmp_path / "log", "m", Wanted(after=found[-2].position))] == [found[-1].text]


@given(st.lists(st.text(alphabet="ab\r<3> ", max_size=12), max_size=30), st.integers(0, 40))
def test_every_tail_is_the_end_of_all_lines(lines: list[str], tail: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
        every = [line.text for line in process_lines(path, "m", Wanted())]
        assert every == [line.removesuffix("\r") for line in lines]
        assert texts(path, tail=tail) == every[max(0, len(every) - tail) :]


def test_files_from_before_since_are_not_read(log: Path) -> None:
    old = (NOW - timedelta(days=2)).timestamp()
    os.utime(log.with_name("log.2"), (old, old))
    assert texts(log, since_s=(NOW - timedelta(days=1)).timestamp())[0] == "10"


# --- which lines ---------------------------------------------------------------------------------------------------------


def lines(*said: str) -> Iterator[Line]:
    return (Line(text, str(place), time_of(text)) for place, text in enumerate(said))


def test_lines_are_chosen_by_time_level_and_words() -> None:
    said = (
        "<6> 2026-11-22 10:00:00 +00:00 early",
        "<3> 2026-11-22 11:00:00 +00:00 trouble one",
        "<3>  at the same time",
        "<4> 2026-11-22 11:30:00 +00:00 trouble two",
        "<3> 2026-11-22 13:00:00 +00:00 trouble late",
    )
    wanted = Wanted(since_s=(NOW - timedelta(hours=1)).timestamp(), until_s=NOW.timestamp())
    assert [line.position for line in chosen(lines(*said), wanted)] == ["1", "2", "3"]
    graver = Wanted(levels=frozenset({3}))
    assert [line.position for line in chosen(lines(*said), graver)] == ["1", "2", "4"]
    assert [line.position for line in chosen(lines(*said), Wanted(regex="trouble [ot]"))] == ["1", "3"]


def test_an_expression_that_never_ends_is_stopped_and_the_agent_is_not() -> None:
    with Sieve(BOMB, cpu_s=1) as sieve, pytest.raises(LogFilterTooSlow):
        sieve.matches(["fine", BAIT])


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "x" * 1001, r"(?P<a>", "(?z)"])
def test_what_is_no_expression_is_refused(pattern: str) -> None:
    with pytest.raises(LogFilterInvalid):
        Sieve(pattern)


@given(st.text(alphabet="ab^$-. ", max_size=6), st.lists(st.text(alphabet="ab-. ", max_size=6), max_size=5))
def test_plain_words_match_as_the_expression_would(pattern: str, said: list[str]) -> None:
    """What is matched without a process of its own."""
    import re

    from edge_agent.methods.sieve import _plain

    plain = _plain(pattern)
    if plain is not None:
        assert [plain(line) for line in said] == [re.search(pattern, line) is not None for line in said]


def test_an_expression_over_many_batches() -> None:
    found = list(chosen((Line(f"line {number}", str(number)) for number in range(3_000)), Wanted(regex=r"[05]0$")))
    assert [line.position for line in found] == [str(number) for number in range(50, 3_000, 50)]


# --- Docker --------------------------------------------------------------------------------------------------------------


def test_docker_lines_in_whatever_pieces_they_come() -> None:
    whole = b"2026-11-22T12:00:00.1Z one\n2026-11-22T12:00:00.123456789Z two\n2026-11-22T12:00:01Z \xc3\xbc\r\n"
    for size in (1, 7, len(whole)):
        pieces = iter([whole[at : at + size] for at in range(0, len(whole), size)])
        assert [line.text for line in docker_told(pieces, Wanted())] == ["one", "two", "ü"]
    after = Wanted(after="2026-11-22T12:00:00.1Z")
    assert [line.text for line in docker_told(iter([whole]), after)] == ["two", "ü"]


# --- the method ----------------------------------------------------------------------------------------------------------


def reader(log: Path) -> LogReader:
    def lines_of(_module: str, wanted: Wanted) -> Generator[Line, None, None]:
        return process_lines(log, "m", wanted)

    return LogReader(lambda: {"pump": "Pump", "pump-2": "pump-2", "fan": "fan"}, lines_of, "press")


def answered(log: Path, **request: Any) -> Any:
    asked = read_log_request("GetModuleLogs", {"schemaVersion": "1.0", **request})
    return msgspec.json.decode("".join(reader(log).answer(asked, NOW)))


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("pump", ["Pump"]),
        ("Pump", ["Pump"]),
        ("pump.*", ["Pump", "pump-2"]),
        (".*", ["Pump", "pump-2", "fan"]),
        ("fan|pump-2", ["pump-2", "fan"]),
        ("..", ["Pump", "pump-2", "fan"]),
        ("../../..", []),
        ("nobody", []),
    ],
)
def test_modules_are_named_by_an_expression(log: Path, pattern: str, ids: list[str]) -> None:
    assert [entry["id"] for entry in answered(log, items=[{"id": pattern, "filter": {"tail": 1}}])] == ids


def test_text_json_gzip_and_lines(log: Path) -> None:
    item = [{"id": "fan", "filter": {"tail": 2}}]
    assert answered(log, items=item) == [{"id": "fan", "payload": "23\n24\n"}]
    packed = answered(log, items=item, encoding="gzip")[0]["payloadBytes"]
    assert gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(packed))).read() == b"23\n24\n"
    entries = msgspec.json.decode(answered(log, items=item, contentType="json")[0]["payload"])
    assert [(entry["text"], entry["loglevel"], entry["device"]) for entry in entries] == [("23", 6, "press"), ("24", 6, "press")]
    told = answered(log, items=item, contentType="lines")
    assert [entry["text"] for entry in told] == ["23", "24"]
    again = answered(log, items=[{"id": "fan", "filter": {"after": told[0]["position"]}}], contentType="lines")
    assert [entry["text"] for entry in again] == ["24"]


def test_nothing_fits(log: Path) -> None:
    item = [{"id": "fan", "filter": {"regex": "none"}}]
    assert answered(log, items=item) == [{"id": "fan", "payload": ""}]
    assert msgspec.json.decode(answered(log, items=item, contentType="json")[0]["payload"]) == []
    assert answered(log, items=item, contentType="lines") == []


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"items": []},
        {"items": [{"filter": {}}]},
        {"items": [{"id": "a", "filter": {"tail": -1}}]},
        {"items": [{"id": "a", "filter": {"loglevel": 9}}]},
        {"items": [{"id": "a"}], "encoding": "zip"},
        {"items": [{"id": "a"}], "schemaVersion": "2.0"},
        {"items": [{"id": "a"}] * 21},
    ],
    ids=str,
)
def test_a_payload_that_does_not_fit_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(MethodPayloadInvalid):
        read_log_request("GetModuleLogs", request_)
