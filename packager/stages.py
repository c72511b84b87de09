"""Plans an image of kind fpga: models become stages in order, joined output by output. Opens no file, runs nothing.

    pre (CPU)  →  accelerated (the board, else the CPU)  →  post (CPU)

Pre and post may be absent. The accelerated one must be quantised to 8-bit integers in the form that compilers for boards take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from hedgerow.contracts.build import BuildModel
from hedgerow.contracts.image import Stage, StageName
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.proof import ParityIndex
from packager.errors import StageNotQuantized, StagesDoNotFit, StagesWrong
from packager.recipe import PARITY_FILES, ModelFacts, onnx_entry

ORDER: tuple[StageName, ...] = get_args(StageName)
# Vitis AI takes what of a graph it can onto the board; the rest, and all of it where there is no board, is the CPU's.
PROVIDERS: Mapping[StageName, tuple[str, ...]] = {"pre": ("cpu",), "accelerated": ("vitisai", "cpu"), "post": ("cpu",)}


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What `python -m runtime.prove --describe` tells of an ONNX file (the part that is asked for here)."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    compute: int = 0
    not_quantized: list[str] = []


@dataclass(frozen=True)
class StageFacts:
    """A stage with what was read of it; ``parity`` is the index of its recorded vectors, if it has some."""

    model: ModelFacts
    described: Described
    parity: ParityIndex | None = None

    @property
    def name(self) -> StageName:
        return self.model.model.stage or "accelerated"


@dataclass(frozen=True)
class Staging:
    """``proof`` is the model whose recorded vectors are those of all stages together."""

    stages: list[Stage]
    proof: ModelFacts | None


def check_stages(models: Sequence[BuildModel]) -> None:
    """Raises StagesWrong unless each model is a stage of its own and one of them is the accelerated one."""
    names = [model.stage for model in models]
    for model in models:
        title = f"{model.ref.name}:{model.ref.version}"
        if model.stage is None:
            raise StagesWrong(problem=f"model {title} has no stage")
        if names.count(model.stage) > 1:
            raise StagesWrong(problem=f"there are several models for stage {model.stage}")
    if "accelerated" not in names:
        raise StagesWrong(problem="there is no model for stage accelerated")


def plan_stages(found: Sequence[StageFacts]) -> Staging:
    """The stages in order, each joined to the one before.

    Raises StageNotQuantized, StagesDoNotFit, NoOnnxFile, SeveralOnnxFiles.
    """
    ordered = sorted(found, key=lambda stage: ORDER.index(stage.name))
    for stage in ordered:
        if stage.name == "accelerated":
            _check_quantized(stage)
    before: StageFacts | None = None
    stages = []
    for stage in ordered:
        stages.append(_planned(stage, _joined(before, stage) if before is not None else {}))
        before = stage
    return Staging(stages, whole_proof(ordered))


def whole_proof(ordered: Sequence[StageFacts]) -> ModelFacts | None:
    """The first model whose recorded vectors go in at the first stage and come out of the last.

    With several stages those that are a stage's own are not taken for it: names alone would not tell ``input`` from ``input``.
    """
    first, last = ordered[0].described, ordered[-1].described
    inputs, outputs = {spec.name for spec in first.inputs}, {spec.name for spec in last.outputs}
    for stage in ordered:
        index = stage.parity
        if index is None or not (inputs == {*index.inputs} and outputs.issuperset(index.outputs)):
            continue
        own = stage.described
        is_own = {spec.name for spec in own.inputs} == {*index.inputs} and {spec.name for spec in own.outputs} >= {*index.outputs}
        if len(ordered) == 1 or not is_own:
            return stage.model
    return None


def in_order(models: Iterable[BuildModel]) -> list[BuildModel]:
    """By stage; models without one by name and version: in what order they were asked for changes nothing."""
    return sorted(models, key=lambda one: (ORDER.index(one.stage) if one.stage else 0, one.ref.name, one.ref.version))


def seen_as(models: Sequence[ModelFacts], proof: ModelFacts | None) -> tuple[ModelFacts, ...]:
    """The one model that stages are for whoever calls the image: the accelerated one's name, and vectors of all or none."""
    (accelerated,) = (facts for facts in models if facts.model.stage == "accelerated")
    ref = accelerated.model.ref
    if proof is not None:
        return (ModelFacts(msgspec.structs.replace(proof.model, ref=ref), proof.files),)
    files = tuple(file for file in accelerated.files if file.path not in PARITY_FILES)
    return (ModelFacts(msgspec.structs.replace(accelerated.model, inputs=[], outputs=[]), files),)


def _check_quantized(stage: StageFacts) -> None:
    described, title = stage.described, stage.model.title
    if not described.compute:
        raise StageNotQuantized(model=title, problem="it has no convolution and no matrix product")
    if plain := described.not_quantized:
        shown = ", ".join(plain[:5]) + (", …" if len(plain) > 5 else "")
        problem = f"{len(plain)} of its {described.compute} convolutions and matrix products do not compute in 8-bit integers"
        raise StageNotQuantized(model=title, problem=f"{problem} ({shown})")


def _planned(stage: StageFacts, feeds: dict[str, str]) -> Stage:
    ref = stage.model.model.ref
    return Stage(
        name=stage.name,
        model=ref.name,
        version=ref.version,
        entry=f"{stage.model.folder_in_image}/{onnx_entry(stage.model)}",
        providers=list(PROVIDERS[stage.name]),
        feeds=feeds,
    )


def _joined(before: StageFacts, stage: StageFacts) -> dict[str, str]:
    """For each input the output that goes in: that of its name, else the next that is left over. Raises StagesDoNotFit."""
    offered = {spec.name: spec for spec in before.described.outputs}
    wanted = stage.described.inputs
    if not wanted:
        raise _misfit(before, stage, "it takes nothing")
    spare = [spec for spec in before.described.outputs if spec.name not in {one.name for one in wanted}]
    feeds: dict[str, str] = {}
    for spec in wanted:
        source = offered.get(spec.name) or (spare.pop(0) if spare else None)
        if source is None:
            raise _misfit(before, stage, f"nothing is left for its input {_words(spec)}")
        if not _fits(source, spec):
            raise _misfit(before, stage, f"its input {_words(spec)} does not take the output {_words(source)}")
        feeds[spec.name] = source.name
    return feeds


def _fits(source: TensorSpec, target: TensorSpec) -> bool:
    """The same type, as many axes, and each length the same or free on either side."""
    if source.datatype != target.datatype or len(source.shape) != len(target.shape):
        return False
    return all(-1 in lengths or lengths[0] == lengths[1] for lengths in zip(source.shape, target.shape, strict=True))


def _misfit(before: StageFacts, stage: StageFacts, problem: str) -> StagesDoNotFit:
    return StagesDoNotFit(
        before=f"{before.name} ({before.model.title})", stage=f"{stage.name} ({stage.model.title})", problem=problem
    )


def _words(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype}[{','.join('?' if length < 0 else str(length) for length in spec.shape)}]"
