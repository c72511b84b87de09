"""The API's pages as a person meets them: on a desk and on a phone, by light and by night; the browser never complains."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser

from tests.browser_complaints import complaints_of
from tests.registry_server import RunningServer

PAGES = ["/api", "/api/devices", "/api/models", "/api/edge-deployments"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_opens_and_fits(
    chromium: Browser, server: RunningServer, scheme: Literal["light", "dark"], width: int
) -> None:
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    complaints = complaints_of(page)
    for path in PAGES:
        answer = page.goto(f"{server.url}{path}")
        assert answer is not None
        assert answer.status == 200
        box = page.locator("body").bounding_box()
        assert box is not None
        assert box["width"] <= width, f"{path} is wider than the window"
        assert page.get_by_role("navigation", name="Main").get_by_role("link", name="API").get_attribute("aria-current") == "page"
    assert not complaints
    context.close()


def test_from_an_operation_to_what_it_takes(chromium: Browser, server: RunningServer) -> None:
    page = chromium.new_page()
    page.goto(f"{server.url}/api")
    page.get_by_role("link", name="/api/v1/devices", exact=True).nth(1).click()
    page.wait_for_url(f"{server.url}/api/devices#enroll_device")
    section = page.locator("#enroll_device")
    assert "curl -X POST" in section.inner_text()
    section.get_by_text("Errors", exact=True).click()
    assert "name_taken" in section.inner_text()
    section.get_by_role("link", name="EnrollDevice").click()
    page.wait_for_url(f"{server.url}/api/devices#EnrollDevice")
    assert "tags" in page.locator("#EnrollDevice").inner_text()
    page.close()


def test_every_link_inside_the_pages_leads_somewhere(chromium: Browser, server: RunningServer) -> None:
    page = chromium.new_page()
    page.goto(f"{server.url}/api")
    nouns = [str(link.get_attribute("href")) for link in page.locator("h2 a").all()]
    assert "/api/devices" in nouns
    for noun in nouns:
        page.goto(f"{server.url}{noun}")
        lost = page.evaluate(
            "[...document.links].filter(a => a.pathname === location.pathname).map(a => a.hash.slice(1))"
            ".filter(id => id && !document.getElementById(id))"
        )
        assert lost == [], noun
    page.close()
