"""``/metrics`` for Prometheus: what the workspace holds, the fleet, and how requests fare.

Open on loopback, where a Prometheus on the same machine scrapes it; elsewhere it needs a token like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy import Connection, func, select

from registry.server.api_fleet import collect_metrics
from registry.server.context import ServerContext
from registry.server.guard import is_loopback
from registry.server.http import context, needs
from registry.server.refusals import Refusals
from registry.store.tables import activities, image_versions, model_versions
from registry.store.versions import count_there

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
_ACTIVITY_STATES = ("queued", "running", "succeeded", "failed", "cancelled")


def install(app: Flask, here: ServerContext) -> None:
    """Count and time every request of ``app``, and answer ``/metrics``."""
    registry = CollectorRegistry()
    requests = Counter("hedgerow_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry)
    seconds = Histogram(
        "hedgerow_http_request_seconds", "Until the answer began.", ["route"], buckets=_BUCKETS_S, registry=registry
    )
    registry.register(_WorkspaceCollector(here))
    refusals = Refusals(here.clock)
    registry.register(_RefusalsCollector(refusals))

    @app.before_request
    def note_start() -> None:
        g.started_s = here.clock.monotonic_s()

    @app.after_request
    def count(response: Response) -> Response:
        # Routes, never paths: a scanner must not be able to make one time series per guess.
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        requests.labels(method, route, str(response.status_code)).inc()
        if "refused_as" in g:
            refusals.note(g.refused_as, method, route, request.remote_addr or "this machine")
        if "started_s" in g:
            seconds.labels(route).observe(here.clock.monotonic_s() - g.started_s)
        return response

    def show() -> Response:
        return Response(generate_latest(registry), content_type=_CONTENT_TYPE)

    guarded = needs("reader")(show)
    blueprint = Blueprint("metrics", __name__)
    blueprint.add_url_rule("/metrics", "metrics", lambda: show() if _from_this_machine() else guarded())
    app.register_blueprint(blueprint)


def _from_this_machine() -> bool:
    settings = context().settings
    # Without an address the request came over the Unix socket, whose folder is the owner's.
    remote = request.remote_addr or "127.0.0.1"
    return not settings.behind_proxy and is_loopback(settings.host) and is_loopback(remote)


class _WorkspaceCollector:
    """Asks the database at scrape time: gauges can never drift from the records."""

    def __init__(self, here: ServerContext) -> None:
        self._here = here

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        with self._here.database.read() as connection:
            yield _gauge("hedgerow_models", "Model versions.", count_there(connection, model_versions))
            yield _gauge("hedgerow_images", "Image versions.", count_there(connection, image_versions))
            yield _activity_gauge(connection)
        yield from collect_metrics(self._here)


class _RefusalsCollector:
    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        metric = CounterMetricFamily("hedgerow_refused_requests", "Requests refused for who sent them.", labels=["reason"])
        for reason, number in sorted(self._refusals.counts().items()):
            metric.add_metric([reason], number)
        yield metric


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _activity_gauge(connection: Connection) -> Metric:
    metric = GaugeMetricFamily("hedgerow_activities", "Activities by state.", labels=["state"])
    counted = select(activities.c.state, func.count().label("number")).group_by(activities.c.state)
    found = {row.state: row.number for row in connection.execute(counted)}
    for state in _ACTIVITY_STATES:
        metric.add_metric([state], found.get(state, 0))
    return metric
