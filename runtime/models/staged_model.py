"""Several ONNX models one after the other, as one model: pre, accelerated, post (images of kind fpga).

Each stage has its own session and its own providers. Where the board of the accelerated one is missing, its CPU provider runs
it, and that is told: in the log when it is loaded, in the model's metadata and in its proof.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import BadBody
from runtime.models.loaded_model import Engagement, Interface, LoadedModel
from runtime.models.onnx_file import OnnxFacts
from runtime.models.onnx_model import OnnxModel, shrinking_options
from runtime.models.providers import Engine, Refusal, Wish, short_name
from runtime.models.rows.verdict import RowVerdict
from runtime.serving_plan import PlannedModel, PlannedStage
from runtime.tensors import Array

_log = logging.getLogger("hedgerow.runtime.models")
ACCELERATED = "accelerated"


def open_model(planned: PlannedModel, *, threads: int = 1, engine: Engine | None = None) -> LoadedModel:
    """The model of a plan in memory, of one file or of stages. Raises as OnnxModel does."""
    if planned.stages:
        return StagedModel(planned.name, planned.stages, version=planned.version, threads=threads, engine=engine or Engine())
    return OnnxModel(planned.name, planned.file, version=planned.version, threads=threads, engine=engine)


class StagedModel(LoadedModel):
    """Inputs are those of the first stage, outputs those of the last. Raises as OnnxModel does, for the first that cannot be."""

    def __init__(self, name: str, planned: Sequence[PlannedStage], *, version: str, threads: int, engine: Engine) -> None:
        self._stages = [_open(name, stage, version, threads, engine) for stage in planned]
        self._feeds = [stage.feeds for stage in planned]
        first, last = self._stages[0], self._stages[-1]
        interface = Interface(first.inputs, first.optional, last.outputs, first.axis_names, last.maps, last.no_tensors)
        super().__init__(name, version, threads, interface, _engagement(planned, self._stages))
        self._has_arena = engine.arena != "off"
        self._facts = _facts([stage.facts for stage in self._stages])
        runs_on = [f"{one.name} on {short_name(model.provider)}" for one, model in zip(planned, self._stages, strict=True)]
        self.parameters = {"stages": ", ".join(runs_on)}
        if self.refusals:
            self.parameters["accelerator"] = f"none, {'; '.join(map(str, self.refusals))}"
            _log.warning("model %s runs without its accelerator: %s", name, "; ".join(map(str, self.refusals)))
        _log.info("model %s runs in stages: %s", name, self.parameters["stages"])

    @property
    def facts(self) -> OnnxFacts:
        return self._facts

    def row_verdict(self) -> RowVerdict:
        """Rows that no stage mixes are not mixed by all together."""
        verdicts = [stage.row_verdict() for stage in self._stages]
        ranked = sorted(verdicts, key=lambda verdict: ("mixes", "unknown", "proven").index(verdict.state))
        return ranked[0]

    def shrink(self) -> None:
        if self.example is not None and self._has_arena:
            self._run(self.example, None, shrinking_options())

    def _run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None, options: Any) -> dict[str, object]:  # noqa: ANN401 - onnxruntime has no types
        values: Mapping[str, Any] = feeds
        for stage, sources in zip(self._stages[:-1], self._feeds[:-1], strict=True):
            values = self._run_stage(stage, sources, values, None, options)
        return self._run_stage(self._stages[-1], self._feeds[-1], values, wanted, options)

    def _run_stage(
        self,
        stage: OnnxModel,
        sources: Mapping[str, str],
        values: Mapping[str, Any],
        wanted: Sequence[str] | None,
        options: Any,  # noqa: ANN401 - onnxruntime has no types
    ) -> dict[str, object]:
        taken = {name: values[source] for name, source in sources.items()} if sources else values
        try:
            # As `run` of the stage, but its failure is told once, by the model.
            return stage.forward(taken, wanted, options)
        except BadBody as problem:
            said = f"stage {stage.name.rpartition('/')[2]} refused it: {problem.fields['problem']}"
            raise BadBody(problem=said, hint=f"See the inputs of model {self.name}.") from None


def _open(name: str, stage: PlannedStage, version: str, threads: int, engine: Engine) -> OnnxModel:
    known = {wish.provider: wish for wish in engine.providers}
    # What a machine needs to reach its board (a configuration file) is the machine's to say, not the image's.
    wishes = tuple(Wish(wish.provider, {**wish.options, **_options(known.get(wish.provider))}) for wish in stage.providers)
    own = replace(engine, providers=wishes)
    return OnnxModel(f"{name}/{stage.name}", stage.file, version=version, threads=threads, engine=own, tell=False)


def _options(wish: Wish | None) -> Mapping[str, str]:
    return wish.options if wish is not None else {}


def _engagement(planned: Sequence[PlannedStage], stages: Sequence[OnnxModel]) -> Engagement:
    """The provider is the accelerated stage's: that is what one asks about."""
    refusals = [
        Refusal(refusal.provider, f"stage {one.name}: {refusal.reason}")
        for one, model in zip(planned, stages, strict=True)
        for refusal in model.refusals
    ]
    accelerated = next((model for one, model in zip(planned, stages, strict=True) if one.name == ACCELERATED), stages[-1])
    files: tuple[Path, ...] = tuple(stage.file for stage in stages)
    return Engagement(accelerated.provider, refusals, files, accelerated.run_entries)


def _facts(each: Sequence[OnnxFacts]) -> OnnxFacts:
    """Of all stages together: what one of them has, the model has."""
    opsets: dict[str, int] = {}
    for facts in each:
        for domain, opset in facts.opsets.items():
            opsets[domain] = max(opset, opsets.get(domain, 0))
    operators: frozenset[str] | None = frozenset()
    for facts in each:
        operators = None if operators is None or facts.operators is None else operators | facts.operators
    return OnnxFacts(max(facts.ir_version for facts in each), opsets, operators=operators)
