"""The pages: an overview, a list of each kind, a page for each thing. They read the store and change nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, render_template, request

from hedgerow.contracts.names import Reference, check_known_name
from registry.hub.desired import read_envelope
from registry.server.http import context, needs
from registry.server.studio import asking, concerns, courses, reading, weights, words
from registry.store import activities, events, fleet, images, models, runs, services, telemetry, twins

PAGE = 50
_MESSAGES, _EVENTS, _POINTS = 20, 20, 2000
# Messages that the courses of a device's page are drawn from, and gaps shown below them.
_DRAWN, _GAPS = 1000, 10


def routes() -> Blueprint:
    """The routes of this module, and the filters of its templates."""
    blueprint = Blueprint("pages", __name__)
    blueprint.get("/")(overview)
    blueprint.get("/models")(list_models)
    blueprint.get("/models/<reference>")(show_model)
    blueprint.get("/images")(list_images)
    blueprint.get("/images/<reference>")(show_image)
    blueprint.get("/services")(list_services)
    blueprint.get("/services/<name>")(show_service)
    blueprint.get("/devices")(list_devices)
    blueprint.get("/devices/<name>")(show_device)
    blueprint.get("/runs")(list_runs)
    blueprint.get("/runs/<run_id>")(show_run)
    blueprint.get("/activities")(list_activities)
    blueprint.get("/activities/<activity_id>")(show_activity)
    blueprint.get("/events")(list_events)
    filters = (words.ago, words.exact, words.lasted, words.short_digest, words.size, words.number, words.tone, words.polyline)
    for function in (*filters, words.page_of, words.page_of_subject, _from_ms):
        blueprint.add_app_template_filter(function, function.__name__.strip("_"))
    return blueprint


@needs("reader")
def overview() -> Response:
    return _page("overview.html", seen=reading.overview(context()))


@needs("reader")
def list_models() -> Response:
    asked = asking.kept(request.args, asking.MODEL_FIELDS)
    with context().database.read() as connection:
        found, following = models.find(connection, asking.model_query(asked), PAGE, _after())
    return _page("models.html", found=found, following=following, asked=asked, kept=asking.query_text(asked))


@needs("reader")
def show_model(reference: str) -> Response:
    with context().database.read() as connection:
        model = models.get(connection, Reference.parse(reference))
        versions, _ = models.newest(connection, reading.SHOWN, name=model.name)
        made_of, used_by = reading.lineage_of(connection, f"model:{model.name}:{model.version}", context().clock.now())
    return _page("model.html", model=model, versions=versions, made_of=made_of, used_by=used_by)


@needs("reader")
def list_images() -> Response:
    with context().database.read() as connection:
        found, following = images.newest(connection, PAGE, _after())
    return _page("images.html", found=found, following=following)


@needs("reader")
def show_image(reference: str) -> Response:
    with context().database.read() as connection:
        image = images.get(connection, Reference.parse(reference))
        made_of, used_by = reading.lineage_of(connection, f"image:{image.name}:{image.version}", context().clock.now())
    registry = context().settings.url.partition("://")[2]
    layers = weights.weights_of(context(), image)
    return _page("image.html", image=image, made_of=made_of, used_by=used_by, registry=registry, weights=layers)


@needs("reader")
def list_services() -> Response:
    with context().database.read() as connection:
        found, following = services.newest(connection, PAGE, _after())
    return _page("services.html", found=found, following=following)


@needs("reader")
def show_service(name: str) -> Response:
    with context().database.read() as connection:
        endpoint = services.get(connection, name)
    return _page("service.html", endpoint=endpoint)


@needs("reader")
def list_devices() -> Response:
    here = context()
    asked = asking.kept(request.args, asking.DEVICE_FIELDS)
    now = here.clock.now()
    with here.database.read() as connection:
        found, following = fleet.page(connection, PAGE, _after(), now, asking.device_query(asked))
        health = concerns.fleet_health(connection, now)
        rolled = reading.rollouts_of_interest(connection)
    kept = asking.query_text(asked)
    return _page("devices.html", found=found, following=following, asked=asked, kept=kept, health=health, rollouts=rolled)


@needs("reader")
def show_device(name: str) -> Response:
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        envelope = twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
        happened = fleet.events_before(connection, _EVENTS, device_uuid=device.uuid)
    with here.database.read_series() as connection:
        rows = telemetry.newest(connection, _DRAWN, device_uuid=device.uuid)
        gaps = telemetry.recorded_gaps(connection, _GAPS, device_uuid=device.uuid)
    return _page(
        "device.html",
        courses=courses.courses_of((row.module, row.time_ms, row.body) for row in rows),
        gaps=gaps,
        device=device,
        desired=None if envelope is None else read_envelope(envelope),
        events=happened,
        messages=reading.messages_of(rows[-_MESSAGES:], {device.uuid: device.name}),
    )


@needs("reader")
def list_runs() -> Response:
    with context().database.read() as connection:
        found, following = runs.newest(connection, PAGE, _after())
    return _page("runs.html", found=found, following=following)


@needs("reader")
def show_run(run_id: str) -> Response:
    here = context()
    with here.database.read() as connection:
        run = runs.get(connection, run_id)
    series: dict[str, list[float]] = {}
    with here.database.read_series() as connection:
        for point in runs.points(connection, run_id, _POINTS)[0]:
            series.setdefault(point.name, []).append(point.value)
    return _page("run.html", run=run, series=series)


@needs("reader")
def list_activities() -> Response:
    with context().database.read() as connection:
        found = activities.newest(connection, PAGE + 1, _after())
    return _page("activities.html", found=found[:PAGE], following=found[PAGE - 1].id if len(found) > PAGE else None)


@needs("reader")
def show_activity(activity_id: str) -> Response:
    with context().database.read() as connection:
        activity = activities.get(connection, activity_id)
        lines = activities.events_after(connection, activity_id, 0)
    return _page("activity.html", activity=activity, events=lines)


@needs("reader")
def list_events() -> Response:
    """Who did what, newest first."""
    asked = asking.kept(request.args, asking.EVENT_FIELDS)
    after = _after()
    before = None if after is None else events.Cursor.parse(after)
    with context().database.read() as connection:
        if before is not None:
            events.check_life(connection, before)
        found = events.newest(connection, before, asking.event_query(asked), PAGE + 1)
    following = found[PAGE - 1].cursor if len(found) > PAGE else None
    kept = asking.query_text(asked)
    return _page("events.html", found=found[:PAGE], following=following, asked=asked, kept=kept)


def _page(template: str, **values: object) -> Response:
    return Response(render_template(template, now=context().clock.now(), **values), mimetype="text/html")


def _after() -> str | None:
    return request.args.get("after") or None


def _from_ms(time_ms: int) -> datetime | None:
    """None for a time that no calendar holds: a device's clock may be anywhere."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
