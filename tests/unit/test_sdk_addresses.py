"""Names in the path of a request."""

from __future__ import annotations

import pytest

from hedgerow.errors import InvalidReference
from hedgerow.sdk.addresses import address, file_address


def test_references_stay_readable() -> None:
    assert address("/api/v1/models", "churn:3") == "/api/v1/models/churn:3"
    assert address("/api/v1/models", "churn@sha256:0a", "files") == "/api/v1/models/churn@sha256:0a/files"


@pytest.mark.parametrize("name", ["x#y", "x?force=1", "x%2f..", "x y", "é", "a\nb"])
def test_what_means_something_in_a_url_is_only_a_name(name: str) -> None:
    made = address("/models", name)
    assert made.startswith("/models/")
    assert not set(made.removeprefix("/models/")) & set("#?/ \n")
    assert made != f"/models/{name}"


@pytest.mark.parametrize("name", ["", ".", "..", "../endpoints/prod", "a/b", "/", "\udcff"])
def test_what_could_lead_to_another_noun_is_refused(name: str) -> None:
    with pytest.raises(InvalidReference):
        address("/models", name)


def test_files_keep_their_folders() -> None:
    assert file_address("/files", "deep/a?b#c%2F d.bin") == "/files/deep/a%3Fb%23c%252F%20d.bin"
    with pytest.raises(InvalidReference):
        file_address("/files", "deep/../../x")
