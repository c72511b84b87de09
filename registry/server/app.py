"""The Flask application of one server: guard, routes, errors. Takes a ServerContext; starts nothing."""

from __future__ import annotations

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from registry.server import (
    api_activities,
    api_backup,
    api_blobs,
    api_conversions,
    api_device_certificates,
    api_enrollment,
    api_environments,
    api_events,
    api_fleet,
    api_gc,
    api_image_pushes,
    api_image_referrers,
    api_images,
    api_lineage,
    api_model_aliases,
    api_models,
    api_openapi,
    api_runs,
    api_secrets,
    api_services,
    api_signing_keys,
    api_tokens,
    api_webhooks,
    api_workspace,
    attempts,
    followers,
    guard,
    http,
    http_errors,
    metrics,
    oci,
    push_files,
    threads,
)
from registry.server.context import ServerContext
from registry.server.followers import Followers
from registry.server.push_files import PushFiles
from registry.server.studio import login, pages
from registry.server.threads import ThreadBudget

_API = (
    api_workspace,
    api_blobs,
    api_gc,
    api_backup,
    api_model_aliases,
    api_conversions,
    api_models,
    api_environments,
    api_images,
    api_image_pushes,
    api_image_referrers,
    api_lineage,
    api_activities,
    api_events,
    api_webhooks,
    api_tokens,
    api_secrets,
    api_services,
    api_runs,
    api_fleet,
    api_enrollment,
    api_device_certificates,
    api_signing_keys,
    api_openapi,
    oci,
    login,
    pages,
)


def create_app(here: ServerContext, news: Followers) -> Flask:
    """Everything that answers requests. ``news`` must be listening by the time a request for events comes."""
    app = Flask("registry.server", template_folder="studio/templates", static_folder="studio/static")
    app.extensions[http.EXTENSION] = here
    app.extensions[followers.EXTENSION] = news
    app.extensions[threads.EXTENSION] = ThreadBudget(here.settings.threads)
    app.extensions[attempts.EXTENSION] = attempts.Attempts(here.clock)
    app.extensions[push_files.EXTENSION] = PushFiles(here.workspace.pushes, here.settings.blob_lease_s)
    # No other site may ask what it may do here: there is no cross-origin anything.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # First in, last out: requests are timed around everything, and every answer is dressed, errors included.
    metrics.install(app, here)
    guard.install(app, here.settings)
    http_errors.install(app)
    add_routes(app)
    if here.settings.behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]  # Flask's documented way
    return app


def add_routes(app: Flask) -> None:
    """Every address there is. What describes them (``make golden``) needs no more of an application than that."""
    for module in _API:
        app.register_blueprint(module.routes())
