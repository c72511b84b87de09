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
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadBody
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
from runtime.models.loaded_model import Engagement, Interface, LoadedModel
from runtime.models.onnx_file import OnnxFacts, check_safe, read_facts
from runtime.models.providers import CPU, Arena, Engine, Refusal, Wish, short_name, worth_a_try
from runtime.models.rows.verdict import RowVerdict, row_verdict
from runtime.models.uneven_inputs import unevenness
from runtime.tensors import ORT_DATATYPES, Array

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

    def __init__(self, model: LoadedModel, feeds: Mapping[str, Array], wanted: Sequence[str] | None) -> None:
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


class OnnxModel(LoadedModel):
    """A model in an onnxruntime session. With ``tell`` the log says what runs it, and why not what was preferred.

    Raises ModelUnusable, ModelUnsafe, ModelTooNew, ModelNeedsOperators, ModelNeedsLocale, ModelInputUnsupported,
    ModelOutputUnsupported or ProvidersMissing.
    """

    def __init__(
        self, name: str, file: Path, *, version: str = "1", threads: int = 1, engine: Engine | None = None, tell: bool = True
    ) -> None:
        self.file = file
        self._facts = read_facts(file, name)
        check_safe(self._facts, file, name)
        engine = engine or Engine()
        self._session, refusals = _open(name, file, threads, engine)
        entries = [_SHRINK_ARENA] if engine.arena == "shrink" else []
        engagement = Engagement(self._session.get_providers()[0], refusals, (file,), entries)
        super().__init__(name, version, threads, _interface(name, self._session), engagement)
        self._has_arena = engine.arena != "off"
        self.properties = dict(self._session.get_modelmeta().custom_metadata_map)
        if tell:
            for refusal in refusals:
                _log.warning("model %s: %s", name, refusal)
            _log.info("model %s runs on %s", name, short_name(self.provider))

    @property
    def facts(self) -> OnnxFacts:
        return self._facts

    def row_verdict(self) -> RowVerdict:
        return row_verdict(self.file)

    def shrink(self) -> None:
        if self.example is not None and self._has_arena:
            self._run(self.example, None, shrinking_options())

    def _run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None, options: Any) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        return self.forward(feeds, wanted, options)

    def forward(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None, options: Any) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        """One run of the session, whose failure nobody has told the log of yet. Raises BadBody, ModelFailed."""
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
            if uneven := unevenness(feeds, self.axis_names):
                raise BadBody(
                    problem=uneven, hint=f"Send model {self.name} as many rows of one input as of the others."
                ) from None
            raise ModelFailed(model=self.name) from problem
        return dict(zip(names, values, strict=True))


def shrinking_options() -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Options of a run after which the arena is as small as what is in use."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(*_SHRINK_ARENA)
    return options


def _interface(name: str, session: Any) -> Interface:  # noqa: ANN401 - onnxruntime has no types
    outputs = session.get_outputs()
    return Interface(
        inputs=[_input_spec(name, value) for value in session.get_inputs()],
        optional=[_input_spec(name, value) for value in session.get_overridable_initializers()],
        outputs=[_output_spec(name, value) for value in outputs],
        axis_names={value.name: _axis_names(value.shape) for value in session.get_inputs()},
        maps={value.name for value in outputs if _MAPS.match(value.type)},
        no_tensors={value.name for value in outputs if not _TENSOR.match(value.type)},
    )


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
