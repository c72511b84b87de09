"""What a model of a repository asks for in its ``config.pbtxt``, as far as it means something here. Pure.

    max_batch_size            rows that may share a run; 0: requests are never merged
    instance_group { count }  runs at the same time
    version_policy            which of its versions are served: latest (of the newest n), all, specific
    default_model_filename    the file in each version's folder

Inputs and outputs are read from the ONNX file itself. ``dynamic_batching`` needs no word: what waits while a model is busy is
merged wherever that pays, and nothing ever waits for a batch to fill. Anything else is ignored, and named in the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.models.errors import ModelConfigUnusable
from runtime.models.pbtxt import Message, parse_pbtxt

MODEL_FILE = "model.onnx"
_READ = {
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "instance_group",
    "version_policy",
    "default_model_filename",
    "input",
    "output",
    "dynamic_batching",
}
_ONNX = {"", "onnxruntime_onnx", "onnx", "onnxruntime"}
_MOST_INSTANCES = 256


@dataclass(frozen=True)
class VersionPolicy:
    """``latest``: the newest ``count``. ``specific``: those in ``versions``."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    def choose(self, there: Sequence[int]) -> list[int]:
        """The versions to serve of those that are there, oldest first."""
        if self.kind == "all":
            return sorted(there)
        if self.kind == "specific":
            return sorted(set(there) & set(self.versions))
        return sorted(there)[-self.count :]


@dataclass(frozen=True)
class ModelConfig:
    """A model's own wishes. ``most_rows`` and ``instances`` None: found out by trying the model."""

    most_rows: int | None = None
    instances: int | None = None
    policy: VersionPolicy = VersionPolicy()
    file: str = MODEL_FILE
    ignored: tuple[str, ...] = ()


def config_from_pbtxt(model: str, text: str) -> ModelConfig:
    """Raises ModelConfigUnusable."""
    try:
        return _config(model, parse_pbtxt(text))
    except ValueError as problem:
        raise ModelConfigUnusable(model=model, problem=problem) from None


def config_from_json(model: str, text: str) -> ModelConfig:
    """The same from the JSON that a load request may bring. Raises ModelConfigUnusable."""
    try:
        document = _as_message(json.loads(text))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        return _config(model, document)
    except (ValueError, RecursionError) as problem:
        raise ModelConfigUnusable(model=model, problem=problem) from None


def _config(model: str, document: Message) -> ModelConfig:
    platform = [str(value) for name in ("platform", "backend") for value in document.get(name, [])]
    if not set(platform) <= _ONNX:
        raise ValueError(f"platform {platform[0]!r} is not ONNX")
    name = document.get("name", [model])[-1]
    if name not in ("", model):
        raise ValueError(f"it is for a model named {name!r}")
    batch = document.get("max_batch_size")
    return ModelConfig(
        most_rows=_whole("max_batch_size", batch[-1], 0, 2**31) if batch else None,
        instances=_instances(document.get("instance_group", [])),
        policy=_policy(document.get("version_policy", [])),
        file=_file(document.get("default_model_filename", [])),
        ignored=tuple(sorted(document.keys() - _READ)),
    )


def _instances(groups: Sequence[object]) -> int | None:
    """All groups together; where the processor's cores count, a GPU's do not."""
    counts = [_whole("instance_group.count", value, 1, _MOST_INSTANCES) for group in groups for value in _field(group, "count")]
    return min(sum(counts), _MOST_INSTANCES) if counts else None


def _policy(policies: Sequence[object]) -> VersionPolicy:
    if not policies:
        return VersionPolicy()
    policy = policies[-1]
    if _field(policy, "all"):
        return VersionPolicy("all")
    if specific := _field(policy, "specific"):
        versions = [_whole("version_policy.specific", value, 1, 2**63) for value in _field(specific[-1], "versions")]
        return VersionPolicy("specific", versions=tuple(versions))
    counts = [value for latest in _field(policy, "latest") for value in _field(latest, "num_versions")]
    return VersionPolicy("latest", _whole("version_policy.latest", counts[-1], 1, 2**31) if counts else 1)


def _file(names: Sequence[object]) -> str:
    name = str(names[-1]) if names and names[-1] else MODEL_FILE
    if not re.fullmatch(r"[^/\\\x00-\x1f]+", name) or name in (".", ".."):
        raise ValueError(f"default_model_filename {name!r} is no file name")
    return name


def _field(message: object, name: str) -> list[object]:
    if not isinstance(message, dict):
        raise ValueError(f"a message with {name!r} is expected where {message!r} stands")
    return list(message.get(name, []))


def _whole(name: str, value: object, low: int, high: int) -> int:
    # 64-bit numbers are text in protobuf's JSON.
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ValueError(f"{name} cannot be {value!r}")
    return number


def _as_message(value: object) -> object:
    """JSON in the shape of :func:`parse_pbtxt`: lists everywhere, names with underscores."""
    if isinstance(value, dict):
        return {_snake(name): _as_list(inner) for name, inner in value.items()}
    return value


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return [_as_message(item) for item in value] if isinstance(value, list) else [_as_message(value)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)
