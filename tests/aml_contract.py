"""Requests whose answers the AML contract fixes, and what asks them of a server that is called like azmlinfsrv.

    python -m tests.aml_contract PROGRAM OUT.json     records what PROGRAM (an ``azmlinfsrv``) answers

``tests/contract/aml_answers.json`` was recorded so from azureml-inference-server-http 1.5.1 with inference-schema 1.8, Flask 3.1
and pandas 3.1; tests/contract/test_aml_contract.py compares ours with it.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.waiting import wait_for

JSON_TYPE = {"content-type": "application/json"}
TIDIED = ("date", "server", "connection", "content-length", "transfer-encoding", "x-ms-server-version")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

SCRIPTS = {
    "string": """
        import json
        from azureml_inference_server_http.api.aml_response import AMLResponse
        from flask import Response, abort, jsonify, request

        def init():
            pass

        def stream():
            yield b"one,"
            yield b"two"

        def run(data, request_headers):
            do = json.loads(data).get("do") if data.startswith("{") else data
            answers = {
                "none": lambda: None,
                "nan": lambda: [float("nan"), float("inf"), 2**70],
                "text": lambda: "grün",
                "header": lambda: request_headers.get("X-Thing"),
                "raise": lambda: 1 / 0,
                "abort": lambda: abort(404),
                "unknown-abort": lambda: abort(499),
                "set": lambda: {1, 2},
                "tuple": lambda: ("a", 418),
                "aml": lambda: AMLResponse({"a": 1}, 201, {"X-One": "1", "x-list": "a, b"}, json_str=True),
                "aml-none": lambda: AMLResponse(None, 202),
                "aml-text": lambda: AMLResponse("plain", 200),
                "aml-bytes": lambda: AMLResponse(b"\\x00\\xff", 200, {"Content-Type": "image/png"}),
                "aml-failed": lambda: AMLResponse("no", 400, {}, False, True),
                "aml-500": lambda: AMLResponse("own words", 500),
                "aml-stream": lambda: AMLResponse(stream(), 200, {"Content-Type": "text/csv"}),
                "aml-ids": lambda: AMLResponse("x", 200, {"x-request-id": "mine", "x-ms-request-id": "mine"}),
                "aml-cookies": lambda: AMLResponse("x", 200, {"Set-Cookie": "a=1,b=2"}),
                "flask": lambda: Response("hello", 203, {"X-Own": "yes"}),
                "flask-503": lambda: Response("busy", 503, {"Retry-After": "7"}),
                "flask-204": lambda: Response(status=204),
                "jsonify": lambda: jsonify(a=[1, 2]),
                "context": lambda: [request.method, request.path, request.args.to_dict(), request.get_data(as_text=True)],
            }
            return answers[do]() if do in answers else {"got": data}
    """,
    "schema": """
        import numpy as np
        from inference_schema.schema_decorators import input_schema, output_schema
        from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

        def init():
            pass

        @input_schema("x", NumpyParameterType(np.array([[1.5, 2.0]])))
        @input_schema("n", StandardPythonParameterType(3))
        @output_schema(StandardPythonParameterType({"sum": 1.0}))
        def run(x, n=7, note=None):
            if note == "raise":
                raise ValueError(note)
            return {"sum": float(x.sum()), "dtype": str(x.dtype), "n": n, "note": note}
    """,
    "pandas": """
        import pandas as pd
        from datetime import datetime
        from inference_schema.schema_decorators import input_schema, output_schema
        from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

        sample = pd.DataFrame({"age": [39], "name": ["Ann"], "score": [0.5], "at": [datetime(2020, 1, 2, 3, 4, 5)]})

        def init():
            pass

        @input_schema("data", PandasParameterType(sample))
        @input_schema("method", StandardPythonParameterType("predict"))
        @output_schema(StandardPythonParameterType([1, "two"]))
        def run(data, method="predict"):
            types = [str(kind) for kind in data.dtypes]
            return {"types": types, "rows": len(data), "age": data["age"].tolist(), "method": method}
    """,
    "nested": """
        import numpy as np
        from inference_schema.schema_decorators import input_schema
        from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

        word = StandardPythonParameterType("w")
        parts = {"array": NumpyParameterType(np.array([1, 2])), "word": word, "flag": True, "many": [1.0]}

        def init():
            pass

        @input_schema(param_name="inputs", param_type=StandardPythonParameterType(parts))
        @input_schema(param_name="blob", param_type=StandardPythonParameterType(b"bytes"), optional=True)
        def run(inputs, blob=None):
            return [type(inputs["array"]).__name__, inputs["word"], None if blob is None else blob.decode()]
    """,
    "raw": """
        from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
        from azureml_inference_server_http.api.aml_response import AMLResponse

        def init():
            pass

        @rawhttp
        def run(request):
            if request.args.get("do") == "raise":
                raise ValueError("no")
            if request.args.get("do") == "form":
                return request.form.to_dict()
            if request.args.get("do") == "file":
                return request.files["image"].read().decode()
            if request.method == "OPTIONS":
                return AMLResponse("", 204, {"Allow": "GET"})
            return {
                "method": request.method, "path": request.path, "args": request.args.to_dict(flat=False), "host": request.host,
                "data": list(request.get_data()), "type": request.content_type, "thing": request.headers.get("x-thing"),
            }
    """,
}


@dataclass(frozen=True)
class Case:
    """One request."""

    script: str
    name: str
    method: str = "POST"
    target: str = "/score"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.script}: {self.name}"


def _do(what: str) -> Case:
    return Case("string", f"run answers {what}", body=json.dumps({"do": what}).encode())


def _schema(name: str, body: object, **headers: str) -> Case:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case("schema", name, body=raw, headers=headers or JSON_TYPE)


_PLAIN = "none nan text raise abort unknown-abort set tuple jsonify"
_RESPONSES = "aml aml-none aml-text aml-bytes aml-failed aml-500 aml-stream aml-ids aml-cookies flask flask-503 flask-204"


def _swagger(script: str, *asked: str) -> list[Case]:
    return [Case(script, f"swagger {query}", "GET", f"/swagger.json{query}") for query in asked]


_IDS = {"x-request-id": "A", "x-ms-request-id": "B", "x-ms-client-request-id": "C"}
_PICTURE = {"content-type": "image/png", "x-thing": "t"}
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_ROW = {"age": 5, "name": "x", "score": 1, "at": "2021-02-03T04:05:06"}
CASES = [
    *[_do(what) for what in f"{_PLAIN} {_RESPONSES}".split()],
    Case("string", "text that is no JSON", body=b"hello"),
    Case("string", "text beyond ASCII", body="grün".encode()),
    Case("string", "no body"),
    Case("string", "not UTF-8", body=b"\xff\xfe"),
    Case("string", "a query as JSON", "GET", "/score?a=1&b=[1,2]&c=a&d=null&foo=x&foo=y&e=&f=1.50&g=%7B%22h%22%3A1%7D"),
    Case("string", "an empty query", "GET"),
    Case("string", "a query beside a body", target="/score?a=1", body=b"body"),
    Case("string", "OPTIONS", "OPTIONS"),
    Case("string", "PUT", "PUT"),
    Case("string", "HEAD", "HEAD"),
    Case("string", "a header", body=b"header", headers={"x-thing": "1"}),
    Case("string", "flask.request in run", target="/score?q=1", body=b"context"),
    Case("string", "health", "GET", "/"),
    Case("string", "health by POST", "POST", "/"),
    Case("string", "unknown path", "GET", "/nowhere"),
    Case("string", "all three ids", body=b"x", headers=_IDS),
    Case("string", "only x-request-id", headers={"x-request-id": "A"}, body=b"x"),
    Case("string", "only x-ms-request-id", headers={"x-ms-request-id": "B"}, body=b"x"),
    Case("string", "only x-ms-client-request-id", headers={"x-ms-client-request-id": "C"}, body=b"x"),
    Case("string", "TraceId", headers={"TraceId": "T"}, body=b"x"),
    Case("string", "x-request-id of 101 characters", headers={"x-request-id": "A" * 101}, body=b"x"),
    Case("string", "x-ms-request-id of 101 characters", headers={"x-ms-request-id": "A" * 101}, body=b"x"),
    Case("string", "x-request-id of 100 characters", headers={"x-request-id": "A" * 100}, body=b"x"),
    _schema("all parameters", {"x": [[1, 2], [3, 4]], "n": 1, "note": "n"}),
    _schema("defaults and extra keys", {"x": [[1, 2]], "more": 1}),
    _schema("a parameter is missing", {"n": 1}),
    _schema("wrong shape", {"x": [[1, 2, 3]]}),
    _schema("wrong type", {"x": [[1, 2]], "n": "one"}),
    _schema("no JSON", b"{x"),
    _schema("no body", b""),
    _schema("a list", [1]),
    _schema("no content type", {"x": [[1, 2]]}, accept="*/*"),
    _schema("text/plain", {"x": [[1, 2]]}, **{"content-type": "text/plain"}),
    _schema("application/json with a charset", {"x": [[1, 2]]}, **{"content-type": "application/json; charset=utf-8"}),
    _schema("application/x+json", {"x": [[1, 2]]}, **{"content-type": "application/x+json"}),
    _schema("run raises", {"x": [[1, 2]], "note": "raise"}),
    Case("schema", "a query", "GET", "/score?x=[[1,2]]&n=4"),
    Case("schema", "an empty query", "GET"),
    Case("schema", "OPTIONS", "OPTIONS"),
    *_swagger("schema", "", "?version=3", "?version=3.1", "?version=9"),
    Case("pandas", "records", body=json.dumps({"data": [_ROW, _ROW]}).encode(), headers=JSON_TYPE),
    Case("pandas", "a column is missing", body=json.dumps({"data": [{"age": 5}]}).encode(), headers=JSON_TYPE),
    Case("pandas", "a number", body=b'{"data": 5}', headers=JSON_TYPE),
    *_swagger("pandas", "", "?version=3", "?version=8"),
    Case("nested", "all parts", body=b'{"inputs": {"array": [1], "word": "v"}, "blob": "aGk="}', headers=JSON_TYPE),
    Case("nested", "the optional part is left out", body=b'{"inputs": {"array": [1], "word": "v"}}', headers=JSON_TYPE),
    Case("nested", "no dictionary", body=b'{"inputs": 1}', headers=JSON_TYPE),
    Case("nested", "swagger", "GET", "/swagger.json"),
    Case("raw", "POST", target="/score?a=1&a=2&b=%C3%BC", body=b"\x00\xff", headers=_PICTURE),
    Case("raw", "GET", "GET", "/score?a=1"),
    Case("raw", "OPTIONS", "OPTIONS"),
    Case("raw", "run raises", target="/score?do=raise"),
    Case("raw", "a form", target="/score?do=form", body=b"a=1&b=x+y", headers=_FORM),
    Case(
        "raw",
        "a file",
        target="/score?do=file",
        body=b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\npixels\r\n--cut--\r\n',
        headers={"content-type": "multipart/form-data; boundary=cut"},
    ),
    Case("raw", "swagger", "GET", "/swagger.json?version=2"),
]


def script_file(folder: Path, name: str) -> Path:
    """The named script, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"score_{name}.py"
    file.write_text(textwrap.dedent(SCRIPTS[name]), encoding="utf-8")
    return file


