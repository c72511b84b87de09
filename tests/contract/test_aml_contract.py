"""Our answers beside those of azureml-inference-server-http to the same requests (aml_answers.json, tests/aml_contract.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aml_contract import CASES, SCRIPTS, Case, ask, script_file
from tests.azmlinfsrv_server import Azmlinfsrv

RECORDED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("aml_answers.json").read_text(encoding="utf-8"))
# Headers that we send where upstream sends none: ids on every answer, the methods that a 405 allows.
MORE = {"x-request-id", "x-ms-request-id", "allow"}
_SCRIPTS_FAULT = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
# Upstream calls an answer that is no JSON its own internal error, with x-ms-run-function-failed: False. It is the script's.
DIFFERENT: dict[str, dict[str, Any]] = {
    "string: run answers set": {"status": 500, "body": {"json": _SCRIPTS_FAULT}, "failed": "True"},
}


@pytest.fixture(scope="module", params=sorted(SCRIPTS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp(request.param)
    with Azmlinfsrv(folder, "--entry_script", script_file(folder, request.param)) as server:
        yield request.param, server.port


def test_every_answer_is_the_recorded_one(served: tuple[str, int]) -> None:
    name, port = served
    wrong = [line for case in CASES if case.script == name for line in _differences(case, ask(port, case))]
    assert not wrong, "\n".join(wrong)


def test_every_case_was_recorded() -> None:
    assert [case.key for case in CASES] == list(RECORDED)


def _differences(case: Case, answer: dict[str, Any]) -> Iterator[str]:
    recorded = RECORDED[case.key]
    wanted = [tuple(pair) for pair in recorded["headers"]]
    got = [tuple(pair) for pair in answer["headers"]]
    if different := DIFFERENT.get(case.key):
        recorded = recorded | {"status": different["status"], "body": different["body"]}
        wanted = [(name, different["failed"] if name == "x-ms-run-function-failed" else value) for name, value in wanted]
    for part in ("status", "body"):
        # As text: NaN is not equal to itself.
        if json.dumps(answer[part], sort_keys=True) != json.dumps(recorded[part], sort_keys=True):
            yield f"{case.key}: {part} is {answer[part]!r}, recorded was {recorded[part]!r}"
    missing = [pair for pair in wanted if pair not in got]
    extra = [pair for pair in got if pair not in wanted and (pair[0] not in MORE or pair[0] in dict(wanted))]
    if missing or extra:
        yield f"{case.key}: headers lack {missing} and have {extra}"
