"""Every route of the API is an operation, every change is made once, every list has its pages, every argument is declared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.routing import Rule

from registry.server.app import add_routes
from registry.server.openapi import addresses
from registry.server.openapi.document import NOUNS, Route, routes
from registry.server.openapi.promises import names_used_by
from registry.server.operation import PAGE, operation_of
from scripts.inventory import TOP

APP = Flask("test")
add_routes(APP)
RULES = [rule for rule in APP.url_map.iter_rules() if rule.rule.startswith(addresses.API)]
ROUTES = routes(APP)
HANDLERS = sorted((TOP / "registry" / "server").glob("api_*.py"))

# One only asks (its question does not fit into an address); the other is no decision of anybody, a thousand times a minute.
QUIET = frozenset({"ask_for_blobs", "log_to_run"})


def _rule_id(rule: Rule) -> str:
    return f"{'-'.join(sorted(rule.methods or ()))} {rule.rule}"


@pytest.mark.parametrize("rule", RULES, ids=_rule_id)
def test_every_route_is_an_operation(rule: Rule) -> None:
    assert operation_of(APP, rule.endpoint) is not None, "decorate its handler with @operation"


def test_names_of_operations_are_unique() -> None:
    names = [route.id for route in ROUTES]
    assert sorted(names) == sorted(set(names))


def test_every_noun_has_its_sentence() -> None:
    assert {route.noun for route in ROUTES} <= NOUNS.keys()


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "get"], ids=lambda route: route.id)
def test_every_change_is_made_once(route: Route) -> None:
    assert route.promises.once, "make the change in write_once(...), called by the handler itself"
    assert "tell" in names_used_by(route.handler) or route.id in QUIET, "record an event with tell(...)"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_pages_are_declared_where_they_are_read(route: Route) -> None:
    if route.promises.paged:
        assert route.operation.query[: len(PAGE)] == PAGE


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_handlers_read_arguments_through_their_declaration(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reads = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "args"
        and isinstance(node.value, ast.Name)
        and node.value.id == "request"
    ]
    assert not reads, f"use registry.server.arguments instead of request.args (lines {reads})"
