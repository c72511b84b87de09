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
from functools import cache
from pathlib import Path
from typing import Any

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody, BadTensorNames
from runtime.models.errors import (
    ModelFailed,
    ModelInputUnsupported,
    ModelNeedsLocale,
    ModelNeedsOperators,
    ModelOutputUnsupported,
    ModelTooNew,
    ModelUnusable,
    ProvidersMissing,
)
from runtime.models.onnx_file import check_safe, read_facts
from runtime.models.providers import CPU, Arena, Engine, Refusal, Wish, short_name, worth_a_try
from runtime.models.row_form import row_form
from runtime.tensors import ORT_DATATYPES, Array, rows_of

_log = logging.getLogger("hedgerow.runtime.models")
_TENSOR = re.compile(r"^tensor\((\w+)\)$")
_MAPS = re.compile(r"^seq\(map\(\w+,tensor\((\w+)\)\)\)$")
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])")
_TOO_NEW = re.compile(r"Unsupported model IR version|Current official support for domain|is under development")
_NO_LOCALE = re.compile(r"Failed to construct locale with name:([\w.@-]+?):")
# OrtArenaCfg's words; 1 is kSameAsRequested.
_EXACT_ARENA = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
_SHRINK_ARENA = ("memory.enable_memory_arena_shrinkage", "cpu:0")


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
        for key, value in model.run_entries:
            self._options.add_run_config_entry(key, value)

    def call(self) -> dict[str, object]:
        return self._model.run(self._feeds, self._wanted, self._options)

    def cancel(self) -> None:
        """Ends the run at the next operator; a single long operator runs to its end."""
        self._options.terminate = True


class OnnxModel:
    """A model in an onnxruntime session, safe to run from several threads.

    ``inputs`` are those that a request must bring; ``optional`` have a value in the model itself, which a request may replace.
    ``specs`` has both by name. ``example`` is an input that the model was seen to take, ``example_outputs`` what it answered
    (warm_up.py); ``properties`` are what its maker wrote into the file.
    Raises ModelUnusable, ModelUnsafe, ModelTooNew, ModelNeedsOperators, ModelNeedsLocale, ModelInputUnsupported,
    ModelOutputUnsupported or ProvidersMissing.
    """

    def __init__(self, name: str, file: Path, *, version: str = "1", threads: int = 1, engine: Engine | None = None) -> None:
        self.name, self.file, self.version, self.threads = name, file, version, threads
        self.facts = read_facts(file, name)
        check_safe(self.facts, file, name)
        engine = engine or Engine()
        self._session, self.refusals = _open(name, file, threads, engine)
        self.provider: str = self._session.get_providers()[0]
        self.run_entries: list[tuple[str, str]] = [_SHRINK_ARENA] if engine.arena == "shrink" else []
        self._has_arena = engine.arena != "off"
        self.inputs = [_input_spec(name, value) for value in self._session.get_inputs()]
        self.optional = [_input_spec(name, value) for value in self._session.get_overridable_initializers()]
        self.outputs = [_output_spec(name, value) for value in self._session.get_outputs()]
        self.axis_names = {value.name: _axis_names(value.shape) for value in self._session.get_inputs()}
        self.properties: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        # Outputs that are no tensors: lists of maps, and anything else.
        self.maps = {value.name for value in self._session.get_outputs() if _MAPS.match(value.type)}
        self.no_tensors = {value.name for value in self._session.get_outputs() if not _TENSOR.match(value.type)}
        self.specs = {spec.name: spec for spec in (*self.inputs, *self.optional)}
        # Whether a number may be missing (NaN) wherever one is wanted.
        self.all_floats = all(spec.datatype.startswith("FP") for spec in self.specs.values())
        self.row_form = row_form(self.inputs)
        self.example: dict[str, Array] | None = None
        self.example_outputs: dict[str, object] | None = None
        self._input_names = {spec.name for spec in self.inputs}
        self.output_names = [spec.name for spec in self.outputs]
        for refusal in self.refusals:
            _log.warning("model %s: %s", name, refusal)
        _log.info("model %s runs on %s", name, short_name(self.provider))

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None, options: Any = None) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        """Outputs by name. Raises BadBody (onnxruntime refuses the input) or ModelFailed (it failed inside)."""
        try:
            return self._run(feeds, wanted, options)
        except ModelFailed as problem:
            _log.error("model %s failed: %s", self.name, problem.__cause__)
            raise ModelFailed(model=self.name) from None

    def attempt(self, feeds: Mapping[str, Array]) -> dict[str, object]:
        """The same for inputs that nobody sent: that they do not suit the model is no failure to be logged."""
        return self._run(feeds, None, None)

    def shrink(self) -> None:
        """Run the example once more, and let go of what larger runs have left in the arena, which never shrinks by itself."""
        if self.example is None or not self._has_arena:
            return
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry(*_SHRINK_ARENA)
        self._run(self.example, None, options)

    def _run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None, options: Any) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        names = list(wanted) if wanted else self.output_names
        try:
            values = self._session.run(names, dict(feeds), options)
        except UnicodeEncodeError:
            # JSON can escape half a character; a model's texts are UTF-8.
            raise BadBody(
                problem="a text holds a lone surrogate, which is no UTF-8", hint=f"See the inputs of model {self.name}."
            ) from None
        # onnxruntime raises one class per status, all straight from Exception; they are told apart by name.
        except Exception as problem:
            if type(problem).__name__ == "InvalidArgument":
                raise BadBody(problem=_first_sentence(problem), hint=f"See the inputs of model {self.name}.") from None
            raise ModelFailed(model=self.name) from problem
        return dict(zip(names, values, strict=True))

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


