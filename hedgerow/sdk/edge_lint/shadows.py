"""Traps of a module's shadow: what cannot have one, and rules that compare nothing."""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.edge import ModuleSpec
from hedgerow.contracts.edge_finding import Finding, error, note, warning
from hedgerow.contracts.foreign_image import is_foreign


def shadow_findings(name: str, spec: ModuleSpec) -> Iterator[Finding]:
    """What there is to say about the shadow of module ``name``; nothing for one without."""
    shadow = spec.shadow
    if shadow is None:
        return
    place = f"$.modules.{name}.shadow"
    if spec.kind != "process" or spec.image is None:
        text = "only a process module with an onnx image can have a shadow"
        yield error(place, text, "Take the shadow away, or deploy the model as an onnx image.")
    if is_foreign(shadow.image):
        text = "an image of another registry runs as a container, and cannot be a shadow"
        yield error(f"{place}.image", text, "Name an onnx image of this workspace.")
    elif shadow.image == spec.image:
        yield warning(f"{place}.image", "it is the module's own image: all answers will be the same", "Name the new one.")
    if shadow.rtol == 0 and shadow.atol == 0:
        text = "without any tolerance the same model differs from itself in the last bit on another processor"
        yield note(f"{place}.atol", text)
    if spec.limits.memory_bytes is None:
        yield note(place, "the device holds both models in memory; the shadow may take as much as the module")
