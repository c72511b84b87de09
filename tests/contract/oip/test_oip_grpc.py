"""The same core over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

FIELDS = {"BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64", "UINT8": "uint", "UINT16": "uint"}
FIELDS |= {"UINT32": "uint", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}


@pytest.fixture
def stub(target: Any) -> Iterator[Any]:
    if target.grpc_address is None:
        pytest.skip("no gRPC address was given (OIP_GRPC)")
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    with grpc.insecure_channel(target.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def messages() -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2


def request_of(target: Any, *, raw: bool) -> Any:
    request = messages().ModelInferRequest(model_name=target.model, id="42")
    datatypes = {spec["name"]: spec["datatype"] for spec in target.metadata["inputs"]}
    for name, array in target.values().items():
        tensor = request.inputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if raw:
            request.raw_input_contents.append(b"\0\0\0\0" * array.size if datatypes[name] == "BYTES" else array.tobytes())
        else:
            values = [b""] * array.size if datatypes[name] == "BYTES" else array.ravel().tolist()
            getattr(tensor.contents, f"{FIELDS[datatypes[name]]}_contents").extend(values)
    return request


def test_facts(target: Any, stub: Any) -> None:
    found = messages()
    assert stub.ServerLive(found.ServerLiveRequest()).live
    assert stub.ServerReady(found.ServerReadyRequest()).ready
    assert stub.ModelReady(found.ModelReadyRequest(name=target.model)).ready
    assert stub.ServerMetadata(found.ServerMetadataRequest()).name == target.get("/v2").json()["name"]
    facts = stub.ModelMetadata(found.ModelMetadataRequest(name=target.model))
    shown = [(spec.name, spec.datatype, list(spec.shape)) for spec in facts.inputs]
    assert shown == [
        (spec["name"], spec["datatype"], [int(length) for length in spec["shape"]]) for spec in target.metadata["inputs"]
    ]


@pytest.mark.parametrize("raw", [True, False])
def test_scoring_agrees_with_rest(target: Any, stub: Any, raw: bool) -> None:
    answer = stub.ModelInfer(request_of(target, raw=raw))
    plain = target.infer({"inputs": target.inputs()}).json()["outputs"]
    assert answer.id == "42"
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [(one["name"], one["shape"]) for one in plain]
    for place, (output, one) in enumerate(zip(answer.outputs, plain, strict=True)):
        if output.datatype == "BYTES":
            continue
        if answer.raw_output_contents:
            kind = "float" + output.datatype[2:] if output.datatype.startswith("FP") else output.datatype.lower()
            values = np.frombuffer(answer.raw_output_contents[place], kind)
        else:
            values = np.array(getattr(output.contents, f"{FIELDS[output.datatype]}_contents"))
        np.testing.assert_allclose(values.astype(float), np.ravel(one["data"]).astype(float), rtol=1e-6)


def test_wrong_requests_have_a_status_and_a_sentence(target: Any, stub: Any) -> None:
    import grpc

    for spoil in ("model_name", "inputs", "raw_input_contents"):
        request = request_of(target, raw=True)
        if spoil == "model_name":
            request.model_name = "there-is-no-such-model"
        elif spoil == "inputs":
            request.inputs[0].name = "there-is-no-such-input"
        else:
            request.raw_input_contents[0] += b"x"
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request)
        assert refused.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert refused.value.details()
    assert stub.ModelInfer(request_of(target, raw=True)).id == "42"
