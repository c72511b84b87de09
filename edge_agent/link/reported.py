"""How errors are reported to the hub: one table, error family to status code (the codes of IoT Edge)."""

from __future__ import annotations

from edge_agent.errors import ForeignDesired, OlderDesired, WrongIncarnation
from hedgerow.contracts.signed import SignatureRefused
from hedgerow.errors import ConflictError, DocumentTooNew, ForbiddenError, HedgerowError, UserError

APPLIED = 200
BEING_APPLIED = 202
FAILED = 500

# The first row that fits counts: special errors stand before their families.
_CODES: tuple[tuple[type[HedgerowError], int], ...] = (
    (SignatureRefused, 401),
    (ForeignDesired, 403),
    (OlderDesired, 409),
    (WrongIncarnation, 409),
    (DocumentTooNew, 412),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (UserError, 400),
)


def status_code(problem: HedgerowError) -> int:
    """The code under which a StatusReport mentions ``problem``."""
    return next((code for kind, code in _CODES if isinstance(problem, kind)), FAILED)
