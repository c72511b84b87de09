"""ConvertRequest and ConvertResult: what crosses to ``python -m packager convert`` and back (progress lines as for builds)."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.model import FileEntry, RelativePath, TensorSpec
from hedgerow.contracts.names import Digest

Quantize = Literal["none", "dynamic", "static"]


class ConvertRequest(Document, frozen=True, kw_only=True):
    """Turn the trained model in ``folder`` (absolute, read only) into ONNX in ``out`` (absolute, empty).

    ``entry``: the file to open, None: the only one that fits. ``sample_input``: absolute path of the model version's sample
    input, if it has one. ``requirements``: what the model was trained with (``scikit-learn==1.5.2``), which decides the
    libraries that its pickle is opened with. ``atol``/``rtol`` bound the converter's error as in numpy.isclose;
    ``accuracy_loss_max`` bounds what quantisation may cost (share of rows whose label changes, or relative error).
    """

    model: ModelRef
    folder: str
    framework: str = ""
    framework_version: str | None = None
    entry: RelativePath | None = None
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    sample_input: str | None = None
    requirements: list[str] = []
    python_version: str = "3.11"
    opset: int | None = None
    quantize: Quantize = "none"
    accuracy_loss_max: float = 0.01
    atol: float = 1e-4
    rtol: float = 1e-3
    out: str
    cache: str


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far two models differ on the same rows. ``labels_changed`` counts rows whose label (text or integer) is another."""

    rows: int
    max_abs_error: float
    max_rel_error: float
    labels_changed: int = 0
    tolerance: str = ""


class ConvertResult(Document, frozen=True, kw_only=True):
    """The files in ``out``: ``model.onnx``, ``parity.npz``/``parity.json`` (answers of the *trained* model), ``io.json``,
    ``required_operators.config``, with ``quantize`` also ``model.float.onnx`` (and ``model.onnx`` is the int8 one).

    ``key`` stands for everything that decided the conversion: the same key is the same conversion, made once.
    ``tools`` are the libraries that took part, by name. ``notes`` are sentences for a person.
    """

    files: list[FileEntry]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    opsets: dict[str, int]
    ir_version: int
    operators: list[str]
    agreement: Agreement
    quantized: Agreement | None = None
    batchable: bool = False
    latency_ms: float | None = None
    peak_memory_bytes: int | None = None
    tools: dict[str, str]
    key: Digest
    reused: bool = False
    notes: list[str] = []
