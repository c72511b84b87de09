"""MLflow model folders: what the file ``MLmodel`` at the top of a model says, and the environment that lies beside it.

Nothing is run or unpickled: the files are text. A folder without MLmodel is no MLflow model; one whose MLmodel cannot be
read is refused, because a model that is registered as something else than it is would surprise whoever serves it. What can
be read but has no place in a manifest (a column of dates) is left out, and a sentence in ``MlflowFacts.not_read`` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hedgerow.contracts.model import AskedEnvironment, FileEntry, MlflowFacts, TensorSpec
from registry.blobs import BlobStore
from registry.blobs.errors import BlobMissing, BlobUnknown
from registry.environment_files import check_python, read_conda, read_requirements
from registry.errors import EnvironmentRefused, MlmodelInvalid
from registry.mlflow_signature import SignatureInvalid, read_specs
from registry.safe_yaml import Node, YamlRefused, read_yaml

MLMODEL = "MLmodel"
_MOST_BYTES = 1024 * 1024
_LONGEST_FACT, _LONGEST_NAME = 500, 100
_MOST_FLAVORS, _MOST_FACTS, _MOST_NOTES = 50, 200, 50
_PYFUNC = "python_function"
# What serves the model best stands first: an ONNX file needs no Python of its own.
_FRAMEWORKS = (
    "onnx", "sklearn", "xgboost", "lightgbm", "catboost", "pytorch", "tensorflow", "keras", "transformers",
    "sentence_transformers", "spacy", "fastai", "paddle", "statsmodels", "prophet", "pmdarima", "h2o", "spark",
)  # fmt: skip
_VERSION_FACTS = {"xgboost": "xgb_version", "lightgbm": "lgb_version", "tensorflow": "keras_version", "spark": "pyspark_version"}
_FLAVOR = re.compile(r"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True)
class MlmodelReading:
    """What a model's manifest takes over. ``framework`` is the flavour's name, ``mlflow`` where there is only Python code."""

    framework: str
    framework_version: str | None
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    mlflow: MlflowFacts
    environment: AskedEnvironment | None


def read_mlmodel(files: Sequence[FileEntry], blobs: BlobStore) -> MlmodelReading | None:
    """None for a folder without ``MLmodel`` at its top. Reads at most 4 MiB of ``blobs``, so call it outside a transaction.

    Raises MlmodelInvalid, BlobMissing, BlobDamaged.
    """
    folder = _Folder({entry.path: entry for entry in files}, blobs)
    if MLMODEL not in folder.entries:
        return None
    return _Reading(folder).read()


@dataclass(frozen=True)
class _Folder:
    entries: Mapping[str, FileEntry]
    blobs: BlobStore

    def text(self, path: str) -> str | None:
        """The file as UTF-8; None when there is none. Raises ValueError with the reason when it cannot be text."""
        entry = self.entries.get(path)
        if entry is None:
            return None
        if entry.size_bytes > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        try:
            with self.blobs.open(entry.digest) as stream:
                data = stream.read(_MOST_BYTES + 1)
        except BlobUnknown:
            raise BlobMissing(path=path, digest=entry.digest) from None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise ValueError(f"it is not UTF-8 text (byte {problem.start})") from None


@dataclass
class _Reading:
    folder: _Folder
    notes: list[str] = field(default_factory=list)

    def read(self) -> MlmodelReading:
        top = self._top()
        flavors = self._flavors(top.get("flavors"))
        framework, version = _framework(flavors, _text(top.get("mlflow_version")))
        inputs, outputs = self._signature(top.get("signature"))
        environment = self._environment(flavors.get(_PYFUNC, {}))
        return MlmodelReading(
            framework=framework,
            framework_version=version,
            inputs=inputs,
            outputs=outputs,
            environment=environment,
            mlflow=MlflowFacts(
                flavors=flavors,
                run_id=_text(top.get("run_id")),
                model_uuid=_text(top.get("model_uuid")),
                mlflow_version=_text(top.get("mlflow_version")),
                not_read=self.notes[:_MOST_NOTES],
            ),
        )

    def _top(self) -> dict[str, Node]:
        try:
            root = read_yaml(self.folder.text(MLMODEL) or "")
        except YamlRefused as problem:
            raise MlmodelInvalid(problem=f"line {problem.line}: {problem.problem}") from None
        except ValueError as problem:
            raise MlmodelInvalid(problem=problem) from None
        if not isinstance(root.value, dict):
            raise MlmodelInvalid(problem="it is no list of names and values")
        return root.value

    def _flavors(self, node: Node | None) -> dict[str, dict[str, str]]:
        if node is None or not isinstance(node.value, dict) or not node.value:
            raise MlmodelInvalid(problem="it names no flavors")
        if len(node.value) > _MOST_FLAVORS:
            raise MlmodelInvalid(problem=f"line {node.line}: it names more than {_MOST_FLAVORS} flavors")
        flavors = {}
        for name, facts in node.value.items():
            if not _FLAVOR.fullmatch(name):
                raise MlmodelInvalid(problem=f"line {facts.line}: {name[:80]!r} is no flavor")
            if facts.value is not None and not isinstance(facts.value, dict):
                raise MlmodelInvalid(problem=f"line {facts.line}: the flavor {name} has no facts")
            flavors[name] = dict(list(_flat(facts).items())[:_MOST_FACTS])
        return flavors

    def _signature(self, node: Node | None) -> tuple[list[TensorSpec], list[TensorSpec]]:
        if node is None or node.value is None:
            return [], []
        if not isinstance(node.value, dict):
            raise MlmodelInvalid(problem=f"line {node.line}: its signature is no inputs and outputs")
        return self._specs(node.value, "input"), self._specs(node.value, "output")

    def _specs(self, signature: dict[str, Node], side: str) -> list[TensorSpec]:
        node = signature.get(f"{side}s")
        if node is None or node.value is None:
            return []
        try:
            if not isinstance(node.value, str):
                raise SignatureInvalid("it is no JSON text")
            specs, left_out = read_specs(node.value, side)
        except SignatureInvalid as problem:
            raise MlmodelInvalid(problem=f"line {node.line}: the signature's {side}s: {problem}") from None
        self.notes += left_out
        return specs

    def _environment(self, pyfunc: Mapping[str, str]) -> AskedEnvironment | None:
        """conda.yaml if it can be read, else requirements.txt; the Python version from whichever names one."""
        conda = pyfunc.get("env.conda") or pyfunc.get("env") or "conda.yaml"
        python = self._python_of(pyfunc.get("env.virtualenv") or "python_env.yaml")
        found = self._try(conda, self._conda) or self._try("requirements.txt", self._requirements)
        if found is None:
            return None
        return AskedEnvironment(
            python_version=found.python_version or python,
            requirements=found.requirements,
            conda_packages=found.conda_packages,
            channels=found.channels,
        )

    def _try(self, path: str, read: Callable[[str, str], AskedEnvironment]) -> AskedEnvironment | None:
        """The environment in ``path``; half an environment would be worse than none, so a doubt gives None and a note."""
        try:
            text = self.folder.text(path)
            return None if text is None else read(text, path)
        except (ValueError, EnvironmentRefused) as problem:
            self.notes.append(f"The environment in {path} is left out: {problem}.")
        return None

    def _conda(self, text: str, path: str) -> AskedEnvironment:
        file = read_conda(text, path)
        return AskedEnvironment(
            python_version=file.python_version,
            requirements=file.requirements,
            conda_packages=file.conda_packages,
            channels=file.channels,
        )

    def _requirements(self, text: str, path: str) -> AskedEnvironment:
        return AskedEnvironment(requirements=read_requirements(text.splitlines(), path))

    def _python_of(self, path: str) -> str | None:
        """The ``python:`` of MLflow's python_env.yaml."""
        try:
            root = read_yaml(self.folder.text(path) or "")
            version = _text(root.value.get("python")) if isinstance(root.value, dict) else None
            return None if version is None else check_python(version)
        except (ValueError, YamlRefused, EnvironmentRefused) as problem:
            self.notes.append(f"The Python version in {path} is left out: {problem}.")
            return None


