"""The pure parts of the scoring benchmark: heads, wrk's figures, ratios, tables, bars, what /proc says, and reasons in logs."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loadtests.scoring import bars, heads, tables, wrk
from loadtests.scoring.heads import HeadKind
from loadtests.scoring.models import Sent
from loadtests.scoring.peers import LeftOut, Ports, Server
from loadtests.scoring.ports import HeldPorts, lowest_given_out
from loadtests.scoring.processes import Processors, descendants
from loadtests.scoring.rounds import Beside, Contender, Contest, Found, Load, Options, Ran, hold
from loadtests.scoring.serving import reason_in, sums_in
from loadtests.scoring.wrk import Counted, WrkFailed

SENT = Sent(b'{"data": [[1]]}', (("content-type", "application/json"),), np.zeros((1, 1)))


@pytest.mark.parametrize("kind", heads.WORDS)
def test_every_kind_of_head_is_one_whole_request(kind: HeadKind) -> None:
    head, _, body = heads.request(kind, "/score", 5001, SENT, 7).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert first == "POST /score HTTP/1.1"
    assert body == SENT.body
    assert fields["content-length"] == str(len(body))
    assert fields["content-type"] == "application/json"
    assert fields["host"] == "127.0.0.1:5001"
    assert len(fields) == len(lines), "a header came twice"


def test_ids_become_a_request_id_and_a_trace_context_of_the_right_length() -> None:
    text = heads.request("ids", "/score", 1, SENT, 0).decode().replace(heads.NUMBER, f"{255:012x}")
    fields = dict(line.split(": ", 1) for line in text.split("\r\n\r\n")[0].split("\r\n")[1:])
    assert len(heads.NUMBER) == 12, "the length of a request must not depend on its number"
    assert fields["x-ms-request-id"] == "5f0c1b9e-8c1d-4b7e-9d34-0000000000ff"
    version, trace, span, flags = fields["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert int(trace, 16)
    assert int(span, 16)


def test_a_proxy_writes_names_small_and_says_who_called() -> None:
    head = heads.request("proxy", "/score", 1, SENT, 258).decode().split("\r\n\r\n")[0]
    names = [line.split(": ")[0] for line in head.split("\r\n")[1:]]
    assert names == [name.lower() for name in names]
    assert "connection" not in names
    assert "x-forwarded-for: 10.0.1.2" in head


def test_requests_are_written_for_wrk_with_their_lengths(tmp_path: Path) -> None:
    script = wrk.script_for(tmp_path, "x", [SENT, SENT], "go", "/score", 5001)
    whole = heads.request("go", "/score", 5001, SENT, 0)
    assert (tmp_path / "x.requests").read_bytes() == 2 * (f"{len(whole):012d}".encode() + whole)
    assert str(tmp_path / "x.requests") in script.read_text()


def test_wrks_figures_are_read_from_the_scripts_line() -> None:
    told = {
        "requests": 3000,
        "duration_us": 2_000_000,
        "p50": 900,
        "p99": 2500,
        "p999": 11_000,
        "max": 12_000,
        "slow": 4,
        "wrong": 1,
    }
    counted = wrk.figures_in(f"Running 2s test\n  latency: 3\nfigures: {json.dumps(told)}\n", own_cpu_s=0.03)
    assert counted == Counted(3000, 1500.0, 0.9, 2.5, 11.0, 12.0, 4, 1, 0.03 / 3000 * 1e6)


@pytest.mark.parametrize("text", ["", "unable to connect", 'figures: {"requests": 0, "duration_us": 1}'])
def test_no_figures_are_a_failure(text: str) -> None:
    with pytest.raises(WrkFailed):
        wrk.figures_in(text, 0.0)


def no_server(ports: Ports) -> Server:
    raise AssertionError("nothing is started here")


def ran(per_s: float, *, p99_ms: float = 1.0) -> Ran:
    counted = Counted(int(per_s), per_s, 0.5, p99_ms, 3.0, 4.0, 0, 0, 5.0)
    return Ran({32: Load(counted, 20.0, 0.01, 0.02)}, 80.0, 0.3, 0.2, {"hedgerow_x_total": 2.0})


def found_with(title: str, servers: dict[str, Sequence[Ran | None]], beside: Beside | None = None) -> Found:
    contenders = [Contender(name, no_server, [], tells=("hedgerow_x_total",)) for name in servers]
    found = Found(Contest(title, contenders, [], (32,), tuple(servers)[:1], beside))
    for name, rans in servers.items():
        found.rans[name].update({number: one for number, one in enumerate(rans) if one is not None})
    return found


def test_a_ratio_is_of_what_ran_in_the_same_round() -> None:
    found = found_with("t", {"base": [None, ran(100), ran(200)], "other": [ran(1), ran(1000), ran(1000)]})
    assert found.ratio("other", "base") == 7.5
    assert found.ratio("other", "absent") is None


def test_a_ratio_to_what_runs_without_a_server() -> None:
    found = found_with("t", {"base": [ran(90), ran(80)]}, Beside("bare", lambda seconds: 0.0))
    found.beside.update({0: 100.0, 1: 100.0})
    assert found.ratio("base", "bare") == pytest.approx(0.85)


def test_a_server_that_cannot_be_had_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(ports: Ports) -> Server:
        raise LeftOut("no such package")

    found = hold(Contest("t", [Contender("peer", absent, [SENT])], [1], (32,), ("peer",)), Options(3, 1.0, tmp_path))
    assert found.failures == ["peer is left out: no such package"]
    assert capsys.readouterr().out == "peer is left out: no such package\n"
    assert found.ratio("peer", "peer") is None
    assert "| peer" not in tables.table(found)


def test_the_table_shows_medians_and_the_worst_round() -> None:
    found = found_with("t", {"base": [ran(100, p99_ms=1), ran(100, p99_ms=2), ran(100, p99_ms=9)], "gone": []})
    lines = tables.table(found).splitlines()
    (row,) = [line for line in lines if line.startswith("| base")]
    assert "2.00 (9.00)" in row
    head, rule = (line for line in lines if line.startswith(("| server", "|---")))
    assert row.count("|") == head.count("|") == rule.count("|")
    assert not any(line.startswith("| gone") for line in lines)


def test_the_figures_can_be_written_as_json() -> None:
    found = found_with("t", {"base": [ran(100), None, ran(300)]})
    written = json.loads(json.dumps(tables.as_json(found)))
    assert [one["round"] for one in written["servers"]["base"]] == [0, 2]
    assert written["servers"]["base"][0]["loads"]["32"]["counted"]["per_s"] == 100


def test_bars_are_met_missed_or_not_measured() -> None:
    title = "Tiny model, Open Inference Protocol"
    servers: dict[str, Sequence[Ran | None]] = {
        "mlserver": [ran(100)],
        "pytriton json": [],
        "pytriton binary": [ran(100)],
        "hedgerow v2 json": [ran(1200)],
        "hedgerow v2 binary": [ran(799)],
    }
    met = {one.bar.what: one.met for one in bars.judged([found_with(title, servers)])}
    assert met == {
        "/v2 JSON, x MLServer": True,
        "/v2 binary, x MLServer": False,
        "/v2 JSON, x PyTriton JSON": None,
        "/v2 binary, x PyTriton binary": False,
    }


def test_steal_and_what_others_used_are_shares_of_all_processors() -> None:
    before = Processors.parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
    after = Processors.parse("cpu  400 0 200 1200 100 0 0 100 0 0\ncpu0 1 2 3\n")
    assert after.stolen_since(before) == pytest.approx(0.1)
    # 1 000 ticks: 500 idle, 100 stolen, 400 used; 3 s of the known ones are 300 of these.
    assert after.others_since(before, 3.0) == pytest.approx(0.1)
    assert after.others_since(before, 10.0) == 0.0


def test_a_family_is_all_that_lead_to_its_root() -> None:
    assert descendants(10, {10: 1, 11: 10, 12: 11, 20: 1, 21: 20}) == [10, 11, 12]


def test_held_ports_are_in_a_row_where_the_kernel_gives_none_out() -> None:
    with HeldPorts(3) as ports:
        assert ports == tuple(range(ports[0], ports[0] + 3))
        assert ports[2] < lowest_given_out()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", ports[1]))
        with HeldPorts(3) as others:
            assert not set(ports) & set(others)
    for port in ports:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))


def test_the_reason_in_a_log_is_what_speaks_of_an_error() -> None:
    assert reason_in("started\nRuntimeError: Failed to bind to address\nbye\n") == "RuntimeError: Failed to bind to address"
    assert reason_in("one\ntwo\n") == "one | two"
    assert reason_in("") == "it said nothing"


def test_series_of_a_metrics_page_are_summed_over_their_labels() -> None:
    page = '# HELP a x\n# TYPE a counter\na{route="/score"} 2\na{route="/v2"} 3.5\nb 1\n'
    assert sums_in(page) == {"a": 5.5, "b": 1.0}
