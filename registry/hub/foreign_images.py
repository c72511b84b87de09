"""Tags of somebody else's registry become digests when a manifest comes: a device never follows a tag.

Asked over the network, through the egress policy, before any transaction. A registry that cannot be asked now costs nothing if
this very tag has been resolved for the same deployment before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import msgspec

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.foreign_image import is_foreign, written_out
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.egress import EgressRefused
from hedgerow.errors import HedgerowError, UnavailableError
from registry.hub.errors import ForeignImageUnresolved

Resolve = Callable[[RemoteImage], str]
# Somebody waits for the answer; a registry that does not answer holds up its own images only.
AT_ONCE = 8
DEADLINE_S = 45.0


def resolve_foreign(
    manifest: EdgeDeployment, before: EdgeDeployment | None, resolve: Resolve, *, deadline_s: float = DEADLINE_S
) -> EdgeDeployment:
    """``manifest`` with a digest in each reference to a foreign image. ``resolve`` gives the digest of an image's tag, and is
    called by several threads at once. After ``deadline_s`` nothing is waited for any more.

    Raises ForeignImageUnresolved (which names every one that failed), RemoteReferenceInvalid.
    """
    wanted = {
        spec.image: RemoteImage.parse(spec.image)
        for spec in manifest.modules.values()
        if spec.image is not None and spec.kind == "docker" and is_foreign(spec.image)
    }
    if not wanted:
        return manifest
    found = _all_pinned(wanted, _known(before), resolve, deadline_s)
    modules = {
        name: msgspec.structs.replace(spec, image=found[spec.image]) if spec.image in found and spec.kind == "docker" else spec
        for name, spec in manifest.modules.items()
    }
    return msgspec.structs.replace(manifest, modules=modules)


def with_own_names(manifest: EdgeDeployment, own_host: str) -> EdgeDeployment:
    """``manifest`` with `HOST/NAME:V` of this very registry as what it is here, `NAME:V`. Raises RemoteReferenceInvalid."""
    modules = {name: _with_own_name(spec, own_host.lower()) for name, spec in manifest.modules.items()}
    return msgspec.structs.replace(manifest, modules=modules)


def _with_own_name(spec: ModuleSpec, own_host: str) -> ModuleSpec:
    if spec.image is not None:
        spec = msgspec.structs.replace(spec, image=_own_name(spec.image, own_host))
    if spec.shadow is not None:
        shadow = msgspec.structs.replace(spec.shadow, image=_own_name(spec.shadow.image, own_host))
        spec = msgspec.structs.replace(spec, shadow=shadow)
    return spec


def _own_name(reference: str, own_host: str) -> str:
    if not is_foreign(reference):
        return reference
    image = RemoteImage.parse(reference)
    if image.host != own_host or "/" in image.repository:
        return reference
    which = f"@{image.digest}" if image.digest else "" if image.tag == "latest" else f":{image.tag}"
    return f"{image.repository}{which}"


def _known(before: EdgeDeployment | None) -> Mapping[str, str]:
    """References with a digest by what they are without it."""
    pinned = [spec.image for spec in before.modules.values() if spec.image and is_foreign(spec.image)] if before else []
    return {reference.partition("@")[0]: reference for reference in pinned if "@" in reference}


def _all_pinned(
    wanted: Mapping[str, RemoteImage], known: Mapping[str, str], resolve: Resolve, deadline_s: float
) -> dict[str, str]:
    pool = ThreadPoolExecutor(min(AT_ONCE, len(wanted)), thread_name_prefix="foreign-images")
    try:
        asked = {text: pool.submit(_pinned, image, known, resolve) for text, image in wanted.items()}
        done, _ = wait(asked.values(), timeout=deadline_s)
    finally:
        # Whoever is still being asked ends by its own time-outs, and nobody listens any more.
        pool.shutdown(wait=False, cancel_futures=True)
    found: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for text, future in asked.items():
        plain = written_out(wanted[text])
        try:
            found[text] = future.result() if future in done else _late(plain, known, deadline_s)
        except ForeignImageUnresolved as problem:
            problems.append((plain, str(problem.fields["problem"])))
    if problems:
        said = problems[0][1] if len(problems) == 1 else "; ".join(f"{image}: {problem}" for image, problem in problems)
        raise ForeignImageUnresolved(image=", ".join(image for image, _ in problems), problem=said)
    return found


def _late(image: str, known: Mapping[str, str], deadline_s: float) -> str:
    if image in known:
        return known[image]
    raise ForeignImageUnresolved(image=image, problem=f"its registry did not answer within {deadline_s:g} s")


def _pinned(image: RemoteImage, known: Mapping[str, str], resolve: Resolve) -> str:
    text = written_out(image)
    if image.digest is not None:
        return text
    try:
        return f"{text}@{resolve(image)}"
    except UnavailableError as problem:
        if text in known:
            return known[text]
        raise ForeignImageUnresolved(image=text, problem=problem) from problem
    except EgressRefused as problem:
        raise ForeignImageUnresolved(image=text, problem=problem) from problem
    except HedgerowError as problem:
        raise ForeignImageUnresolved(image=text, problem=problem.sentence()) from problem
