"""How a device stands with its hub, in one word and a reason for people. Pure."""

from __future__ import annotations

from hedgerow.contracts.status import LinkStatus

NOT_ASKED_YET = "the broker was not reached yet"


def standing(*, in_session: bool, revoked: bool, refused: str, connected: bool, problem: str) -> LinkStatus:
    """``refused`` is what the hub said last instead of granting a session, ``problem`` why there is no connection."""
    if in_session:
        return LinkStatus(state="session")
    if revoked:
        return LinkStatus(state="revoked", reason=refused)
    if not connected:
        return LinkStatus(state="offline", reason=problem or NOT_ASKED_YET)
    if refused:
        return LinkStatus(state="refused", reason=refused)
    return LinkStatus(state="connected", reason="the hub has not answered yet")


def words(link: LinkStatus) -> str:
    """One line for people."""
    if link.state == "session":
        return "in session with the hub"
    if link.state == "revoked":
        return f"{link.reason}: nothing is taken from it any more; its modules run on, and its telemetry waits"
    return f"{'no session' if link.state in ('refused', 'connected') else 'no connection to the broker'}: {link.reason}"
