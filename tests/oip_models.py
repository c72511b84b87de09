"""Models and repositories for tests of the Open Inference Protocol."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from onnx import TensorProto, helper

from tests.scoring_models import build, value

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


@cache
def every_type() -> Path:
    """An input of each number type, named for it; ``out NAME`` is the same again."""
    nodes = [helper.make_node("Identity", [name], [f"out {name}"]) for name in DATATYPES]
    inputs = [value(name, kind, ["N"]) for name, kind in DATATYPES.items()]
    outputs = [value(f"out {name}", kind, ["N"]) for name, kind in DATATYPES.items()]
    return build("every-type", nodes, inputs, outputs)


def put_models(root: Path, **files: Path) -> Path:
    """A repository in Triton's layout, each model as version 1."""
    for name, file in files.items():
        place = root / name / "1"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(file.read_bytes())
    return root
