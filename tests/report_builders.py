"""Build reports made up from words, for the tests of what explains them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from hedgerow.contracts.build_report import BuildReport, LayerFile, LayerReport, PlatformReport
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP


def digest_of_words(*words: object) -> str:
    return "sha256:" + hashlib.sha256(repr(words).encode()).hexdigest()


def file_of(path: str, content: str, origin: str, size_bytes: int | None = None) -> LayerFile:
    size = len(content) if size_bytes is None else size_bytes
    return LayerFile(path=path, size_bytes=size, digest=digest_of_words(content), origin=origin)


def layer_of(
    purpose: str, *files: LayerFile, made_of: Mapping[str, str] | None = None, size_bytes: int = 100, salt: str = ""
) -> LayerReport:
    """A layer whose digest comes from its purpose, files and ``salt``."""
    facts = [(file.path, file.digest) for file in files]
    return LayerReport(
        purpose=purpose,
        digest=digest_of_words(purpose, facts, salt),
        diff_id=digest_of_words("plain", purpose, facts, salt),
        media_type=MEDIA_OCI_LAYER_GZIP,
        size_bytes=size_bytes,
        made_of=dict(made_of or {}),
        files=list(files),
    )


def wheel_layer(name: str, version: str, content: str = "", size_bytes: int = 100) -> LayerReport:
    """A wheel with its module and its metadata; ``content`` is the module's, the version by default."""
    site, origin = "opt/hedgerow-site", f"{name} {version}"
    return layer_of(
        f"wheel {name} {version}",
        file_of(f"{site}/{name}/__init__.py", content or version, origin),
        file_of(f"{site}/{name}/same.py", "as ever", origin),
        file_of(f"{site}/{name}-{version}.dist-info/METADATA", f"Version: {version}", origin),
        made_of={name: version},
        size_bytes=size_bytes,
    )


def small_wheels(versions: Mapping[str, str]) -> LayerReport:
    files = [file_of(f"opt/hedgerow-site/{name}.py", version, f"{name} {version}") for name, version in versions.items()]
    return layer_of(f"{len(versions)} small wheels", *files, made_of=versions, salt=repr(versions))


def model_layer(name: str, version: int, content: str, size_bytes: int = 100) -> LayerReport:
    folder, origin = f"opt/hedgerow/models/{name}/{version}", f"model {name}:{version}"
    return layer_of(
        f"model {name}:{version}",
        file_of(f"{folder}/model.onnx", content, origin),
        file_of(f"{folder}/labels.txt", "a b c", origin),
        made_of={f"model {name}": f"{version} {digest_of_words(content)}"},
        size_bytes=size_bytes,
    )


def report_of(
    *layers: LayerReport,
    platform: str = "linux/amd64",
    inputs: Mapping[str, str] | None = None,
    more: Sequence[PlatformReport] = (),
) -> BuildReport:
    """A report of one platform, and of those in ``more``."""
    return BuildReport(
        kind="docker",
        plan_key=digest_of_words(layers, inputs),
        tool_version="0.1.0",
        inputs=dict(inputs or {}),
        platforms=[platform_of(platform, *layers), *more],
    )


def platform_of(platform: str, *layers: LayerReport) -> PlatformReport:
    return PlatformReport(
        platform=platform, manifest=digest_of_words(platform, [layer.digest for layer in layers]), layers=list(layers)
    )
