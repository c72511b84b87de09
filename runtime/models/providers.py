"""Which execution provider runs a model: a list of preference is read, and it is decided which are worth a try. Pure.

    cuda:device_id=1;gpu_mem_limit=2147483648,cpu      in words: CUDA with two options of its own; if that cannot be had, the CPU

A list without ``cpu`` means it: when none of the others can be had, the model is not loaded. (Single operators that a provider
does not know are always run on the CPU; that is onnxruntime's own rule.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from runtime.models.errors import ProvidersUnusable

Arena = Literal["on", "exact", "shrink", "off"]
CPU = "CPUExecutionProvider"
_SHORT = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "acl": "ACLExecutionProvider",
    "cann": "CANNExecutionProvider",
    "rknpu": "RknpuExecutionProvider",
}


@dataclass(frozen=True)
class Wish:
    """One provider, by onnxruntime's own name, and the options that it is given."""

    provider: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """How models are loaded. ``providers`` stand in order of preference; ``arena`` is what becomes of memory between runs."""

    providers: tuple[Wish, ...] = (Wish(CPU),)
    arena: Arena = "on"


@dataclass(frozen=True)
class Refusal:
    """A provider that was wished for and not taken."""

    provider: str
    reason: str

    def __str__(self) -> str:
        return f"{short_name(self.provider)}: {self.reason}"


def parse_providers(text: str) -> tuple[Wish, ...]:
    """The wishes in a setting's text. Raises ProvidersUnusable."""
    wishes = tuple(_wish(part.strip()) for part in text.split(",") if part.strip())
    if not wishes:
        raise ProvidersUnusable(problem="the list is empty")
    names = [wish.provider for wish in wishes]
    if len(set(names)) != len(names):
        raise ProvidersUnusable(problem=f"{text!r} names one twice")
    return wishes


def worth_a_try(wishes: Collection[Wish], built_in: Collection[str]) -> tuple[list[Wish], list[Refusal]]:
    """Those that this build of onnxruntime has, in order, and why not the others."""
    has = ", ".join(short_name(name) for name in built_in)
    missing = [
        Refusal(wish.provider, f"not in this build of onnxruntime, which has {has}")
        for wish in wishes
        if wish.provider not in built_in
    ]
    return [wish for wish in wishes if wish.provider in built_in], missing


def short_name(provider: str) -> str:
    """The name that a list of preference uses."""
    return next((short for short, name in _SHORT.items() if name == provider), provider)


def _wish(text: str) -> Wish:
    name, _, given = text.partition(":")
    provider = _SHORT.get(name.lower(), name)
    if not provider.endswith("ExecutionProvider"):
        raise ProvidersUnusable(problem=f"there is no provider {name!r}; there are {', '.join(_SHORT)}")
    options: dict[str, str] = {}
    for option in filter(None, given.split(";")):
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise ProvidersUnusable(problem=f"{option!r} of {name} is not NAME=VALUE")
        options[key.strip()] = value.strip()
    return Wish(provider, options)
