"""What an image depends on, by name, and the one key that stands for all of it. Pure: facts in, text out.

Two builds with equal keys give the same bytes; so the key is looked up before anything is written. The names are for people
too: they stand in the BuildReport, and ``image explain`` says which of them changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from hedgerow.contracts.build import BuildRequest
from hedgerow.contracts.document import digest_of, encode
from hedgerow.contracts.image import ScoringConfig
from packager.oci.compress import compressor_name, layer_type
from packager.oci.tar_layer import TAR_GENERATION
from packager.recipe import SOURCE_FOLDER

# Raise it whenever the same inputs give another image.
_GENERATION = 2


@dataclass(frozen=True)
class PlatformFacts:
    """What carries the image on one platform, by digest. The layers of a base: one image id may come packed in several ways."""

    platform: str
    base_digest: str
    base_layers: tuple[str, ...]
    lock_digest: str


def build_inputs(
    request: BuildRequest,
    config: ScoringConfig,
    grounds: Iterable[PlatformFacts],
    *,
    tool_version: str,
    code_digest: str,
    script_digest: str | None,
) -> dict[str, str]:
    """Everything that decides the image's bytes, by name. ``code_digest`` is of our own code that goes into the image."""
    inputs = {
        "kind": request.kind,
        "hedgerow": f"{tool_version} {code_digest}" if request.kind == "docker" else tool_version,
        "tar": f"generation {TAR_GENERATION}",
        "scoring configuration": digest_of(encode(config)),
    }
    for model in request.models:
        inputs[f"model {model.ref.name}"] = f"{model.ref.version} {model.ref.digest}"
    if script_digest is not None:
        # Its path in the image: where it was on this machine is nobody's business.
        inputs[f"script {(config.script or '').removeprefix(f'{SOURCE_FOLDER}/')}"] = script_digest
    if request.kind == "docker":
        inputs["compression"] = compressor_name(layer_type(request.compression))
        inputs["Python"] = request.python_version
    for ground in grounds:
        inputs[f"base {ground.platform}"] = ground.base_digest
        inputs[f"base layers {ground.platform}"] = digest_of("\n".join(ground.base_layers).encode())
        inputs[f"lock {ground.platform}"] = ground.lock_digest
    return inputs


def plan_key(inputs: Mapping[str, str]) -> str:
    """``sha256:…`` over all inputs."""
    return digest_of(msgspec.json.encode([_GENERATION, inputs], order="sorted"))
