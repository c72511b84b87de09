"""A model version as an OCI artifact in the CNCF ModelPack media types (github.com/modelpack/model-spec). Pure: facts to bytes.

Each file is a layer of its own, just as it is: the layer's blob is the model's blob. The bytes depend on what never changes
(name, version, files, framework, commit) and on nothing else, so a version has one digest, on any day and any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.names import MEDIA_MODEL_CONFIG, MEDIA_MODEL_MANIFEST, MEDIA_OCI_MANIFEST
from registry.errors import PackTooLarge

# What registries and clients read as a manifest at most (the distribution specification's own advice).
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_FILEPATH = "org.cncf.model.filepath"
_METADATA = "org.cncf.model.file.metadata+json"
_UNTESTED = "org.cncf.model.file.mediatype.untested"
# ORAS names the files that it writes by this one.
_TITLE = "org.opencontainers.image.title"
_REGULAR_FILE, _MODE = ord("0"), 0o644
_EPOCH = "1970-01-01T00:00:00Z"

_KINDS = {
    "doc": (".md", ".rst", ".adoc", ".pdf", ".html", ".tex", ".png", ".jpg", ".jpeg", ".svg", ".gif"),
    "code": (".py", ".pyi", ".ipynb", ".sh", ".js", ".ts", ".r", ".jl", ".go", ".rs", ".c", ".h", ".cpp", ".java", ".lua"),
    "dataset": (".csv", ".tsv", ".parquet", ".arrow", ".feather", ".jsonl"),
    "weight.config": (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".txt", ".vocab", ".jinja", ".properties"),
}
_DOCUMENTS = ("readme", "license", "licence", "notice", "changelog", "authors", "model_card", "modelcard", "copying")
_CONFIGURATIONS = ("mlmodel", "dockerfile", "tokenizer.model")
_FORMATS = {"pytorch": "pt", "custom": ""}
_FORMATS_BY_FILE = {
    ".onnx": "onnx",
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".pt": "pt",
    ".pth": "pt",
    ".tflite": "tflite",
}


@dataclass(frozen=True)
class ModelPack:
    """The two documents of an artifact; its layers are the model's files."""

    manifest: bytes
    config: bytes

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def config_digest(self) -> str:
        return digest_of(self.config)


def pack(model: ModelManifest) -> ModelPack:
    """The artifact of a version. Raises PackTooLarge for a model of too many files."""
    files = sorted(model.files, key=lambda entry: entry.path)
    config = _encoded(_config(model, files))
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_OCI_MANIFEST,
            "artifactType": MEDIA_MODEL_MANIFEST,
            "config": {"mediaType": MEDIA_MODEL_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [_layer(entry) for entry in files],
        }
    )
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise PackTooLarge(name=f"{model.name}:{model.version}", count=len(files), limit_mib=MAX_MANIFEST_BYTES >> 20)
    return ModelPack(manifest, config)


def media_type_of(path: str) -> str:
    """The ModelPack media type of a file, told by its name."""
    return f"application/vnd.cncf.model.{_kind(path)}.v1.raw"


def _config(model: ModelManifest, files: list[FileEntry]) -> dict[str, Any]:
    descriptor = {"name": model.name, "version": str(model.version)}
    if model.source is not None:
        descriptor["revision"] = model.source.commit
    found = _format(model.framework, files)
    return {
        "descriptor": descriptor,
        "config": {"format": found} if found else {},
        # A raw layer is not compressed: its content hash is its digest.
        "modelfs": {"type": "layers", "diffIds": [entry.digest for entry in files]},
    }


def _layer(entry: FileEntry) -> dict[str, Any]:
    metadata = {
        "name": entry.path.rpartition("/")[2],
        "mode": _MODE,
        "uid": 0,
        "gid": 0,
        "size": entry.size_bytes,
        "mtime": _EPOCH,
        "typeflag": _REGULAR_FILE,
    }
    annotations = {
        _FILEPATH: entry.path,
        _METADATA: _encoded(metadata).decode(),
        _UNTESTED: "true",
        _TITLE: entry.path,
    }
    return {"mediaType": media_type_of(entry.path), "digest": entry.digest, "size": entry.size_bytes, "annotations": annotations}


def _kind(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    stem, _, _ = name.partition(".")
    if stem in _DOCUMENTS:
        return "doc"
    if name in _CONFIGURATIONS:
        return "weight.config"
    suffix = f".{name.rpartition('.')[2]}"
    return next((kind for kind, suffixes in _KINDS.items() if suffix in suffixes), "weight")


def _format(framework: str, files: list[FileEntry]) -> str:
    if found := _FORMATS.get(framework, framework):
        return found
    for entry in files:
        if known := _FORMATS_BY_FILE.get(f".{entry.path.rpartition('.')[2].lower()}"):
            return known
    return ""


def _encoded(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document, order="sorted")
