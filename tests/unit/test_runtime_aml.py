"""The parts of the AML contract that need no server: ids, query, the contract's words."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import Bug, HedgerowError, ScriptError
from runtime.aml.face import AmlFace, propagated_ids, query_as_json
from runtime.errors import BadBody, BodyNotText, BodyTooLarge, IdTooLong, NotReady, Overloaded, ScoringTimeout, ScriptRaised
from runtime.exchange import Exchange, Request, Response
from runtime.http_errors import answer_error
from runtime.models.errors import UnknownModel
from runtime.models.jobs import Job
from runtime.models.outputs import RunOutputs, Share
from runtime.observing.metrics import Board
from runtime.observing.telemetry import NoTelemetry

A = "made-here"


@pytest.mark.parametrize(
    ("request_id", "legacy", "client", "expected"),
    [
        (None, None, None, (A, A, None)),
        ("a", None, None, ("a", "a", None)),
        (None, "b", None, (A, "b", "b")),
        (None, None, "c", (A, "c", "c")),
        ("a", "b", "c", ("a", "b", "c")),
        ("a", "b", None, ("a", "b", "b")),
        ("a", None, "c", ("a", "c", "c")),
    ],
)
def test_ids_propagate_as_azmlinfsrv_documents(
    request_id: str | None, legacy: str | None, client: str | None, expected: tuple[str | None, ...]
) -> None:
    given = {"x-request-id": request_id, "x-ms-request-id": legacy, "x-ms-client-request-id": client}
    ids = propagated_ids({name: value for name, value in given.items() if value is not None}, A)
    assert tuple(ids.get(name) for name in given) == expected


def test_trace_ids_are_echoed() -> None:
    assert propagated_ids({"traceid": "t"}, A)["TraceId"] == "t"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("x-request-id", "x-request-id must not exceed 100 characters"),
        ("x-ms-request-id", "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"),
        ("x-ms-client-request-id", "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"),
    ],
)
def test_an_id_over_100_characters_is_refused_in_the_contracts_words(header: str, says: str) -> None:
    propagated_ids({header: "i" * 100}, A)
    with pytest.raises(IdTooLong) as refused:
        propagated_ids({header: "i" * 101}, A)
    answer = answer_error(refused.value, "message")
    assert (answer.status, json.loads(answer.body)) == (431, {"message": says})


_PIECES = st.sampled_from(
    ["a", "b", "=", "&", "&", "=", "%", "%C3", "%BC", "%FF", "%41", "+", "1", "[1", "]", '"', "null", ";", "%zz", "%26"]
)


@given(st.lists(_PIECES, max_size=20).map("".join))
def test_a_query_is_read_as_flask_reads_it(query: str) -> None:
    def value(text: str) -> object:
        try:
            return json.loads(text)
        except ValueError:
            return text

    args = flask.Request({"QUERY_STRING": query}).args
    wanted = {name: [value(text) for text in texts] for name, texts in args.lists()}
    assert json.loads(query_as_json(query)) == {name: values if len(values) > 1 else values[0] for name, values in wanted.items()}


def test_a_query_that_is_not_encoded_is_utf_8() -> None:
    assert json.loads(query_as_json("grün=ö".encode().decode("latin-1"))) == {"grün": "ö"}


def test_a_query_becomes_json_text() -> None:
    assert json.loads(query_as_json("a=1&b=[1,2]&c=a&foo=x&foo=y&n=null&e=&s=%C3%A9+")) == {
        "a": 1,
        "b": [1, 2],
        "c": "a",
        "foo": ["x", "y"],
        "n": None,
        "e": "",
        "s": "é ",
    }
    assert query_as_json("") == "{}"
    assert math.isnan(json.loads(query_as_json("x=NaN"))["x"])


@pytest.mark.parametrize(
    ("problem", "aml", "oip"),
    [
        (BodyNotText(problem="p"), 400, 400),
        (BadBody(problem="p", hint="h"), 400, 400),
        (BodyTooLarge(limit=5), 413, 413),
        (UnknownModel(model="m", known="n"), 404, 404),
        (Overloaded(waited_ms=500), 503, 503),
        (NotReady(state="loading"), 503, 503),
        (ScoringTimeout(timeout_ms=5), 500, 504),
        (ScriptRaised(), 500, 500),
        (Bug(what="secret"), 500, 500),
        (ValueError("secret"), 500, 500),
    ],
)
def test_every_error_has_its_status_and_one_shape(problem: Exception, aml: int, oip: int) -> None:
    for dialect, status in (("message", aml), ("error", oip)):
        answer = answer_error(problem, dialect)  # type: ignore[arg-type]  # the two literals
        document = json.loads(answer.body)
        assert (answer.status, list(document)) == (status, [dialect])
        assert "secret" not in document[dialect], "what we did not foresee is told to nobody"
        assert ("retry-after" in answer.headers) == (status == 503)


def test_contract_texts_are_word_for_word() -> None:
    def text(problem: HedgerowError) -> str:
        message: str = json.loads(answer_error(problem, "message").body)["message"]
        return message

    assert text(ScriptRaised()) == "An unexpected error occurred in scoring script. Check the logs for more info."
    assert text(ScoringTimeout(timeout_ms=100)) == "Scoring timeout after 100 ms"
    assert text(Bug(what="x")) == "An unexpected internal error occurred. Check the logs for more info."
    assert issubclass(ScoringTimeout, ScriptError), "x-ms-run-function-failed is True for it"


def test_outputs_that_json_has_no_word_for_are_answered_as_a_failure() -> None:
    """Raised on the loop instead, they would leave this caller, and all that shared its run, without an answer."""
    board, sent, jobs = Board([("m", "1")], rows=1), list[Response](), list[Job]()
    channel = SimpleNamespace(since=0.0, send=lambda _exchange, response: sent.append(response))

    model = SimpleNamespace(inputs=[], specs={}, row_form=None, rows=lambda _feeds: 1, check_names=lambda _named: None)
    lane = SimpleNamespace(model=model, key=("m", "1"), counters=board.model(("m", "1")), submit=jobs.append)
    scoring = SimpleNamespace(loaded=True, has_script=False, recorder=NoTelemetry(), only_model=lambda: lane)
    face = AmlFace(scoring, board, None)  # type: ignore[arg-type]  # as much of one as a request looks at
    face.score(Exchange(channel, Request("POST", "/score", body=b""), keep_alive=True))
    jobs[0].outputs = Share(RunOutputs({"y": 1j}))
    jobs[0].settle()
    jobs[0].done(jobs[0])
    assert [response.status for response in sent] == [500]
    assert board.model_values(("m", "1")) != [0.0] * len(board.model_values(("m", "1")))