def ask(port: int, case: Case) -> dict[str, object]:
    """The answer without what changes from one time to the next: ids that were made, durations, dates."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(case.method, case.target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"host": "service.example", **case.headers}.items():
            connection.putheader(name, value)
        if case.method in ("POST", "PUT"):
            connection.putheader("content-length", str(len(case.body)))
        connection.endheaders(case.body or None)
        answer = connection.getresponse()
        body = answer.read()
        headers = sorted((name.lower(), _UUID.sub("<made>", value)) for name, value in answer.getheaders())
    finally:
        connection.close()
    kept = [[name, "<time>" if name == "x-ms-run-fn-exec-ms" else value] for name, value in headers if name not in TIDIED]
    return {"status": answer.status, "headers": kept, "body": _readable(body)}


def _readable(body: bytes) -> object:
    try:
        document = json.loads(body)
    except ValueError:
        return {"bytes": body.decode("latin-1")}
    return {"swagger": _facts_of(document)} if isinstance(document, dict) and "paths" in document else {"json": document}


def _facts_of(document: dict[str, Any]) -> dict[str, object]:
    """What clients are generated from; the prose around it is each server's own."""
    operations = {path: {method: one["operationId"] for method, one in item.items()} for path, item in document["paths"].items()}
    schemas = document["definitions"] if "definitions" in document else document["components"]["schemas"]
    info = {name: document["info"][name] for name in ("title", "version")}
    return {"version": document.get("swagger") or document["openapi"], "info": info, "operations": operations, "schemas": schemas}


def record(program: str) -> dict[str, object]:
    """What ``program`` answers to all cases."""
    found: dict[str, object] = {}
    for name in SCRIPTS:
        with tempfile.TemporaryDirectory() as place:
            file = script_file(Path(place), name)
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            argv = [program, "--entry_script", str(file), "--port", str(port)]
            with subprocess.Popen(argv, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    wait_for(partial(_answers, port), timeout_s=60.0, what=f"{program} with {name}")
                    found |= {case.key: ask(port, case) for case in CASES if case.script == name}
                finally:
                    process.terminate()
    return found


def _answers(port: int) -> bool:
    try:
        return ask(port, Case("", "", "GET", "/"))["status"] == 200
    except OSError:
        return False


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(record(sys.argv[1]), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
