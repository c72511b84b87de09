"""A repository folder in Triton's layout: what is in it, what is served of it, and that no name leads out of it."""

from __future__ import annotations

import base64
import resource
from pathlib import Path

import pytest

from hedgerow.errors import InvalidSetting
from runtime.models.errors import BadModelUpload, LedgerFull, ModelUnusable, NotInRepository, RepositoryUnusable
from runtime.models.ledger import CAPACITY, Ledger
from runtime.models.model_repository import Wanted, model_names, plan_repository, plan_wanted, store_upload
from runtime.serving_plan import Repository
from runtime.settings import RuntimeSettings


def repository(root: Path, *models: str, control: str = "explicit") -> Repository:
    """``name/version`` each."""
    for model in models:
        (root / model).mkdir(parents=True)
        (root / model / "model.onnx").write_bytes(b"")
    return Repository(root, control)  # type: ignore[arg-type]  # one of the three words


def planned(where: Repository, name: str, **wishes: str) -> list[str]:
    return [one.version for one in plan_wanted(where, Wanted(name, **wishes))]


def test_models_and_their_versions(tmp_path: Path) -> None:
    where = repository(tmp_path, "b/1", "b/12", "b/3", "a/1", ".git/1")
    (tmp_path / "b" / "labels").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert model_names(where) == ["a", "b"]
    assert planned(where, "b") == ["12"], "the newest, by number"
    (tmp_path / "b" / "config.pbtxt").write_text("version_policy: { all {} } instance_group { count: 3 } max_batch_size: 0")
    assert planned(where, "b") == ["1", "3", "12"]
    one = plan_wanted(where, Wanted("b"))[0]
    assert (one.file, one.most_rows, one.instances) == (tmp_path / "b" / "1" / "model.onnx", 0, 3)
    assert planned(where, "b", config='{"version_policy": {"specific": {"versions": [3]}}}') == ["3"], "the request's own wins"


@pytest.mark.parametrize("name", ["..", ".", "", "a/1", "../outside", "/etc", ".git", "a\0"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    where = repository(tmp_path / "repo", "a/1", ".git/1")
    repository(tmp_path, "outside/1")
    with pytest.raises(NotInRepository):
        plan_wanted(where, Wanted(name))


def test_what_cannot_be_served_says_why(tmp_path: Path) -> None:
    where = repository(tmp_path, "a/1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnusable, match="it has no version"):
        plan_wanted(where, Wanted("empty"))
    with pytest.raises(ModelUnusable, match=r"of its versions \[1\] none is wanted"):
        plan_wanted(where, Wanted("a", '{"version_policy": {"specific": {"versions": [9]}}}'))
    with pytest.raises(ModelUnusable, match="there is no such file"):
        plan_wanted(where, Wanted("a", '{"default_model_filename": "other.onnx"}'))
    with pytest.raises(RepositoryUnusable, match="No such file"):
        model_names(Repository(tmp_path / "nowhere", "none"))


def test_what_is_served_at_the_start(tmp_path: Path) -> None:
    repository(tmp_path, "a/1", "b/2")
    every = plan_repository(tmp_path, RuntimeSettings(model_repository=tmp_path))
    assert [(one.name, one.version) for one in every.models] == [("a", "1"), ("b", "2")]
    some = plan_repository(tmp_path, RuntimeSettings(model_repository=tmp_path, load_models=" b ,"))
    assert [one.name for one in some.models] == ["b"]
    with pytest.raises(InvalidSetting, match="load_models cannot be 'b,c': the repository has no model 'c'; it has a, b"):
        plan_repository(tmp_path, RuntimeSettings(model_repository=tmp_path, load_models="b,c"))
    nothing = RuntimeSettings(model_repository=tmp_path, load_models="", model_control="explicit")
    assert plan_repository(tmp_path, nothing).models == ()
    with pytest.raises(InvalidSetting, match="load_models cannot be '': it names no model, and none could be loaded later"):
        plan_repository(tmp_path, RuntimeSettings(model_repository=tmp_path, load_models=""))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryUnusable, match="it has no models, and none could be loaded later"):
        plan_repository(tmp_path / "empty", RuntimeSettings(model_repository=tmp_path))


def test_files_of_a_load_request_are_stored_in_a_folder_of_their_own(tmp_path: Path) -> None:
    content = base64.b64encode(b"onnx").decode()
    folder = store_upload(tmp_path, "m", {"file:1/model.onnx": content, "file:2/model.onnx": b"raw", "file:2/w.bin": b""})
    assert folder.parent == tmp_path
    assert (folder / "1" / "model.onnx").read_bytes() == b"onnx"
    assert (folder / "2" / "model.onnx").read_bytes() == b"raw"
    assert [one.version for one in plan_wanted(Repository(tmp_path, "uploads"), Wanted("m", None, str(folder)))] == ["2"]


@pytest.mark.parametrize(
    "parameter",
    [
        "file:1/../../x",
        "file:../1/model.onnx",
        "file:0/model.onnx",
        "file:1/.hidden",
        "file:1/a/b",
        "file:1/",
        "file:/model.onnx",
    ],
)
def test_files_that_name_other_places_are_refused(tmp_path: Path, parameter: str) -> None:
    with pytest.raises(BadModelUpload):
        store_upload(tmp_path, "m", {parameter: "AAAA"})
    assert list(tmp_path.iterdir()) == []


def test_uploads_with_bad_names_or_bad_base64_are_refused(tmp_path: Path) -> None:
    for name in ("../m", "", ".m", "a/b", "m" * 200):
        with pytest.raises(BadModelUpload, match="name"):
            store_upload(tmp_path, name, {"file:1/model.onnx": b""})
    with pytest.raises(BadModelUpload, match="not base64"):
        store_upload(tmp_path, "m", {"file:1/model.onnx": "?"})


def test_the_ledger_keeps_the_last_word_and_nothing_half() -> None:
    ledger = Ledger()
    assert ledger.read() is None, "nobody asked yet"
    for wanted in ([Wanted("a")], [], [Wanted("a", "{}"), Wanted("é", None, "/f")]):
        ledger.write(wanted)
        assert ledger.read() == wanted
    with pytest.raises(LedgerFull):
        ledger.write([Wanted("a", "x" * CAPACITY)])
    assert ledger.read() == wanted


def test_a_folder_that_was_tidied_away_is_an_unusable_model_and_no_failure_of_ours(tmp_path: Path) -> None:
    where = repository(tmp_path, "a/1")
    with pytest.raises(ModelUnusable, match="No such file"):
        plan_wanted(where, Wanted("sent", folder=str(tmp_path / "gone")))
    with pytest.raises(ModelUnusable, match="too long"):
        plan_wanted(where, Wanted("a", f'{{"default_model_filename": "{"x" * 300}"}}'))


def test_files_that_cannot_all_be_stored_leave_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BadModelUpload, match="cannot be stored"):
            store_upload(tmp_path, "m", {"file:1/model.onnx": b"small", "file:1/weights": b"x" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
