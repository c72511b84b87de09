"""OCI documents: one form to write, and nothing believed of what somebody else wrote but that it fits."""

from __future__ import annotations

import json

import pytest

from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_LAYER_TAR, MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import Descriptor, Index, Platform, index_bytes, read_foreign_json, read_image_document

DIGEST = f"sha256:{'a' * 64}"
LAYER = {"mediaType": MEDIA_OCI_LAYER_TAR, "digest": DIGEST, "size": 1}


def document(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def test_what_is_empty_is_not_written_so_equal_content_has_equal_bytes() -> None:
    bare = Descriptor(media_type=MEDIA_OCI_MANIFEST, digest=DIGEST, size=3, annotations={}, artifact_type="")
    assert index_bytes([bare]) == (
        b'{"manifests":[{"digest":"' + DIGEST.encode() + b'","mediaType":"application/vnd.oci.image.manifest.v1+json","size":3}],'
        b'"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'
    )
    assert read_foreign_json(index_bytes([bare]), Index).manifests == [bare]


def test_below_are_config_layers_and_manifests_and_not_the_subject() -> None:
    config = {"mediaType": MEDIA_OCI_CONFIG, "digest": DIGEST, "size": 2}
    manifest = read_image_document(document(config=config, layers=[LAYER], subject={**LAYER, "size": 9}))
    assert [one.size for one in manifest.below] == [2, 1]
    assert manifest.manifests is None
    index = read_image_document(document(manifests=[{**LAYER, "size": 7}]))
    assert [one.size for one in index.below] == [7]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "Expected `object`"),
        (b"\xff", "JSON is malformed|invalid"),
        (b'{"a":' + b"[" * 100_000, "recursion"),
        (document(layers="x"), "Expected `array"),
        (document(layers=[{**LAYER, "digest": "../../etc"}]), "'../../etc' is no digest"),
        (document(manifests=[{**LAYER, "digest": f"sha512:{'a' * 64}"}]), "is no digest"),
        (document(subject={**LAYER, "digest": "x"}), "'x' is no digest"),
        (document(config={**LAYER, "size": -1}), "has the size -1"),
    ],
)
def test_foreign_documents_that_do_not_fit_are_a_sentence(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_image_document(data)


def test_platforms_suit_each_other_by_variant_only_where_both_name_one() -> None:
    arm = Platform.parse("linux/arm64")
    assert Platform.parse("linux/arm64/v8").suits(arm)
    assert arm.suits(Platform.parse("linux/arm64/v8"))
    assert not Platform.parse("linux/arm/v6").suits(Platform.parse("linux/arm/v7"))
    assert str(Platform.parse("linux/arm/v7")) == "linux/arm/v7"
    assert not Platform.parse("unknown/unknown").is_real
