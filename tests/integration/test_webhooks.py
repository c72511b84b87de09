"""Webhooks end to end: server and controller as processes, real receivers; in order, at least once, none delays another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.contracts.events import Delivery
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.webhooks import verify
from tests.controller_process import Plane, plane
from tests.fixtures.real_process import RealProcess
from tests.registry_stores import BACKENDS
from tests.waiting import free_port, wait_for
from tests.webhook_receivers import Receiver, receiver

ALLOW = {"HEDGEROW_EGRESS_ALLOW": "127.0.0.1"}
QUICK = ("--webhook-first-retry-s", "0.3", "--webhook-longest-retry-s", "1", "--webhook-timeout-s", "3")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("hooks"), *QUICK, environment=ALLOW) as made:
        yield made


@pytest.fixture
def client(here: Plane) -> Iterator[Client]:
    """Without webhooks at the end."""
    yield here.client
    for hook in here.client.webhooks.list().items:
        here.client.webhooks.delete(hook.name)


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def change(client: Client, *names: str) -> list[str]:
    """Something happens for each of ``names``; the subjects of the events."""
    return [f"token/{client.tokens.create(name, 'reader').id}" for name in names]


def settled(client: Client, name: str, state: str, number: int = 1) -> list[Delivery]:
    def look() -> list[Delivery]:
        found = client.webhooks.deliveries(name).items
        return found if sum(one.state == state for one in found) >= number else []

    return wait_for(look, timeout_s=20, what=f"{number} deliveries of {name} that are {state}")


def problem(error: pytest.ExceptionInfo[ApiError]) -> str:
    return error.value.problem.code


# --- the ordinary case -------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_signed_and_soon(client: Client, there: Receiver) -> None:
    made = client.webhooks.create("all", there.url)
    assert made.secret
    assert made.secret.startswith("whsec_")
    subjects = change(client, "a", "b", "c")
    got = there.wait_for(4, timeout_s=8)
    assert [one.subject for one in got] == ["webhook/all", *subjects]
    for one in got:
        assert verify(made.secret, one.headers["hedgerow-signature"], one.body)
        assert one.headers["hedgerow-event"] == one.event["kind"]
    assert len({one.delivery for one in got}) == 4
    listed = {event.subject: event for event in client.events.list(limit=1000).items}
    assert got[1].event["cursor"] == listed[subjects[0]].cursor
    found = settled(client, "all", "delivered", 4)
    assert [one.id for one in reversed(found)] == [one.delivery for one in got]
    assert {(one.attempts, one.status_code, one.problem) for one in found} == {(1, 200, "")}


def test_only_the_kinds_that_were_asked_for(client: Client, there: Receiver) -> None:
    client.webhooks.create("some", there.url, ["token.revoked", "secret.*"])
    (subject,) = change(client, "a")
    client.secrets.set("s", "v")
    client.tokens.revoke(subject.removeprefix("token/"))
    got = there.wait_for(2)
    assert [(one.event["kind"], one.subject) for one in got] == [("secret.set", "secret/s"), ("token.revoked", subject)]


def test_the_secret_is_shown_once_and_kept_sealed(here: Plane, client: Client, there: Receiver) -> None:
    made = client.webhooks.create("sealed", there.url)
    assert made.secret
    assert client.webhooks.get("sealed").secret is None
    assert [hook.secret for hook in client.webhooks.list().items] == [None]
    changed = client.webhooks.rotate_secret("sealed")
    assert changed.secret
    assert changed.secret != made.secret
    change(client, "a")
    got = there.wait_for(3)[-1]
    assert verify(changed.secret, got.headers["hedgerow-signature"], got.body)
    assert not verify(made.secret, got.headers["hedgerow-signature"], got.body)
    stored = b"".join(path.read_bytes() for path in here.folder.glob("records.db*"))
    told = json.dumps([event.details for event in client.events.list(limit=1000).items])
    for secret in (made.secret, changed.secret):
        assert secret.encode() not in stored
        assert secret not in told


def test_the_vaults_key_can_change_meanwhile(client: Client, there: Receiver) -> None:
    made = client.webhooks.create("rotated", there.url, ["token.*"])
    assert made.secret
    change(client, "a")
    there.wait_for(1)
    client.secrets.rotate_key()
    change(client, "b")
    got = there.wait_for(2)[1]
    assert verify(made.secret, got.headers["hedgerow-signature"], got.body)


# --- receivers that fail -----------------------------------------------------------------------------------------------


def test_500_then_200_is_the_same_delivery_again_and_keeps_the_order(client: Client, there: Receiver) -> None:
    client.webhooks.create("flaky", there.url, ["token.*"])
    there.statuses = [500, 301, 200]
    subjects = change(client, "a", "b")
    got = there.wait_for(4)
    assert [one.subject for one in got] == [subjects[0]] * 3 + [subjects[1]]
    assert len({one.delivery for one in got[:3]}) == 1
    second, first = settled(client, "flaky", "delivered", 2)
    assert (first.attempts, second.attempts) == (3, 1)
    assert client.webhooks.get("flaky").failing_since is None


@pytest.mark.alone
def test_a_hook_that_hangs_delays_nobody(client: Client, there: Receiver) -> None:
    with receiver() as stuck:
        stuck.goes_on.clear()
        client.webhooks.create("a-stuck", stuck.url, ["token.*"])
        client.webhooks.create("b-quick", there.url, ["token.*"])
        change(client, "a")
        wait_for(lambda: stuck.asked, what="the stuck receiver being asked")
        subjects = change(client, "b", "c")
        assert [one.subject for one in there.wait_for(3, timeout_s=2.5)[1:]] == subjects
        waiting = client.webhooks.get("a-stuck")
        assert waiting.waiting == 3
        stuck.goes_on.set()
        wait_for(lambda: len(set(stuck.subjects())) == 3, timeout_s=20, what="everything at the receiver that was stuck")


def test_410_pauses_the_hook_and_says_so(client: Client, there: Receiver) -> None:
    client.webhooks.create("gone", there.url, ["token.*"])
    there.statuses = [410]
    change(client, "a")
    wait_for(lambda: client.webhooks.get("gone").state == "paused", what="the webhook being paused")
    (told,) = client.events.list(kind="webhook.paused", subject="webhook/gone").items
    assert (told.actor.id, told.actor.name) == ("system", "controller")
    change(client, "b")
    wait_for(lambda: client.webhooks.get("gone").waiting == 2, what="the next event waiting as well")
    assert len(there.got) == 1
    client.webhooks.resume("gone")
    got = there.wait_for(3)
    assert got[0].delivery == got[1].delivery
    assert len({one.subject for one in got}) == 2


def test_paused_hooks_keep_what_happens(client: Client, there: Receiver) -> None:
    client.webhooks.create("later", there.url, ["token.*"])
    client.webhooks.pause("later")
    subjects = change(client, "a", "b")
    wait_for(lambda: client.webhooks.get("later").waiting == 2, what="both events waiting")
    with pytest.raises(ApiError) as refused:
        client.webhooks.test("later")
    assert problem(refused) == "webhook_paused"
    assert there.got == []
    client.webhooks.resume("later")
    assert [one.subject for one in there.wait_for(2)] == subjects


def test_a_ping_is_sent_at_once_and_tried_once(client: Client, there: Receiver) -> None:
    client.webhooks.create("pinged", there.url, ["model.*"])
    sent = client.webhooks.test("pinged")
    assert (sent.kind, sent.subject, sent.state, sent.status_code) == ("webhook.pinged", "webhook/pinged", "delivered", 200)
    there.statuses = [503]
    sent = client.webhooks.test("pinged")
    assert (sent.state, sent.attempts, sent.status_code) == ("dead", 1, 503)
    assert len(there.got) == 2
    assert client.webhooks.get("pinged").failing_since is None


def test_a_receiver_that_is_not_there(client: Client, there: Receiver) -> None:
    client.webhooks.create("nobody", f"http://127.0.0.1:{free_port()}/x", ["token.*"])
    change(client, "a")

    def failed() -> Delivery | None:
        found = client.webhooks.deliveries("nobody").items
        return found[0] if found and found[0].attempts >= 2 and found[0].problem else None

    seen = wait_for(failed, what="two failed attempts")
    assert seen is not None
    assert seen.problem == "the receiver cannot be reached: Connection refused"
    assert client.webhooks.get("nobody").failing_since is not None
    client.webhooks.change("nobody", url=there.url)
    there.wait_for(1)
    assert settled(client, "nobody", "delivered")


# --- wrong input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "http://receiver.example@127.0.0.1/",
        "ftp://127.0.0.1/",
        "x",
        "https://[::1]/",
    ],
)
def test_urls_that_the_policy_refuses(client: Client, url: str) -> None:
    with pytest.raises(ApiError) as refused:
        client.webhooks.create("bad", url)
    assert problem(refused) == "egress_refused"
    assert client.webhooks.list().items == []


@pytest.mark.parametrize("kind", ["", "model", "*", "model.*.x", "Model.x", "model.registered\n", "x" * 200])
def test_kinds_that_are_none(client: Client, there: Receiver, kind: str) -> None:
    with pytest.raises(ApiError) as refused:
        client.webhooks.create("bad", there.url, [kind])
    assert problem(refused) == "invalid_document"


def test_names_are_taken_once_and_unknown_ones_said(client: Client, there: Receiver) -> None:
    client.webhooks.create("one", there.url)
    with pytest.raises(ApiError) as taken:
        client.webhooks.create("one", there.url)
    assert problem(taken) == "name_taken"
    for call in (client.webhooks.get, client.webhooks.test, client.webhooks.redeliver, client.webhooks.deliveries):
        with pytest.raises(ApiError) as unknown:
            call("other")
        assert problem(unknown) == "not_found"


@pytest.mark.parametrize("number", ["9" * 30, "x", "-1", "0"])
def test_deliveries_that_cannot_be(client: Client, there: Receiver, number: str) -> None:
    client.webhooks.create("one", there.url)
    with pytest.raises(ApiError) as refused:
        client.webhooks.delivery("one", number)  # type: ignore[arg-type]  # what a hand-made request may hold
    assert problem(refused) == "not_found"
    with pytest.raises(ApiError) as refused:
        client.webhooks.deliveries("one", after="x" + number)
    assert problem(refused) == "invalid_page"


def test_only_owners_see_webhooks(here: Plane, client: Client, there: Receiver) -> None:
    from hedgerow.sdk.connect import connect

    client.webhooks.create("mine", there.url)
    for role in ("contributor", "reader"):
        secret = client.tokens.create("other", role).secret
        with connect(client.transport.base_url, token=secret) as other:
            for call in (lambda: other.webhooks.list(), lambda: other.webhooks.create("x", there.url)):
                with pytest.raises(ApiError) as refused:
                    call()
                assert refused.value.status == 403
            assert other.events.list(limit=1).items, "events are for readers"


# --- giving up, and two databases --------------------------------------------------------------------------------------


@pytest.fixture(params=BACKENDS)
def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plane]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with plane(tmp_path, *QUICK, "--webhook-give-up-s", "1.5", database=url, environment=ALLOW) as made:
        yield made


def test_given_up_then_redelivered(impatient: Plane, there: Receiver) -> None:
    client = impatient.client
    client.webhooks.create("dead", there.url, ["token.*"])
    there.statuses = [500] * 100
    subjects = change(client, "a", "b")
    settled(client, "dead", "dead", 2)
    found = client.webhooks.get("dead")
    assert (found.waiting, found.dead) == (0, 2)
    assert client.webhooks.deliveries("dead", state="delivered").items == []
    there.statuses = []
    assert client.webhooks.redeliver("dead") == 2
    settled(client, "dead", "delivered", 2)
    assert there.subjects() == subjects
    (last, _) = client.webhooks.deliveries("dead", limit=2).items
    assert client.webhooks.redeliver("dead", last.event_number) == 1
    wait_for(lambda: len(there.subjects()) == 3, what="the redelivered event")
    assert there.got[-1].delivery == last.id
    page = client.webhooks.deliveries("dead", limit=1)
    rest = client.webhooks.deliveries("dead", limit=1, after=page.next)
    assert page.items[0].event_number > rest.items[0].event_number
    assert rest.next is None


# --- the controller dies -----------------------------------------------------------------------------------------------


def kill(process: RealProcess) -> None:
    process.kill()
    wait_for(lambda: not process.is_running, what="the end of the controller")


def test_killed_between_send_and_record_sends_the_same_delivery_again(tmp_path: Path, there: Receiver) -> None:
    with plane(tmp_path, *QUICK, environment=ALLOW) as made:
        made.client.webhooks.create("hook", there.url, ["token.*"])
        there.goes_on.clear()
        subjects = change(made.client, "a", "b")
        wait_for(lambda: there.asked, what="the receiver being asked")
        kill(made.controller)
        there.goes_on.set()
        wait_for(lambda: there.got, what="the receiver having taken it")
        (waits, _) = made.client.webhooks.deliveries("hook", state="waiting").items
        assert waits.state == "waiting"
        made.start_controller()
        got = there.wait_for(3, timeout_s=30)
        assert [one.subject for one in got] == [subjects[0], subjects[0], subjects[1]]
        assert got[0].delivery == got[1].delivery
        assert got[0].body == got[1].body
        found = settled(made.client, "hook", "delivered", 2)
        assert [one.attempts for one in found] == [1, 2]


def test_a_controller_stops_while_a_receiver_hangs(tmp_path: Path, there: Receiver) -> None:
    with plane(tmp_path, "--webhook-timeout-s", "60", environment=ALLOW) as made:
        made.client.webhooks.create("hook", there.url, ["token.*"])
        there.goes_on.clear()
        change(made.client, "a")
        wait_for(lambda: there.asked, what="the receiver being asked")
        made.controller.stop(grace_s=8)
        assert "Traceback" not in made.controller.log_text()


def test_a_controller_without_webhooks_has_no_thread_for_them(tmp_path: Path, there: Receiver) -> None:
    with plane(tmp_path, environment=ALLOW) as made:
        change(made.client, "a")
        status = Path(f"/proc/{made.controller.pid}/task")
        before = len(list(status.iterdir()))
        made.client.webhooks.create("hook", there.url)
        there.wait_for(1)
        wait_for(lambda: len(list(status.iterdir())) == before + 1, what="only the dispatcher being left when all is sent")