def _open(name: str, file: Path, threads: int, engine: Engine) -> tuple[Any, list[Refusal]]:
    """A session on the first provider that can be had, and why not those before it."""
    import onnxruntime

    wishes, refusals = worth_a_try(engine.providers, onnxruntime.get_available_providers())
    for wish in wishes:
        session = _session(name, file, _options(threads, engine.arena), wish, refusals)
        if session is not None:
            return session, refusals
    raise ProvidersMissing(model=name, problem="; ".join(map(str, refusals)))


def _session(name: str, file: Path, options: Any, wish: Wish, refusals: list[Refusal]) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """None when it is the provider that cannot be had; the reason is then in ``refusals``."""
    import onnxruntime

    wanted = [(wish.provider, dict(wish.options))] if wish.provider == CPU else [(wish.provider, dict(wish.options)), CPU]
    try:
        # Without its own fallback, which prints to stdout and hides what was taken.
        session = onnxruntime.InferenceSession(str(file), options, providers=wanted, enable_fallback=0)
    except Exception as problem:  # noqa: BLE001 - onnxruntime's classes have no base of their own
        reason = _first_sentence(problem)
        if "is not a registered function/op" in reason:
            raise ModelNeedsOperators(model=name, problem=reason) from None
        if locale := _NO_LOCALE.search(reason):
            raise ModelNeedsLocale(model=name, locale=locale[1]) from None
        if _TOO_NEW.search(reason):
            raise ModelTooNew(model=name, version=onnxruntime.__version__, problem=reason) from None
        if wish.provider == CPU:
            raise ModelUnusable(model=name, file=file, problem=reason) from None
        refusals.append(Refusal(wish.provider, f"it failed to load ({reason})"))
        return None
    if session.get_providers()[0] != wish.provider:
        refusals.append(Refusal(wish.provider, "it failed to load (its device or its libraries are not there)"))
        return None
    return session


def _options(threads: int, arena: Arena) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads of a pool that spin take the core from the next request's parsing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Failures of a run are raised and logged by us, once; onnxruntime would print them a second time.
    options.log_severity_level = 4
    if arena == "off":
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    elif arena == "exact":
        _register_exact_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@cache
def _register_exact_arena() -> None:
    """One for all sessions of the process; onnxruntime takes a second one for an error."""
    import onnxruntime

    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, use)
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(_EXACT_ARENA))


def _first_sentence(problem: Exception) -> str:
    text = _SOURCE_PLACE.sub("", _ORT_PREFIX.sub("", str(problem)))
    return " ".join(text.split())[:400]


def _input_spec(model: str, value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    match = _TENSOR.match(value.type)
    if match is None or match[1] not in ORT_DATATYPES:
        raise ModelInputUnsupported(model=model, tensor=value.name, type=value.type)
    return TensorSpec(name=value.name, datatype=ORT_DATATYPES[match[1]], shape=_shape(value.shape))


def _output_spec(model: str, value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    """Sequences of maps (sklearn's class probabilities) are told as rows x keys; anything else that is no tensor as BYTES."""
    if match := _TENSOR.match(value.type):
        if match[1] not in ORT_DATATYPES:
            raise ModelOutputUnsupported(model=model, tensor=value.name, type=value.type)
        return TensorSpec(name=value.name, datatype=ORT_DATATYPES[match[1]], shape=_shape(value.shape))
    if match := _MAPS.match(value.type):
        return TensorSpec(name=value.name, datatype=ORT_DATATYPES.get(match[1], "BYTES"), shape=[-1, -1])
    return TensorSpec(name=value.name, datatype="BYTES", shape=[-1])


def _shape(dimensions: Sequence[Any]) -> list[int]:
    """Fixed lengths stay; None, names, ``?`` and formulas all mean "any"."""
    return [length if isinstance(length, int) and length >= 0 else -1 for length in dimensions]


def _axis_names(dimensions: Sequence[Any]) -> list[str]:
    """The name of each axis; "" for those that have none or a fixed length."""
    return [length if isinstance(length, str) and length != "?" else "" for length in dimensions]
