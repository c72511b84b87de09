"""What the server knows of a model in memory, however it is run: one session (onnx_model.py) or stages (staged_model.py)."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadTensorNames
from runtime.models.errors import ModelFailed
from runtime.models.onnx_file import OnnxFacts
from runtime.models.providers import Refusal
from runtime.models.row_form import row_form
from runtime.models.rows.verdict import RowVerdict
from runtime.tensors import Array, rows_of

_log = logging.getLogger("hedgerow.runtime.models")


@dataclass(frozen=True)
class Interface:
    """What goes in and what comes out. ``maps`` and ``no_tensors`` are names of outputs: lists of maps, anything but tensors."""

    inputs: list[TensorSpec]
    optional: list[TensorSpec]
    outputs: list[TensorSpec]
    axis_names: dict[str, list[str]]
    maps: set[str]
    no_tensors: set[str]


@dataclass(frozen=True)
class Engagement:
    """What runs it. ``run_entries`` are onnxruntime's options of every run; ``files`` are all that was opened."""

    provider: str
    refusals: list[Refusal]
    files: tuple[Path, ...]
    run_entries: list[tuple[str, str]]


class LoadedModel(ABC):
    """A model that is safe to run from several threads.

    ``inputs`` are those that a request must bring; ``optional`` have a value in the model itself, which a request may replace.
    ``specs`` has both by name. ``example`` is an input that the model was seen to take, ``example_outputs`` what it answered
    (warm_up.py); ``properties`` are what its maker wrote into the file, ``parameters`` what metadata says besides.
    """

    def __init__(self, name: str, version: str, threads: int, interface: Interface, engagement: Engagement) -> None:
        self.name, self.version, self.threads = name, version, threads
        self.inputs, self.optional, self.outputs = interface.inputs, interface.optional, interface.outputs
        self.axis_names, self.maps, self.no_tensors = interface.axis_names, interface.maps, interface.no_tensors
        self.provider, self.refusals = engagement.provider, engagement.refusals
        self.files, self.run_entries = engagement.files, engagement.run_entries
        self.properties: dict[str, str] = {}
        self.parameters: dict[str, str] = {}
        self.specs = {spec.name: spec for spec in (*self.inputs, *self.optional)}
        # Whether a number may be missing (NaN) wherever one is wanted.
        self.all_floats = all(spec.datatype.startswith("FP") for spec in self.specs.values())
        self.row_form = row_form(self.inputs)
        self.example: dict[str, Array] | None = None
        self.example_outputs: dict[str, object] | None = None
        self._input_names = {spec.name for spec in self.inputs}
        self.output_names = [spec.name for spec in self.outputs]

    @property
    @abstractmethod
    def facts(self) -> OnnxFacts:
        """What its files say about themselves, together."""

    @abstractmethod
    def row_verdict(self) -> RowVerdict:
        """What its graphs do with rows. Never raises."""

    @abstractmethod
    def shrink(self) -> None:
        """Run the example once more, and let go of what larger runs have left in the arena, which never shrinks by itself."""

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None, options: Any) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        """Outputs by name. Raises BadBody, ModelFailed."""

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None, options: Any = None) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        """Outputs by name. Raises BadBody (onnxruntime refuses the input) or ModelFailed (it failed inside)."""
        try:
            return self._run(feeds, wanted, options)
        except ModelFailed as problem:
            _log.error("model %s failed: %s", problem.fields["model"], problem.__cause__)
            raise ModelFailed(model=self.name) from None

    def attempt(self, feeds: Mapping[str, Array]) -> dict[str, object]:
        """The same for inputs that nobody sent: that they do not suit the model is no failure to be logged."""
        return self._run(feeds, None, None)

    def rows(self, feeds: Mapping[str, Array]) -> int:
        """How many rows a request counts as: the leading length of the first input."""
        return rows_of(feeds[self.inputs[0].name]) if self.inputs else 1

    def check_names(self, given: Collection[str], wanted: Sequence[str] | None = None) -> None:
        """Raises BadTensorNames unless ``given`` names each required input once, none unknown, and ``wanted`` only outputs."""
        if not wanted and isinstance(given, dict) and given.keys() == self._input_names:
            return
        names = set(given)
        if len(names) != len(given):
            raise BadTensorNames(problem="An input is named twice", kind="inputs", known=", ".join(map(repr, names)))
        for problem, found in (
            ("There is no input named", sorted(names - self.specs.keys())),
            ("A value is not provided for the input", sorted(self._input_names - names)),
        ):
            if found:
                known = ", ".join(map(repr, self.specs)) or "none"
                raise BadTensorNames(problem=f"{problem} {found[0]!r}", kind="inputs", known=known)
        unknown = [name for name in wanted or [] if name not in self.output_names]
        if unknown:
            known = ", ".join(map(repr, self.output_names))
            raise BadTensorNames(problem=f"There is no output named {unknown[0]!r}", kind="outputs", known=known)