def _framework(flavors: Mapping[str, Mapping[str, str]], mlflow_version: str | None) -> tuple[str, str | None]:
    others = [name for name in flavors if name != _PYFUNC]
    name = next((known for known in _FRAMEWORKS if known in flavors), others[0] if others else "mlflow")
    if name == "mlflow":
        return name, mlflow_version
    return name, flavors[name].get(_VERSION_FACTS.get(name, f"{name}_version"))


def _flat(node: Node, depth: int = 3) -> dict[str, str]:
    """Nested facts under dotted names, each one line of bounded text; what says nothing (null) is left out."""
    facts: dict[str, str] = {}
    for name, value in node.value.items() if isinstance(node.value, dict) else ():
        key = name[:_LONGEST_NAME]
        if isinstance(value.value, dict) and depth:
            facts |= {f"{key}.{inner}"[: 2 * _LONGEST_NAME]: text for inner, text in _flat(value, depth - 1).items()}
        elif isinstance(value.value, list):
            facts[key] = ", ".join(text for item in value.value if (text := _text(item)) is not None)[:_LONGEST_FACT]
        elif (text := _text(value)) is not None:
            facts[key] = text
    return facts


def _text(node: Node | None) -> str | None:
    found = node.value if node is not None else None
    return " ".join(found.split())[:_LONGEST_FACT] if isinstance(found, str) else None
