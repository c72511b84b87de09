"""What the gRPC face makes by hand: addresses, frames around answers, refusals."""

from __future__ import annotations

import grpc
import pytest
from tritonclient.grpc import service_pb2

from runtime.errors import BadBody, NotReady
from runtime.grpc.calls import caller_of
from runtime.grpc.stream import framed
from runtime.grpc.told import Refusal


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("unix:/run/socket", ""),
        ("", ""),
    ],
)
def test_a_callers_address(peer: str, caller: str) -> None:
    assert caller_of(peer) == caller


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_a_frame_is_what_the_protocols_own_code_reads(size: int) -> None:
    inner = service_pb2.ModelInferResponse(model_name="m", raw_output_contents=[b"x" * size])
    read = service_pb2.ModelStreamInferResponse.FromString(framed(inner.SerializeToString()))
    assert read == service_pb2.ModelStreamInferResponse(infer_response=inner)
    empty = service_pb2.ModelStreamInferResponse.FromString(framed(b""))
    assert empty.infer_response == service_pb2.ModelInferResponse()


def test_a_refusal_says_what_rest_would_and_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = Refusal.of(BadBody(problem="it is odd", hint="Mend it."))
    assert (bad.status, bad.code, bad.text) == (
        400,
        grpc.StatusCode.INVALID_ARGUMENT,
        "The request body cannot be used: it is odd. Mend it.",
    )
    assert Refusal.of(NotReady(state="loading")).code is grpc.StatusCode.UNAVAILABLE
    ours = Refusal.of(ValueError("secret"))
    assert (ours.status, ours.code, "secret" in ours.text) == (500, grpc.StatusCode.INTERNAL, False)
    assert Refusal.of(ours) is ours
    assert len(caplog.records) == 1
