"""What can go wrong while the controller works, in words for the person whose activity it was."""

from __future__ import annotations

import errno
import os

from hedgerow.contracts.work import Problem
from hedgerow.errors import Bug, ConflictError, HedgerowError, ScriptError, UnavailableError, UserError
from registry.blobs.errors import StorageUnavailable

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class Cancelled(ConflictError):
    """Somebody asked for an end of the work."""

    key = "cancelled"
    message = "It was cancelled"
    remedy = "Start it again if it was not meant."


class WorkerFailed(UnavailableError):
    """A process of ours ended without saying what it did."""

    key = "worker_failed"
    message = "The process for {step!r} ended ({reason}) without an answer{said}"
    remedy = "Check memory and disk space of this machine, then start it again."


class Reported(HedgerowError):
    """A problem that a process reported in its own words; crosses unchanged."""

    key = "reported"
    message = "{message}"
    remedy = "{remedy}"

    def __init__(self, problem: Problem) -> None:
        super().__init__(message=problem.message, remedy=problem.remedy)
        self.problem = problem


class ScriptFailed(ScriptError):
    """The user's script ended with an error."""

    key = "script_failed"
    message = "{script} ended with {reason}{said}"
    remedy = "Read its log with: hedgerow run logs {run}"


class LayoutBroken(UnavailableError):
    """What a build left is not what it announced."""

    key = "layout_broken"
    message = "The image layout of the build cannot be stored: {problem}"
    remedy = "Build again; if it happens twice, check the disk."


class ConversionIncomplete(UnavailableError):
    """What a converter left is not what it announced."""

    key = "conversion_incomplete"
    message = "The conversion of {model} cannot be stored: {problem}"
    remedy = "Convert it again; if it happens twice, check the disk."


class ImageNotRunnable(UserError):
    """An image that target process cannot unpack."""

    key = "image_not_runnable"
    message = "Image {digest} cannot be run as a process: {problem}"
    remedy = "Build it again with --kind onnx."


class SandboxMissing(UserError):
    """``--require-sandbox`` on a machine where the sandbox's user cannot get at what it needs."""

    key = "sandbox_missing"
    message = "Foreign code would run as root, because user {uid} cannot enter {folder}"
    remedy = "Put the workspace and the Python installation into folders that others may enter, or drop --require-sandbox."


def as_problem(error: HedgerowError) -> Problem:
    """The error as it is written to an activity."""
    if isinstance(error, Reported):
        return error.problem
    details = {name: str(value)[:2000] for name, value in error.fields.items()}
    return Problem(code=error.key, message=str(error), remedy=error.advice, details=details)


def of_file_work(problem: Exception) -> HedgerowError:
    """What went wrong with files, as an error of ours: the disk's fault, or else our own."""
    if isinstance(problem, HedgerowError):
        return problem
    if isinstance(problem, OSError) and problem.errno in _DISK:
        return StorageUnavailable(problem=f"{os.strerror(problem.errno)}: {problem.filename}")
    return Bug(what=f"{type(problem).__name__}: {problem}")
