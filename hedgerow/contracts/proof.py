"""ProofReport: the JSON answer of ``python -m runtime.prove``; and the sidecar of recorded parity vectors."""

from __future__ import annotations

import msgspec

from hedgerow.contracts.document import Document

PARITY_INDEX_FILE = "parity.json"


class ParityIndex(Document, frozen=True, kw_only=True):
    """Names the arrays of ``parity.npz`` (``input_0``…, ``output_0``…, first axis = rows, never pickled).

    ``outputs`` are what the *trained* model answered; ``atol``/``rtol`` bound ``|ours - reference|`` as in numpy.isclose.
    An output named here that the ONNX model lacks is an error; one that it has and that is not named is not compared.
    """

    inputs: list[str]
    outputs: list[str]
    atol: float = 1e-4
    rtol: float = 1e-3


class LatencyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One row alone, after warm-up, milliseconds."""

    p50_ms: float
    p99_ms: float


class ProofReport(Document, frozen=True, kw_only=True):
    """What was measured of one model. ``batchable``: the same rows alone and together agree within tolerance.

    ``memory_bytes`` is what the process grew by when it loaded and ran the model: the size of the file (``file_bytes``) does not
    say it. ``refusals`` tell why execution providers that were preferred to ``provider`` were not taken.
    """

    model: str
    rows: int
    passed: bool
    max_abs_error: float | None
    tolerance: float
    batchable: bool
    latency: LatencyFacts | None
    peak_memory_bytes: int
    provider: str
    reason: str = ""
    memory_bytes: int = 0
    file_bytes: int = 0
    refusals: list[str] = []
