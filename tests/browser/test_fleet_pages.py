"""The fleet and a device in a browser: who is silent, what does not run and why, how numbers went, what will never arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page

from hedgerow.clock import unix_ms
from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.document import decode
from hedgerow.contracts.status import BufferStatus, Decision, DesiredOutcome, ModuleStatus, StatusReport
from hedgerow.contracts.telemetry import TelemetryMessage
from registry.store import telemetry, twins
from registry.store.database import open_database
from registry.store.telemetry import Arrived, GapRow, StreamKey
from tests.browser_complaints import complaints_of
from tests.registry_server import Api, RunningServer

NASTY = "<img src=x onerror=document.title='owned'>"


def enroll(api: Api, name: str) -> str:
    answered = api.post("/api/v1/devices", json={"name": name, "tags": {"site": NASTY}})
    return decode(answered.content, EnrolledDevice).device.uuid


def report(device_uuid: str, now: datetime) -> StatusReport:
    return StatusReport(
        device_uuid=device_uuid,
        session="s",
        sequence=1,
        reported_at=now,
        agent_version="0.9",
        boot_id="b",
        desired=DesiredOutcome(version=3, code=500, message="camera is backoff"),
        modules={
            "camera": ModuleStatus(state="backoff", reason=f"exit code 3: {NASTY}", restart_count=7, exited_at=now),
            "scorer": ModuleStatus(state="running", reason="it runs", started_at=now, rollback_reason="2 failures on trial"),
        },
        decisions=[Decision(at=now, module="camera", action="start", reason="exit code 3; policy always")],
        buffer=BufferStatus(epoch="e", queued_messages=41, queued_bytes=4100, dropped_messages=2),
    )


@pytest.fixture(scope="module")
def fleet(server: RunningServer) -> RunningServer:
    """A device in trouble with an hour of telemetry, one that fell silent, one that was revoked."""
    now = datetime.now(UTC)
    with server.client() as api:
        busy, _silent = enroll(api, "press-1"), enroll(api, "press-2")
        enroll(api, "press-3")
        api.post("/api/v1/devices/press-3/revoke", json={})
    database = open_database(None, server.workspace)
    with database.write() as connection:
        twins.put_session(connection, busy, twins.Session("s", "a", 1, now + timedelta(hours=1)))
        twins.put_report(connection, report(busy, now), now)
    key = StreamKey(busy, "e", "telemetry")
    start_ms = unix_ms(now) - 3_600_000
    arrived = [
        Arrived(
            key,
            TelemetryMessage(
                sequence=n,
                time_ms=start_ms + n * 10_000,
                module="scorer",
                body=json.dumps({"load": (n % 41 - 20) / 20, NASTY: n}),
            ),
        )
        for n in range(1, 301)
    ]
    with database.write_series() as connection:
        telemetry.add_messages(connection, arrived, unix_ms(now))
        telemetry.add_gaps(connection, [GapRow(key, 301, 342, "quota")], unix_ms(now))
    database.close()
    return server


@pytest.fixture
def page(chromium: Browser, fleet: RunningServer) -> Iterator[Page]:
    """Signed in, without scripts: the pages need none."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    complaints = complaints_of(page)
    token = (fleet.workspace / "run" / "owner.token").read_text().strip()
    page.goto(f"{fleet.url}/login?token={token}")
    yield page
    assert not complaints
    context.close()


def test_the_fleet_page_names_what_needs_a_look(page: Page, fleet: RunningServer) -> None:
    page.goto(f"{fleet.url}/devices")
    tiles = page.get_by_role("list", name="The fleet").inner_text().split()
    assert tiles == ["1", "online", "1", "offline", "1", "revoked"]
    rows = [row.inner_text() for row in page.locator("#attention tbody tr").all()]
    assert len(rows) == 3
    assert "press-1" in rows[0]
    assert "camera" in rows[0]
    assert "exit code 3; policy always" in rows[0]
    assert "scorer" in rows[1]
    assert "rolled back" in rows[1]
    assert "press-2" in rows[2]
    assert "offline" in rows[2]
    assert "41" in page.locator("tr", has_text="press-1").last.inner_text()


def test_devices_are_found_by_name_and_state(page: Page, fleet: RunningServer) -> None:
    page.goto(f"{fleet.url}/devices")
    page.get_by_role("list", name="The fleet").get_by_role("link").nth(1).click()
    shown = page.get_by_role("search").locator("xpath=following-sibling::table")
    assert [link.inner_text() for link in shown.locator("a.name").all()] == ["press-2"]
    page.get_by_label("Name").fill("nothing-*")
    page.get_by_role("button", name="Search").click()
    assert "No device like that" in page.locator("main").inner_text()


def test_a_state_that_there_is_not_is_refused_with_those_that_there_are(fleet: RunningServer) -> None:
    with fleet.client() as api:
        answered = api.get("/devices?state=lost")
    assert answered.status_code == 400
    assert "online, offline, revoked" in answered.text


def test_the_device_page_draws_its_numbers_and_tells_of_gaps(page: Page, fleet: RunningServer) -> None:
    page.goto(f"{fleet.url}/devices/press-1")
    assert "rolled back: 2 failures on trial" in page.locator("main").inner_text()
    figures = page.locator("figure")
    assert figures.count() == 2
    assert figures.first.locator("polyline").count() == 1
    assert "-1 to 1" in figures.first.inner_text()
    assert "42 (numbers 301 to 342)" in page.locator("#gaps").inner_text()
    assert NASTY in figures.last.inner_text()
    assert page.title() != "owned"


@pytest.mark.parametrize("path", ["/devices", "/devices/press-1"])
def test_they_fit_a_phone(page: Page, fleet: RunningServer, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{fleet.url}{path}")
    box = page.locator("body").bounding_box()
    assert box is not None
    assert box["width"] <= 360
