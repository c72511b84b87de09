"""ModelPack documents: their bytes are a promise (golden), made of nothing that can change."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from hedgerow.contracts.model import FileEntry, ModelManifest, SourceCommit
from registry.errors import PackTooLarge
from registry.model_pack import media_type_of, pack
from tests.registry_stores import digest_of_text

MODEL = ModelManifest(
    name="iris",
    version=3,
    digest=digest_of_text("all"),
    files=[
        FileEntry(path="model.onnx", digest=digest_of_text("weights"), size_bytes=7),
        FileEntry(path="docs/README.md", digest=digest_of_text("read me"), size_bytes=7),
    ],
    framework="onnx",
    source=SourceCommit(commit="0123abc", repository="https://example.org/iris.git"),
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
)


def test_the_documents_are_these() -> None:
    made = pack(MODEL)
    assert json.loads(made.config) == {
        "descriptor": {"name": "iris", "version": "3", "revision": "0123abc"},
        "config": {"format": "onnx"},
        "modelfs": {"type": "layers", "diffIds": [digest_of_text("read me"), digest_of_text("weights")]},
    }
    manifest = json.loads(made.manifest)
    assert {key: value for key, value in manifest.items() if key != "layers"} == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.model.config.v1+json",
            "digest": made.config_digest,
            "size": len(made.config),
        },
    }
    assert manifest["layers"] == [
        {
            "mediaType": "application/vnd.cncf.model.doc.v1.raw",
            "digest": digest_of_text("read me"),
            "size": 7,
            "annotations": {
                "org.cncf.model.filepath": "docs/README.md",
                "org.cncf.model.file.metadata+json": (
                    '{"gid":0,"mode":420,"mtime":"1970-01-01T00:00:00Z","name":"README.md","size":7,"typeflag":48,"uid":0}'
                ),
                "org.cncf.model.file.mediatype.untested": "true",
                "org.opencontainers.image.title": "docs/README.md",
            },
        },
        {
            "mediaType": "application/vnd.cncf.model.weight.v1.raw",
            "digest": digest_of_text("weights"),
            "size": 7,
            "annotations": {
                "org.cncf.model.filepath": "model.onnx",
                "org.cncf.model.file.metadata+json": (
                    '{"gid":0,"mode":420,"mtime":"1970-01-01T00:00:00Z","name":"model.onnx","size":7,"typeflag":48,"uid":0}'
                ),
                "org.cncf.model.file.mediatype.untested": "true",
                "org.opencontainers.image.title": "model.onnx",
            },
        },
    ]


def test_the_bytes_are_these() -> None:
    """Whoever pinned a digest finds it again; a change here must not happen to versions that were pulled."""
    made = pack(MODEL)
    assert made.config_digest == "sha256:8f81ec8c2da0af8bded2346a1942738dc1acb4c72d9de46b2098d24626289a47"
    assert made.manifest_digest == "sha256:593a5db83bf0e68a73b912f1ce7f6c419c801c192542e40e70ad09ca0fd4c1ce"


def test_what_may_change_does_not_change_them() -> None:
    changed = msgspec.structs.replace(
        MODEL,
        files=MODEL.files[::-1],
        tags={"stage": "prod"},
        properties={"auc": "0.9"},
        description="Another one",
        aliases=["champion"],
        revision=7,
        created_at=datetime(2027, 1, 1, tzinfo=UTC),
    )
    assert pack(changed) == pack(MODEL)
    assert pack(msgspec.structs.replace(MODEL, version=4)) != pack(MODEL)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.onnx", "weight"),
        ("weights/part-1.safetensors", "weight"),
        ("model.bin", "weight"),
        ("noextension", "weight"),
        ("MLmodel", "weight.config"),
        ("conda.yaml", "weight.config"),
        ("requirements.txt", "weight.config"),
        ("a/config.JSON", "weight.config"),
        ("tokenizer.model", "weight.config"),
        ("README", "doc"),
        ("License.txt", "doc"),
        ("docs/card.md", "doc"),
        ("score.py", "code"),
        ("explore.ipynb", "code"),
        ("sample.csv", "dataset"),
    ],
)
def test_kinds_of_files(path: str, kind: str) -> None:
    assert media_type_of(path) == f"application/vnd.cncf.model.{kind}.v1.raw"


@pytest.mark.parametrize(
    ("framework", "path", "format_"),
    [
        ("sklearn", "model.pkl", "sklearn"),
        ("pytorch", "m.pt", "pt"),
        ("custom", "m.ONNX", "onnx"),
        ("custom", "m.gguf", "gguf"),
        ("custom", "m.bin", None),
    ],
)
def test_formats(framework: str, path: str, format_: str | None) -> None:
    model = msgspec.structs.replace(MODEL, framework=framework, files=[msgspec.structs.replace(MODEL.files[0], path=path)])
    assert json.loads(pack(model).config)["config"].get("format") == format_


def test_too_many_files_for_one_manifest() -> None:
    files = [msgspec.structs.replace(MODEL.files[0], path=f"part-{number:05}") for number in range(10_000)]
    with pytest.raises(PackTooLarge, match=r"iris:3 has 10000 files"):
        pack(msgspec.structs.replace(MODEL, files=files))
