"""What a token with scopes may reach, decided here for every route: what nothing allows is refused.

A scope names a noun and a record (``models:iris``), the beginning of names (``models:team-a.*``) or all (``models:*``).
A route is open to such a token when it declares the noun and

- the record that its address names matches; or
- it lists, and the filter by name matches (otherwise only ``NOUN:*`` will do); or
- it makes something, and the handler asked :func:`check` for the name before the change was committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flask import Request, g
from sqlalchemy import select

from registry.errors import ScopeForbids
from registry.server.context import Caller, ServerContext
from registry.store.tables import activities, runs

# Of a route that any token may call, whatever its scopes.
OPEN = "*"
NOUNS = (
    "activities", "devices", "edge-deployments", "endpoints", "environments", "events", "images", "lineage", "models",
    "runs", "secrets", "telemetry", "workspace",
)  # fmt: skip
# What the first argument of an address is called where it names the record; what queries call it in a list.
_FIRST = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_RECORD = ("reference", "name", "endpoint", "run_id", "activity_id")
_FILTERS = {"runs": ("experiment",), "telemetry": ("device",), "devices": ("name", "device")}
_FILTER = re.compile(r"[a-z0-9._-]+\*?")
# Files are uploaded for records of these and read through those records only, so no scope names "blobs" itself.
_HAVE_FILES = ("models", "images", "runs")
_ABOUT = {
    "image.build": "images",
    "image.push": "images",
    "model.convert": "models",
    "service.deploy": "endpoints",
    "run": "runs",
}


def allows(scopes: Iterable[str], noun: str, name: str) -> bool:
    """Whether one of ``scopes`` covers the record ``name``, or all records whose names begin like ``name`` with its star."""
    for scope in scopes:
        scoped, _, pattern = scope.partition(":")
        if scoped == noun and (name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))):
            return True
    return False


def check(who: Caller, noun: str, name: str) -> None:
    """``name`` may be a reference, whose name part counts. Raises ScopeForbids."""
    record = re.split("[:@]", name, maxsplit=1)[0]
    if who.scopes and not allows(who.scopes, noun, record):
        raise _refusal(who, f"{noun}:{record[:128]}")
    if g.get("unchecked_scope") == noun:
        g.unchecked_scope = None


def check_run(here: ServerContext, who: Caller, run_id: str) -> None:
    """That ``who`` may build upon a run: a scope covers its experiment. Raises ScopeForbids, also for one that is not there."""
    if who.scopes:
        noun, experiment = _named(here, "runs", run_id)
        if not (experiment and allows(who.scopes, noun, experiment)):
            raise _refusal(who, "runs:EXPERIMENT of that run")


def check_route(here: ServerContext, who: Caller, request: Request, noun: str) -> None:
    """Raises ScopeForbids unless the scopes of ``who`` open this route, or leave it to its handler to say what it makes."""
    g.unchecked_scope = None
    if not who.scopes or noun == OPEN or (noun and f"{noun}:*" in who.scopes):
        return
    if noun == "blobs":
        _check_blobs(who, request)
    elif request.view_args:
        _check_record(here, who, _record_of(request), noun)
    elif request.method in ("GET", "HEAD"):
        _check_list(who, request, noun)
    else:
        g.unchecked_scope = noun or "everything"


def check_was_asked(who: Caller) -> None:
    """Raises ScopeForbids when a handler that makes something did not ask :func:`check`; before its commit."""
    if who.scopes and g.get("unchecked_scope"):
        raise _refusal(who, f"{g.unchecked_scope}:*")


def _check_blobs(who: Caller, request: Request) -> None:
    has_files = any(scope.startswith(tuple(f"{noun}:" for noun in _HAVE_FILES)) for scope in who.scopes)
    if request.method in ("GET", "HEAD") or not has_files:
        raise _refusal(who, "files by digest")


def _record_of(request: Request) -> str:
    """The name, reference or id that the address names first; empty for anything else, which no scope covers."""
    found = _FIRST.search(request.url_rule.rule if request.url_rule else "")
    return str((request.view_args or {}).get(found[1], "")) if found and found[1] in _RECORD else ""


def _check_record(here: ServerContext, who: Caller, record: str, noun: str) -> None:
    name = re.split("[:@]", record, maxsplit=1)[0]
    wanted = (noun, name)
    if noun in ("runs", "activities"):
        wanted = _named(here, noun, record)
    if not (wanted[1] and allows(who.scopes, *wanted)):
        raise _refusal(who, f"{noun}:{name[:128]}" if noun and name else "everything")


def _named(here: ServerContext, noun: str, record: str) -> tuple[str, str]:
    """Runs and activities have ids: what counts is the run's experiment, and what the activity works on."""
    with here.database.read() as connection:
        if noun == "activities":
            row = connection.execute(
                select(activities.c.kind, activities.c.subject).where(activities.c.id == record)
            ).one_or_none()
            noun, record = ("", "") if row is None else (_ABOUT.get(row.kind, ""), row.subject.partition("/")[0])
        if noun == "runs":
            record = connection.execute(select(runs.c.experiment).where(runs.c.id == record)).scalar_one_or_none() or ""
    return noun, record


def _check_list(who: Caller, request: Request, noun: str) -> None:
    asked = [value for argument in _FILTERS.get(noun, ("name",)) for value in request.args.getlist(argument)]
    if not asked or not all(_FILTER.fullmatch(name) and allows(who.scopes, noun, name) for name in asked):
        raise _refusal(who, f"{noun}:*" if noun else "everything")


def _refusal(who: Caller, wanted: str) -> ScopeForbids:
    return ScopeForbids(wanted=wanted, scopes=", ".join(who.scopes)[:300])
