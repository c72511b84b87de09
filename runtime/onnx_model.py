"""One loaded ONNX model: named arrays in, named outputs out. The only file that imports onnxruntime.

onnxruntime 1.31 is the first whose Linux wheels phone home: importing it makes a device id under ``~/.cache/Microsoft/
DeveloperTools/.onnxruntime``, starts an uploader thread and sends events (process, session, model, run times) to
mobile.events.data.microsoft.com. The warning "Failed to persist telemetry device ID" only means that the home folder is
not writable: it sends all the same. ``ORT_DISABLE_TELEMETRY=1`` in the environment before the first import switches all of
it off (no id, no thread, no file, 3 MB less); ``disable_telemetry_events()`` comes too late, after the process event.
Composition roots call :func:`silence_telemetry` first; images carry the variable too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.errors import (
    BadBody,
    BadTensorNames,
    ModelFailed,
    ModelInputUnsupported,
    ModelNeedsOperators,
    ModelUnusable,
)
from runtime.onnx_file import check_safe, read_facts
from runtime.tensors import DTYPES, ORT_DATATYPES, Array, rows_of

_log = logging.getLogger("hedgerow.runtime.onnx")
_TENSOR = re.compile(r"^tensor\((\w+)\)$")
_MAPS = re.compile(r"^seq\(map\(\w+,tensor\((\w+)\)\)\)$")
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])")


def silence_telemetry(environment: MutableMapping[str, str]) -> None:
    """Keep onnxruntime from phoning home, in this process and in its children; before its first import."""
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    # A model could otherwise bring session options of its own in its metadata.
    environment.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)


class ModelRun:
    """One run that another thread can end early. Called once."""

    def __init__(self, model: OnnxModel, feeds: Mapping[str, Array], wanted: Sequence[str] | None) -> None:
        import onnxruntime

        self._model, self._feeds, self._wanted = model, feeds, wanted
        self._options = onnxruntime.RunOptions()

    def call(self) -> dict[str, object]:
        return self._model.run(self._feeds, self._wanted, self._options)

    def cancel(self) -> None:
        """Ends the run at the next operator; a single long operator runs to its end."""
        self._options.terminate = True


class OnnxModel:
    """A model in an onnxruntime session, safe to run from several threads.

    Raises ModelUnusable, ModelUnsafe, ModelNeedsOperators or ModelInputUnsupported when it cannot be served.
    """

    def __init__(self, name: str, file: Path, *, version: str = "1", threads: int = 1) -> None:
        self.name, self.version, self.threads = name, version, threads
        self.facts = read_facts(file, name)
        check_safe(self.facts, file, name)
        self._session = _open(name, file, threads)
        self.provider: str = self._session.get_providers()[0]
        self.inputs = [_input_spec(name, value) for value in self._session.get_inputs()]
        self.outputs = [_output_spec(value) for value in self._session.get_outputs()]
        self._input_names = {spec.name for spec in self.inputs}
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None, options: Any = None) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        """Outputs by name. Raises BadBody (onnxruntime refuses the input) or ModelFailed (it failed inside)."""
        names = list(wanted) if wanted else self._output_names
        try:
            values = self._session.run(names, dict(feeds), options)
        # onnxruntime raises one class per status, all straight from Exception; they are told apart by name.
        except Exception as problem:  # noqa: BLE001 - see above; each becomes one of ours
            if type(problem).__name__ == "InvalidArgument":
                raise BadBody(problem=_first_sentence(problem), hint=f"See the inputs of model {self.name}.") from None
            _log.error("model %s failed: %s", self.name, problem)
            raise ModelFailed(model=self.name) from None
        return dict(zip(names, values, strict=True))

    def rows(self, feeds: Mapping[str, Array]) -> int:
        """How many rows a request counts as: the leading length of the first input."""
        return rows_of(feeds[self.inputs[0].name]) if self.inputs else 1

    def smallest_feeds(self) -> dict[str, Array]:
        """Zeros in the smallest shapes that the model declares; enough to warm it up."""
        return {spec.name: _smallest(spec) for spec in self.inputs}

    def check_names(self, given: Collection[str], wanted: Sequence[str] | None = None) -> None:
        """Raises BadTensorNames unless ``given`` names every input once and nothing else, and ``wanted`` only outputs."""
        names = set(given)
        if len(names) != len(given):
            raise BadTensorNames(problem="An input is named twice", kind="inputs", known=", ".join(map(repr, names)))
        for problem, found in (
            ("There is no input named", sorted(names - self._input_names)),
            ("A value is not provided for the input", sorted(self._input_names - names)),
        ):
            if found:
                known = ", ".join(repr(spec.name) for spec in self.inputs)
                raise BadTensorNames(problem=f"{problem} {found[0]!r}", kind="inputs", known=known)
        unknown = [name for name in wanted or [] if name not in self._output_names]
        if unknown:
            known = ", ".join(map(repr, self._output_names))
            raise BadTensorNames(problem=f"There is no output named {unknown[0]!r}", kind="outputs", known=known)


def _open(name: str, file: Path, threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads of a pool that spin take the core from the next request's parsing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Failures of a run are raised and logged by us, once; onnxruntime would print them a second time.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # noqa: BLE001 - onnxruntime's classes have no base of their own
        reason = _first_sentence(problem)
        if "is not a registered function/op" in reason:
            raise ModelNeedsOperators(model=name, problem=reason) from None
        raise ModelUnusable(model=name, file=file, problem=reason) from None


def _first_sentence(problem: Exception) -> str:
    text = _SOURCE_PLACE.sub("", _ORT_PREFIX.sub("", str(problem)))
    return " ".join(text.split())[:400]


def _input_spec(model: str, value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    match = _TENSOR.match(value.type)
    if match is None or match[1] not in ORT_DATATYPES:
        raise ModelInputUnsupported(model=model, tensor=value.name, type=value.type)
    return TensorSpec(name=value.name, datatype=ORT_DATATYPES[match[1]], shape=_shape(value.shape))


def _output_spec(value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    """Sequences of maps (sklearn's class probabilities) are told as rows x keys; anything else that is no tensor as BYTES."""
    if match := _TENSOR.match(value.type):
        return TensorSpec(name=value.name, datatype=ORT_DATATYPES.get(match[1], "BYTES"), shape=_shape(value.shape))
    if match := _MAPS.match(value.type):
        return TensorSpec(name=value.name, datatype=ORT_DATATYPES.get(match[1], "BYTES"), shape=[-1, -1])
    return TensorSpec(name=value.name, datatype="BYTES", shape=[-1])


def _shape(dimensions: Sequence[Any]) -> list[int]:
    """Fixed lengths stay; None, names, ``?`` and formulas all mean "any"."""
    return [length if isinstance(length, int) and length >= 0 else -1 for length in dimensions]


def _smallest(spec: TensorSpec) -> Array:
    shape = [1 if length == -1 else length for length in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
