"""Sampled requests out of a real server into files, and what scripts hand to ModelDataCollector."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as parquet
import pytest

from tests import scoring_models as models
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def records(folder: Path, name: str = "requests") -> list[dict[str, object]]:
    files = sorted(folder.glob(f"{name}-*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_record_has_ids_times_input_and_prediction_and_no_header(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    env = {"SERVICE_NAME": "flowers", "WORKSPACE_NAME": "garden"}
    with ScoringServer(tmp_path, "--model", models.iris(), "--collect", "--collect-dir", folder, env=env) as server:
        ids = {
            "x-request-id": "r-1",
            "x-ms-client-request-id": "c-1",
            "traceparent": PARENT,
            "authorization": "Bearer secret-key",
        }
        answer = server.score([ROW], headers=ids)
        server.score("no rows")
        server.get("/")
        wait_for(lambda: len(records(folder)) == 1, what="the record of what was scored")
        wait_for(lambda: server.metric("hedgerow_collected_records_total") == 1, what="its count")
        (found,) = records(folder)
        assert (found["Request Id"], found["Client Request Id"], found["Trace Id"]) == ("r-1", "c-1", PARENT.split("-")[1])
        assert (found["Workspace Name"], found["Service Name"], found["Models"]) == ("garden", "flowers", ["iris:1"])
        assert found["Input"] == [ROW]
        assert found["Prediction"] == answer.json()
        assert (found["Route"], found["Status"]) == ("score", 200)
        assert str(found["Timestamp"]).endswith("Z")
        assert found["Container Id"]
        assert "secret-key" not in next(folder.iterdir()).read_text()


def test_binary_and_packed_answers_are_kept_as_values(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with ScoringServer(tmp_path, "--model", models.iris(), "--collect", "--collect-dir", folder) as server:
        data = np.array([ROW], dtype="<f4").tobytes()
        head = json.dumps(
            {
                "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": len(data)}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        headers = {"inference-header-content-length": str(len(head))}
        assert server.post("/v2/models/iris/infer", head + data, headers=headers).status_code == 200
        packed = server.score([ROW] * 300, headers={"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        wait_for(lambda: len(records(folder)) == 2, what="both records")
        binary, large = records(folder)
    sent = binary["Input"]
    assert isinstance(sent, dict)
    assert sent["inputs"][0]["data"] == pytest.approx(ROW)
    got = binary["Prediction"]
    assert isinstance(got, dict)
    assert all("data" in output for output in got["outputs"])
    assert large["Prediction"] == packed.json()


def test_scripts_are_collected_with_their_text(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    body = "def init(): pass\ndef run(data):\n    if data == 'fail': raise ValueError\n    return data.upper()"
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), "--collect", "--collect-dir", folder) as server:
        server.post("/score", "words")
        server.post("/score", "fail")
        wait_for(lambda: len(records(folder)) == 2, what="both records")
        first, second = records(folder)
    assert (first["Input"], first["Prediction"], first["Models"]) == ("words", "WORDS", ["score:1"])
    assert (second["Input"], second["Status"]) == ("fail", 500)


def test_only_a_share_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    argv = ["--model", models.iris(), "--collect", "--collect-dir", folder, "--collect-sample", "0.2"]
    with ScoringServer(tmp_path, *argv) as server:
        with httpx.Client(trust_env=False) as client:
            for _ in range(500):
                client.post(f"{server.url}/score", json=[ROW])
        server.process.stop()
    assert 50 < len(records(folder)) < 170, "a hundred, give or take eight standard deviations"


def test_parquet_is_complete_after_the_end_and_files_are_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    argv = ["--model", models.iris(), "--collect", "--collect-dir", folder, "--collect-format", "parquet"]
    with ScoringServer(tmp_path, *argv) as server:
        for _ in range(5):
            server.score([ROW])
        server.process.stop()
    (file,) = folder.iterdir()
    table = parquet.read_table(file)
    assert table.num_rows == 5
    assert [json.loads(text) for text in table["Input"].to_pylist()] == [[ROW]] * 5


def test_a_folder_that_vanishes_or_is_full_harms_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with ScoringServer(tmp_path, "--model", models.iris(), "--collect", "--collect-dir", folder) as server:
        folder.rmdir()
        for _ in range(3):
            assert server.score([ROW]).status_code == 200
            wait_for(
                lambda: server.metric('hedgerow_collected_dropped_total{reason="disk"}') >= 1, what="the count of lost records"
            )
        assert server.process.log_text().count("collected data is lost") == 1
        folder.mkdir()
        server.score([ROW])
        wait_for(lambda: records(folder), what="records again")


def test_a_record_that_is_too_large_is_counted_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    argv = ["--model", models.iris(), "--collect", "--collect-dir", folder, "--collect-file-bytes", "10000"]
    with ScoringServer(tmp_path, *argv) as server:
        assert server.score([ROW] * 1000).status_code == 200
        server.score([ROW])
        wait_for(lambda: len(records(folder)) == 1, what="the small one")
        assert server.metric('hedgerow_collected_dropped_total{reason="size"}') == 1


def test_nothing_is_kept_without_being_asked(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        server.score([ROW])
        server.process.stop()
    assert not list(tmp_path.rglob("*.jsonl"))
    assert not list(tmp_path.rglob("collected"))


MDC = """
    import json
    import numpy as np
    from azureml.monitoring import ModelDataCollector

    def init():
        global inputs, predictions
        inputs = ModelDataCollector("best", designation="inputs", feature_names=["a", "b"])
        predictions = ModelDataCollector("best", identifier="predictions", feature_names=["p"], model_version=3)

    def run(data):
        rows = np.array(json.loads(data))
        correlations = inputs.collect(rows, "order-7")
        answer = rows.sum(axis=1)
        kept = predictions.collect(answer)
        return [answer.tolist(), correlations, kept]
    """


def test_model_data_collector_writes_to_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with ScoringServer(tmp_path, "--script", script(tmp_path, MDC), "--collect", "--collect-dir", folder) as server:
        answer, correlations, kept = server.post("/score", "[[1, 2], [3, 4]]").json()
        assert answer == [3, 7]
        assert kept is None
        assert correlations["$aml_dc_correlation_id"].startswith("order-7-")
        wait_for(lambda: len(records(folder, "script")) == 2, what="both records")
        inputs, predictions = records(folder, "script")
    assert (inputs["Designation"], inputs["Models"]) == ("inputs", ["best:default"])
    names, data = inputs["Feature Names"], inputs["Data"]
    assert isinstance(names, list)
    assert isinstance(data, list)
    assert names[:3] == ["a", "b", "$aml_dc_correlation_id"]
    assert [row[:2] for row in data] == [[1, 2], [3, 4]]
    assert all(len(row) == len(names) for row in data)
    assert inputs["Correlation Id"] == correlations["$aml_dc_correlation_id"]
    assert (predictions["Models"], predictions["Data"]) == (["best:3"], [[3, 7]])


def test_model_data_collector_without_collection_does_nothing_and_says_so_once_per_process(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, MDC), "--standbys", "0") as server:
        answer = server.post("/score", "[[1, 2]]")
        assert answer.json() == [[3], None, None]
        assert "data is not collected" in server.process.log_text()
    assert not list(tmp_path.rglob("*.jsonl"))


def test_the_last_records_of_a_script_are_written_when_the_server_stops(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with ScoringServer(tmp_path, "--script", script(tmp_path, MDC), "--collect", "--collect-dir", folder) as server:
        for _ in range(20):
            assert server.post("/score", "[[1, 2]]").status_code == 200
        os.kill(server.process.pid, signal.SIGTERM)
        wait_for(lambda: server.exit_code is not None, what="the end")
    assert len(records(folder, "script")) == 40
    assert len(records(folder)) == 20


MDC_IN_THREADS = """
    import sys
    import threading
    from azureml.monitoring import ModelDataCollector

    together = threading.Barrier(16)

    def collect(number):
        together.wait(10)
        ModelDataCollector(f"model-{number}", designation="inputs").collect([number])

    def init():
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=collect, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run(data):
        return sum(thread.name == "model-data" for thread in threading.enumerate())
    """


def test_collectors_first_made_by_threads_share_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    file = script(tmp_path, MDC_IN_THREADS)
    with ScoringServer(
        tmp_path, "--script", file, "--standbys", "0", "--workers", "1", "--collect", "--collect-dir", folder
    ) as server:
        assert server.post("/score", "").json() == 1, "writers"
        server.process.stop()
    assert len(records(folder, "script")) == 16
