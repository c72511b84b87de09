"""Errors that say whose fault it is, what happened and what to do.

Every error has a stable ``key``, a message template filled with ``fields`` and a ``remedy``. Nothing here knows HTTP
or exit codes: each face has one mapper (``registry/server/http_errors.py``, ``runtime/http_errors.py``,
``hedgerow/cli/main.py``, ``edge_agent/link/reported.py``).
"""

from __future__ import annotations

from typing import ClassVar


class HedgerowError(Exception):
    """Base of everything Hedgerow raises on purpose.

    A subclass sets ``key`` (stable, lower-case, used in answers and docs), ``message`` and ``remedy``; both are
    ``str.format`` templates over the keyword arguments given when it is raised.
    """

    key: ClassVar[str] = "error"
    message: ClassVar[str] = "Something went wrong"
    remedy: ClassVar[str] = "See the log of the process that reported it."

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.message.format(**fields))

    @property
    def advice(self) -> str:
        """The remedy with this error's values filled in."""
        return self.remedy.format(**self.fields)

    def sentence(self) -> str:
        """What happened and what to do, for one line of terminal output."""
        return f"{str(self).rstrip('.')}. {self.advice}"


class UserError(HedgerowError):
    """The caller asked for something that cannot be: bad input, a bad file, a wrong option."""

    key = "bad_request"


class NotFoundError(UserError):
    """The caller named something that does not exist."""

    key = "not_found"


class AccessError(HedgerowError):
    """The caller is unknown (no or wrong credential)."""

    key = "unauthorized"


class ForbiddenError(AccessError):
    """The caller is known but may not do this."""

    key = "forbidden"


class ConflictError(HedgerowError):
    """The request is fine but collides with what is there now."""

    key = "conflict"


class UnavailableError(HedgerowError):
    """Something outside is missing, full or busy; the same request may work later."""

    key = "unavailable"


class ScriptError(HedgerowError):
    """The user's own code failed; never reported as a fault of Hedgerow."""

    key = "script_failed"


class Bug(HedgerowError):
    """Hedgerow itself is wrong."""

    key = "internal"
    message = "Hedgerow met a state it does not expect: {what}"
    remedy = "Please report it together with the log of this process."


class InvalidDocument(UserError):
    """A document does not fit its schema; the message names the field and the value."""

    key = "invalid_document"
    message = "{document} is not valid: {problem}"
    remedy = "Correct that field and send it again."


class DocumentTooNew(UserError):
    """A document was written by a newer Hedgerow than this one."""

    key = "document_too_new"
    message = "{document} has schema version {found}, this Hedgerow reads up to {supported}"
    remedy = "Upgrade this Hedgerow (pip install --upgrade hedgerow)."


class InvalidName(UserError):
    """A name breaks the grammar shared by OCI, URLs, MQTT and DNS."""

    key = "invalid_name"
    message = "{kind} name {value!r} is not allowed"
    remedy = "Use 1 to 128 of a-z and 0-9; words may be joined with one '.', one or two '_', or '-'."


class InvalidReference(UserError):
    """A reference is not ``name``, ``name:version`` or ``name@sha256:…``."""

    key = "invalid_reference"
    message = "{value!r} is not a reference"
    remedy = "Write NAME, NAME:VERSION, NAME@sha256:DIGEST or, for a model, NAME@ALIAS."


class InvalidSetting(UserError):
    """A setting has a value that its type does not take."""

    key = "invalid_setting"
    message = "Setting {name} cannot be {value!r}: {problem}"
    remedy = "Correct {source}."


class UnknownSetting(UserError):
    """A setting that no table knows."""

    key = "unknown_setting"
    message = "There is no setting {name!r} for {component}"
    remedy = "{hint}"


class MissingExtra(UserError):
    """A part was asked for whose libraries are not installed."""

    key = "missing_extra"
    message = "{what} needs libraries that are not installed ({module})"
    remedy = "Install them with: pip install 'hedgerow[{extra}]'"
