"""Our table of messages against the definitions that Triton's own client brings: same names, numbers and types."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from runtime.grpc.messages import message_classes
from runtime.grpc.schema import CALLS, CONFIG_TYPES

CLASSES = message_classes()
# An enum is a number on the wire; which numbers is checked below.
ENUM, INT32 = 14, 5


def theirs(name: str) -> Any:
    found = service_pb2.DESCRIPTOR
    model_config = service_pb2.DESCRIPTOR.dependencies[0]
    outer, *inner = name.split(".")
    message = found.message_types_by_name.get(outer) or model_config.message_types_by_name[outer]
    return message.nested_types_by_name[inner[0]] if inner else message


def facts(field: Any) -> tuple[object, ...]:
    kind = INT32 if field.type == ENUM else field.type
    message = field.message_type.full_name if field.message_type is not None else ""
    oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
    return field.number, kind, field.is_repeated, message, oneof


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_message_is_the_same_on_the_wire(name: str) -> None:
    known = theirs(name)
    for field in CLASSES[name].DESCRIPTOR.fields:
        assert facts(field) == facts(known.fields_by_name[field.name]), f"{name}.{field.name}"


def test_the_calls_are_those_of_the_service() -> None:
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for call, (request, response, streams) in CALLS.items():
        method = methods[call]
        known = (method.input_type.name, method.output_type.name, method.client_streaming, method.server_streaming)
        assert known == (request, response, streams, streams)
    numbers = service_pb2.DESCRIPTOR.dependencies[0].enum_types_by_name["DataType"].values_by_name
    for name, number in CONFIG_TYPES.items():
        assert numbers["TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"].number == number
