"""Requests about images: what they take."""

from __future__ import annotations

import msgspec
import pytest

from hedgerow.contracts.api_images import BuildImage, ChangeImage
from registry.store.activities import BuildTask


@pytest.mark.parametrize("tags", [{"k" * 251: "v"}, {"": "v"}, {"k": "v" * 8001}])
def test_a_build_takes_no_tag_that_a_change_of_tags_would_not(tags: dict[str, str]) -> None:
    asked = {"name": "churn", "models": ["churn:1"], "tags": tags}
    for kind, given in ((BuildImage, asked), (ChangeImage, {"tags": tags})):
        with pytest.raises(msgspec.ValidationError, match="tags"):
            msgspec.convert(given, kind)
    # What 0.1.0 has queued is built.
    assert msgspec.convert(asked, BuildTask).tags == tags
