"""What a test knows of its image: the request and the files that went in. Decides which input a script is tried with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hedgerow.contracts.build import BuildRequest
from packager.errors import VerificationFailed
from packager.recipe import ModelFacts, SourceFacts

# Beside the scoring script: a body as callers send it.
SAMPLE_FILE = "sample_input.json"
_SAMPLE_BYTES_MAX = 64 << 20
_SMALL_BYTES = 256 << 20


@dataclass(frozen=True)
class Sample:
    """A request body for a scoring script; ``origin`` says where it came from."""

    body: bytes
    origin: str


@dataclass(frozen=True)
class Subject:
    """With a script the recorded rows of its models are not compared: what a script takes is its own affair."""

    models: tuple[ModelFacts, ...]
    has_script: bool = False
    sample: Sample | None = None

    @property
    def is_small(self) -> bool:
        """Whether its models may be in memory twice."""
        return sum(file.size_bytes for facts in self.models for file in facts.files) < _SMALL_BYTES


def subject_of(request: BuildRequest, models: Iterable[ModelFacts], source: SourceFacts | None) -> Subject:
    """Raises VerificationFailed when a sample that was named cannot be read."""
    if source is None:
        return Subject(tuple(models))
    return Subject(tuple(models), has_script=True, sample=_sample(request, source))


def _sample(request: BuildRequest, source: SourceFacts) -> Sample | None:
    beside = PurePosixPath(source.script).with_name(SAMPLE_FILE).as_posix()
    for file in source.files:
        if file.path == beside:
            return Sample(_read(Path(file.source)), f"{beside} beside the script")
    for model in request.models:
        if model.sample_input is not None:
            return Sample(_read(Path(model.sample_input)), f"the sample input of model {model.ref.name}:{model.ref.version}")
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(_SAMPLE_BYTES_MAX + 1)
    except OSError as problem:
        raise VerificationFailed(problem=f"the sample input {path} cannot be read ({problem.strerror})") from problem
    if len(body) > _SAMPLE_BYTES_MAX:
        raise VerificationFailed(problem=f"the sample input {path} is larger than {_SAMPLE_BYTES_MAX} bytes")
    return body
