"""What a browser says against a page."""

from __future__ import annotations

from playwright.sync_api import Page, Request


def complaints_of(page: Page) -> list[str]:
    """A list that grows: errors and warnings on the console, uncaught exceptions, and requests that failed."""
    found: list[str] = []

    def failed(request: Request) -> None:
        # The browser itself drops what it still fetches, the icon say, when it is sent to the next page.
        if request.failure != "net::ERR_ABORTED":
            found.append(f"{request.url} failed: {request.failure}")

    page.on("console", lambda said: found.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", failed)
    return found
