"""Message classes made of schema.py's table, in a pool of their own.

A script or client that brings Triton's generated code meets no second definition of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from runtime.grpc.schema import MESSAGES, PACKAGE

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def message_classes(table: str = MESSAGES, package: str = PACKAGE) -> Mapping[str, Any]:
    """Each message's class by its name in the table."""
    file = descriptor_pb2.FileDescriptorProto(name=f"hedgerow/{package}.proto", package=package, syntax="proto3")
    messages: dict[str, Any] = {}
    current = ""
    for line in table.strip().splitlines():
        words = line.split()
        if line.startswith(" "):
            _add_field(messages[current], words, package)
        else:
            current = words[0]
            outer, _, inner = current.rpartition(".")
            messages[current] = (messages[outer].nested_type if outer else file.message_type).add(name=inner)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(message: Any, words: list[str], package: str) -> None:  # noqa: ANN401 - descriptors have no types
    number, name, kind, *rest = words
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind == "map":
        # On the wire a map is a repeated message of key and value.
        entry = message.nested_type.add(name=f"{''.join(word.capitalize() for word in name.split('_'))}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), rest[0], package)
        field.label, field.type, field.type_name = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE, entry.name
        return
    if kind.startswith("*"):
        field.label = _Field.LABEL_REPEATED
    _set_type(field, kind.removeprefix("*"), package)
    if rest:
        if not message.oneof_decl:
            message.oneof_decl.add(name=rest[1])
        field.oneof_index = 0


def _set_type(field: Any, kind: str, package: str) -> None:  # noqa: ANN401 - descriptors have no types
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
