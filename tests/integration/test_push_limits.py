"""Unfinished pushes are limited for each token and for all: nobody alone keeps the others from pushing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.server.errors import TooManyUploads, UploadUnknown
from registry.server.push_files import UPLOADS_MOST, UPLOADS_OF_ONE_MOST, PushFiles
from tests.oci_client import Pusher, oci_code
from tests.registry_server import Api, RunningServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_token_that_left_many_does_not_stop_another(tmp_path: Path) -> None:
    files = PushFiles(tmp_path / "pushes", 3600)
    ids = [files.begin("churn", "a-token", NOW) for _ in range(UPLOADS_OF_ONE_MOST)]
    with pytest.raises(TooManyUploads, match=f"{UPLOADS_OF_ONE_MOST} uploads were begun with this token and not finished"):
        files.begin("another", "a-token", NOW)
    other = files.begin("churn", "another-token", NOW)
    assert files.size("churn", other) == 0
    # One less is room for one; closed ones count until they are gone.
    with files.writing("churn", ids[0]) as upload:
        upload.close()
        with pytest.raises(TooManyUploads):
            files.begin("churn", "a-token", NOW)
        upload.remove()
    files.begin("churn", "a-token", NOW)


def test_all_together_are_limited_too(tmp_path: Path) -> None:
    files = PushFiles(tmp_path / "pushes", 3600)
    for number in range(UPLOADS_MOST):
        files.begin("churn", f"token-{number % 10}", NOW)
    with pytest.raises(TooManyUploads, match=f"{UPLOADS_MOST} uploads were begun and not finished"):
        files.begin("churn", "a-new-token", NOW)
    # What nobody goes on with makes room by itself.
    files.begin("churn", "a-new-token", datetime.now(UTC) + timedelta(days=2))


def test_uploads_begun_by_the_version_before_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "pushes"
    folder.mkdir()
    (folder / f"churn@{'0' * 32}").write_bytes(b"half")
    files = PushFiles(folder, 3600)
    assert files.size("churn", "0" * 32) == 4
    for wrong in ("0" * 31, "0" * 33, "0" * 45, "0" * 31 + "g"):
        with pytest.raises(UploadUnknown):
            files.size("churn", wrong)


def test_over_http_the_limit_is_the_token_s_own(server: RunningServer, api: Api) -> None:
    greedy, modest = (server.client(api.token("contributor")) for _ in range(2))
    with greedy, modest:
        for _ in range(UPLOADS_OF_ONE_MOST):
            assert Pusher(greedy, "greedy").begin().status_code == 202
        refused = Pusher(greedy, "greedy").begin()
        assert oci_code(refused) == "TOOMANYREQUESTS"
        assert Pusher(modest, "greedy").begin().status_code == 202
        assert Pusher(api, "greedy").begin().status_code == 202
