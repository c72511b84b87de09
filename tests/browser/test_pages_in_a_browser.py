"""The pages as a person meets them: signing in, looking around, on a desk and on a phone; the browser never complains."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from hedgerow.sdk.client import Client
from tests.browser_complaints import complaints_of
from tests.fixtures.control_plane import ControlPlane

PAGES = ["models", "images", "services", "devices", "runs", "activities", "events"]
NASTY = "<img src=x onerror=document.title='owned'>"


class Visit:
    """A tab that is signed in, and everything the browser complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints = complaints_of(page)
        page.on("request", self._stay_at_home)

    def _stay_at_home(self, request: object) -> None:
        address = getattr(request, "url", "")
        if not address.startswith((self.url, "data:")):
            self.complaints.append(f"the page asked {address}")

    def go(self, path: str) -> int:
        """HTTP status of the page."""
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None
        return answer.status


@pytest.fixture
def visit(client: Client, browser_context: BrowserContext) -> Visit:
    """A control plane's pages, before signing in."""
    return Visit(browser_context.new_page(), client.info().url.rstrip("/"))


def _sign_in(visit: Visit, control_plane: ControlPlane) -> None:
    token = (control_plane.workspace / "run" / "owner.token").read_text().strip()
    visit.go(f"/login?token={token}")
    assert token not in visit.page.url


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


def test_every_page_opens_without_a_complaint(
    visit: Visit, control_plane: ControlPlane, client: Client, model_file: Path
) -> None:
    client.models.register("iris", model_file, description=NASTY, tags={"owner": NASTY})
    _sign_in(visit, control_plane)
    for name in PAGES:
        visit.page.get_by_role("navigation").get_by_role("link", name=name.capitalize(), exact=True).click()
        visit.page.wait_for_url(f"{visit.url}/{name}")
        assert visit.page.locator("main").inner_text().strip(), f"/{name} is empty"
    visit.go("/models")
    visit.page.get_by_role("link", name="iris").first.click()
    assert NASTY in visit.page.locator("main").inner_text()
    assert visit.page.title() != "owned"
    assert not visit.complaints


def test_without_signing_in_nothing_is_shown(visit: Visit, client: Client, model_file: Path) -> None:
    client.models.register("secret-plan", model_file)
    for name in PAGES:
        assert visit.go(f"/{name}") == 401
        assert "secret-plan" not in visit.page.content()


def test_what_is_not_there_says_so(visit: Visit, control_plane: ControlPlane) -> None:
    _sign_in(visit, control_plane)
    assert visit.go("/models/nothing:7") == 404
    assert "nothing" in visit.page.locator("main").inner_text()


def test_pages_fit_a_phone(visit: Visit, control_plane: ControlPlane, client: Client, model_file: Path) -> None:
    client.models.register("a" * 128, model_file, tags={"k" * 60: "v" * 200})
    visit.page.set_viewport_size({"width": 360, "height": 740})
    _sign_in(visit, control_plane)
    for path in ("/", "/models", f"/models/{'a' * 128}:1"):
        visit.go(path)
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} pixels wide"


def test_a_script_cannot_read_the_session(visit: Visit, control_plane: ControlPlane) -> None:
    _sign_in(visit, control_plane)
    assert visit.page.evaluate("document.cookie") == ""
