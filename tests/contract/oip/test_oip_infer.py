"""Scoring over REST: what comes back agrees with the metadata, however the tensors travel."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest

DTYPES = {"BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2"}
DTYPES |= {"INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


@pytest.fixture
def body(target: Any) -> dict[str, Any]:
    return {"inputs": target.inputs()}


def checked(target: Any, answer: Any) -> dict[str, Any]:
    """The outputs by name; the answer is one, and its tensors are those of the metadata."""
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    assert document["model_name"] == target.model
    specs = {spec["name"]: spec for spec in target.metadata["outputs"]}
    for output in document["outputs"]:
        spec = specs[output["name"]]
        assert output["datatype"] == spec["datatype"]
        assert len(output["shape"]) == len(spec["shape"])
        assert all(int(want) in (-1, have) for want, have in zip(spec["shape"], output["shape"], strict=True))
        if "data" in output:
            assert len(np.ravel(output["data"])) == math.prod(output["shape"])
    return {output["name"]: output for output in document["outputs"]}


def test_all_outputs_unless_some_are_asked_for(target: Any, body: dict[str, Any]) -> None:
    names = [spec["name"] for spec in target.metadata["outputs"]]
    assert sorted(checked(target, target.infer(body))) == sorted(names)
    for name in names:
        assert list(checked(target, target.infer({**body, "outputs": [{"name": name}]}))) == [name]


def test_the_id_comes_back(target: Any, body: dict[str, Any]) -> None:
    for given in ("42", "a b/é"):
        assert target.infer({**body, "id": given}).json()["id"] == given


def test_parameters_that_nobody_knows_do_no_harm(target: Any, body: dict[str, Any]) -> None:
    assert target.infer({**body, "parameters": {"nobody-knows-this": 1}}).status_code == 200


def test_nested_data_is_flat_data(target: Any, body: dict[str, Any]) -> None:
    nested = [{**tensor, "data": np.reshape(tensor["data"], tensor["shape"]).tolist()} for tensor in body["inputs"]]
    assert target.infer({"inputs": nested}).json()["outputs"] == target.infer(body).json()["outputs"]


def test_the_order_of_inputs_does_not_matter(target: Any, body: dict[str, Any]) -> None:
    assert target.infer({"inputs": body["inputs"][::-1]}).json()["outputs"] == target.infer(body).json()["outputs"]


def without(tensor: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tensor.items() if name != key}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: None,
        lambda tensor: {**tensor, "name": "there-is-no-such-input"},
        lambda tensor: {**tensor, "datatype": "BOOL" if tensor["datatype"] != "BOOL" else "FP64"},
        lambda tensor: {**tensor, "datatype": "nonsense"},
        lambda tensor: {**tensor, "shape": [*tensor["shape"], 7]},
        lambda tensor: {**tensor, "shape": ["one"]},
        lambda tensor: {**tensor, "data": [*tensor["data"], *tensor["data"]]},
        lambda tensor: without(tensor, "data"),
        lambda tensor: without(tensor, "shape"),
        lambda tensor: without(tensor, "datatype"),
    ],
)
def test_a_wrong_input_is_refused_and_the_next_request_answered(target: Any, body: dict[str, Any], spoil: Any) -> None:
    spoiled = spoil(body["inputs"][0])
    refused = target.infer({"inputs": [*([] if spoiled is None else [spoiled]), *body["inputs"][1:]]})
    assert 400 <= refused.status_code < 500, refused.text
    assert isinstance(refused.json()["error"], str)
    assert target.infer(body).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"inputs": 1}', b"\xff"])
def test_a_wrong_body_is_refused(target: Any, body: dict[str, Any], content: bytes) -> None:
    refused = target.client.post(f"/v2/models/{target.model}/infer", content=content)
    assert 400 <= refused.status_code < 500
    assert isinstance(refused.json()["error"], str)
    assert target.infer(body).status_code == 200


def test_an_output_that_is_not_there(target: Any, body: dict[str, Any]) -> None:
    refused = target.infer({**body, "outputs": [{"name": "there-is-no-such-output"}]})
    assert 400 <= refused.status_code < 500
    assert refused.json()["error"]


# The binary tensor data extension --------------------------------------------------------------------------------------


def packed(array: Any) -> bytes:
    if array.dtype == object:
        texts = [str(text).encode() for text in array.flat]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())


def split(answer: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON of a binary answer, and the bytes of its tensors by name."""
    length = int(answer.headers["Inference-Header-Content-Length"])
    document, rest = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b"", "no byte belongs to nobody"
    return document, found


@pytest.fixture
def binary_head(target: Any) -> tuple[dict[str, Any], bytes]:
    if not target.offers("binary_tensor_data"):
        pytest.skip("the server does not offer binary_tensor_data")
    tails = {name: packed(array) for name, array in target.values().items()}
    inputs = [
        {**without(tensor, "data"), "parameters": {"binary_data_size": len(tails[tensor["name"]])}} for tensor in target.inputs()
    ]
    return {"inputs": inputs}, b"".join(tails.values())


def test_binary_in_and_json_out(target: Any, binary_head: tuple[dict[str, Any], bytes], body: dict[str, Any]) -> None:
    head, tail = binary_head
    answer = target.infer_binary(json.dumps(head).encode(), tail)
    assert checked(target, answer) == checked(target, target.infer(body))


def test_binary_in_and_out(target: Any, binary_head: tuple[dict[str, Any], bytes], body: dict[str, Any]) -> None:
    head, tail = binary_head
    plain = checked(target, target.infer(body))
    document, found = split(target.infer_binary(json.dumps({**head, "parameters": {"binary_data_output": True}}).encode(), tail))
    assert sorted(found) == sorted(plain)
    for output in document["outputs"]:
        if output["datatype"] != "BYTES":
            values = np.frombuffer(found[output["name"]], DTYPES[output["datatype"]])
            np.testing.assert_allclose(values.astype(float), np.ravel(plain[output["name"]]["data"]).astype(float), rtol=1e-6)


def test_one_output_in_binary(target: Any, binary_head: tuple[dict[str, Any], bytes], body: dict[str, Any]) -> None:
    names = [spec["name"] for spec in target.metadata["outputs"]]
    wanted = [{"name": name, "parameters": {"binary_data": name == names[0]}} for name in names]
    document, found = split(target.infer({**body, "outputs": wanted}))
    assert list(found) == names[:1]
    assert all("data" in output for output in document["outputs"] if output["name"] != names[0])


@pytest.mark.parametrize("change", [b"", b"1", None])
def test_binary_data_that_is_too_short_or_too_long(
    target: Any, binary_head: tuple[dict[str, Any], bytes], change: bytes | None
) -> None:
    head, tail = binary_head
    spoiled = tail[:-1] if change is None else tail + change + b"x"
    refused = target.infer_binary(json.dumps(head).encode(), spoiled)
    assert 400 <= refused.status_code < 500
    assert target.infer_binary(json.dumps(head).encode(), tail).status_code == 200
