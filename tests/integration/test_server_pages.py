"""The web pages of a real server: signing in, every page with and without content, nothing of a stranger's executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import httpx
import pytest

from registry.store.database import open_database
from tests.registry_everything import HOSTILE, Everything
from tests.registry_server import Api, RunningServer, problem_of, running_server

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
LISTS = ["/", "/models", "/images", "/services", "/devices", "/runs", "/activities"]


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def links(self) -> set[str]:
        return {attributes["href"] or "" for tag, attributes in self.tags if tag == "a" and "href" in attributes}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("empty")) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Everything]]:
    with running_server(tmp_path_factory.mktemp("full")) as running:
        database = open_database(None, running.workspace)
        yield running, Everything(database, datetime.now(UTC))
        database.close()


@pytest.fixture
def api(full: tuple[RunningServer, Everything]) -> Iterator[Api]:
    with full[0].client() as client:
        yield client


def test_signing_in_with_a_link(empty: RunningServer) -> None:
    with empty.client() as owner:
        token = owner.token("reader")
    with httpx.Client(base_url=empty.url, headers=BROWSER) as browser:
        before = browser.get("/")
        assert before.status_code == 401
        assert "hedgerow token create" in before.text
        answered = browser.get("/login", params={"token": token})
        assert (answered.status_code, answered.headers["location"]) == (303, "/")
        cookie = answered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert token not in cookie, "the session is a token of its own"
        assert browser.get("/").status_code == 200
        assert browser.get("/api/v1/models").status_code == 200
        # What a browser sends unasked never writes, and reads only what a reader may.
        written = browser.post("/api/v1/environments", json={"name": "e"})
        assert (written.status_code, problem_of(written)["code"]) == (401, "token_missing")
        assert browser.get("/api/v1/tokens").status_code == 403
    with httpx.Client(base_url=empty.url, headers=BROWSER) as browser:
        assert browser.get("/login", params={"token": "hrw_0_0"}).status_code == 401
        assert "set-cookie" not in browser.get("/login").headers


def test_a_device_token_opens_no_pages(empty: RunningServer) -> None:
    with empty.client() as owner:
        token = owner.token("puller")
    answered = httpx.get(f"{empty.url}/login", params={"token": token}, headers=BROWSER)
    assert answered.status_code == 403
    assert "set-cookie" not in answered.headers


@pytest.mark.parametrize("path", LISTS)
def test_an_empty_workspace_says_what_to_do_next(empty: RunningServer, path: str) -> None:
    with empty.client() as api:
        page = Page(api.get(path, headers=BROWSER).text)
    assert "hedgerow " in page.text
    assert " yet" in page.text


def test_every_page_can_be_reached_from_the_overview(api: Api) -> None:
    # The description of the API is linked too, and no page.
    seen, ahead = {"/openapi.json"}, {"/"}
    while ahead:
        path = ahead.pop()
        answered = api.get(path, headers=BROWSER)
        assert answered.status_code == 200, f"{path}: {answered.status_code}"
        assert answered.headers["content-type"] == "text/html; charset=utf-8"
        seen.add(path)
        page = Page(answered.text)
        ahead |= {link for link in page.links if link.startswith("/")} - seen
        for tag, attributes in page.tags:
            # The content policy forbids it and nothing needs it.
            assert tag != "script", path
            assert "style" not in attributes, path
            assert not [name for name in attributes if name.startswith("on")], path
    kinds = {re.sub(r"(?<=/).+/.*|(?<=.)/.*", "", path) for path in seen}
    assert {f"/{name}" for name in ("models", "images", "services", "devices", "runs", "activities", "events")} <= kinds
    assert len(seen) > 18, sorted(seen)


def test_strangers_text_stays_text(api: Api) -> None:
    for path in ("/", "/models", "/models/pump-vibration:1", "/devices", "/devices/press-7"):
        text = api.get(path, headers=BROWSER).text
        assert "<script>" not in text
        assert HOSTILE in Page(text).text


def test_details_are_there(api: Api, full: tuple[RunningServer, Everything]) -> None:
    everything = full[1]
    expected = {
        "/models/shuttle-anomaly": [everything.model.digest, "Isolation forest", everything.run_id, "shuttle-image:1", "any × 9"],
        "/images/shuttle-image:1": [everything.image.digest, "200 rows agree", "press-7/scorer", "shuttle/blue"],
        "/services/shuttle": ["http://127.0.0.1:8090/services/shuttle/score", "1 of 3 replicas is ready", "exit code 1"],
        "/devices": ["belts revision 1", "0 of 0 well"],
        "/devices/press-7": ["online", "presses", "answers its probe", "killed by signal 9", "relay", "3 waiting"],
        f"/runs/{everything.run_id}": ["train.py --trees 200", "auc", "0.9869", "took 2 min"],
    }
    for path, words in expected.items():
        page = Page(api.get(path, headers=BROWSER).text)
        assert [word for word in words if word not in page.text] == [], path
    overview = api.get("/", headers=BROWSER).text
    assert f'title="{everything.image.digest}"' in overview, "short in the page, whole in the title"
    assert re.search(r'<time datetime="[^"]+" title="\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC">2 h ago|3 h ago</time>', overview)


def test_mistakes_are_pages_for_people_and_json_for_programs(api: Api) -> None:
    for path, status in (("/models/none", 404), ("/models/BAD NAME", 400), ("/nowhere", 404), ("/models?after=x", 400)):
        for_people = api.get(path, headers=BROWSER)
        assert (for_people.status_code, for_people.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert "Back to the overview" in for_people.text
        for_programs = api.get(path)
        assert for_programs.status_code == status
        problem_of(for_programs)
    assert problem_of(api.get("/api/v1/models/none", headers=BROWSER))["code"] == "not_found"


def test_static_files(empty: RunningServer) -> None:
    with httpx.Client(base_url=empty.url) as nobody:
        assert nobody.get("/static/studio.css").headers["content-type"].startswith("text/css")
        assert nobody.get("/static/leaf.svg").headers["content-type"].startswith("image/svg")
        assert nobody.get("/static/none.css").status_code == 404


def test_models_are_searched_for_with_words_and_tags(api: Api) -> None:
    api.register("search-me", api.upload(b"found"), tags={"team": "red & blue"}, description="finds Needles", aliases=["chosen"])
    asked = {"q": "needle*"}
    page = Page(api.get("/models", params=asked, headers=BROWSER).text)
    assert "search-me" in page.text
    assert "@chosen" in page.text
    assert "shuttle-anomaly" not in page.text
    shown = Page(api.get("/models/search-me", headers=BROWSER).text)
    (tag,) = (link for link in shown.links if link.startswith("/models?tag="))
    assert "search-me" in Page(api.get(tag, headers=BROWSER).text).text
    for nothing in ({"q": "no-such-word"}, {"q": "!!!"}, {"tag": "team=green"}, {"framework": "none"}):
        assert "No model like that" in Page(api.get("/models", params=nothing, headers=BROWSER).text).text
    assert api.get("/models", params={"name": "../x"}, headers=BROWSER).status_code == 400


def test_a_search_is_kept_from_page_to_page(api: Api) -> None:
    entry = api.upload(b"many")
    for _ in range(52):
        api.register("many-versions", entry, tags={"lot": "a&b"})
    page = Page(api.get("/models", params={"tag": "lot=a&b"}, headers=BROWSER).text)
    (following,) = (link for link in page.links if link.startswith("?after="))
    rest = Page(api.get(f"/models{following}", headers=BROWSER).text)
    assert "many-versions" in rest.text
    assert len([link for link in rest.links if link.startswith("/models/many-versions:")]) == 2


def test_events_say_who_did_what(api: Api, full: tuple[RunningServer, Everything]) -> None:
    api.register("eventful", api.upload(b"eventful"), tags={"note": HOSTILE})
    page = Page(api.get("/events", headers=BROWSER).text)
    assert "model.registered" in page.text
    assert "/models/eventful:1" in page.links
    assert "owner" in page.text
    only = Page(api.get("/events", params={"kind": "model.*", "subject": "model/eventful:1"}, headers=BROWSER).text)
    assert "model/eventful:1" in only.text
    assert "No event like that" in Page(api.get("/events", params={"actor": "nobody"}, headers=BROWSER).text).text
    assert api.get("/events", params={"after": "nonsense"}, headers=BROWSER).status_code == 400
