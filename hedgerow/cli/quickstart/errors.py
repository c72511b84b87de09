"""What can go wrong in the quickstart itself."""

from __future__ import annotations

from hedgerow.errors import Bug, UnavailableError, UserError


class ExampleDataMissing(UserError):
    """The sensor data comes with a package that is not installed."""

    key = "example_data_missing"
    message = "The quickstart's sensor data (Shuttle) is not installed"
    remedy = "Install it with: pip install 'hedgerow[all]'"


class FolderNotOurs(UserError):
    """The quickstart's folder holds something that no quickstart made."""

    key = "folder_not_ours"
    message = "{folder} exists and was not made by a quickstart"
    remedy = "Choose another with --folder, or remove it."


class AlreadyRunning(UserError):
    """Another quickstart works in this folder right now."""

    key = "quickstart_running"
    message = "Another quickstart (process {pid}) works in {folder}"
    remedy = "Wait for it, or choose another --folder."


class DidNotHappen(UnavailableError):
    """Something the quickstart waits for did not come."""

    key = "did_not_happen"
    message = "{what} did not happen within {seconds:.0f} s; last seen: {seen}"
    remedy = "The logs are in {folder}; run it again, and report it with those logs if it stays."


class WrongAnswer(Bug):
    """An endpoint answered something else than the trained model did."""

    key = "wrong_answer"
    message = "{where} answered differently from the trained model: largest error {error:g}, allowed {allowed:g}"
    remedy = "Please report it with the versions of onnxruntime, scikit-learn and skl2onnx (pip list) and the log."
