"""An error as a page, for people who came with a browser."""

from __future__ import annotations

from flask import Response, render_template

from hedgerow.contracts.work import Problem


def response(problem: Problem, status: int) -> Response:
    """What happened and what to do; without a credential that is the login page."""
    template = "login.html" if status == 401 else "error.html"
    return Response(render_template(template, problem=problem, status=status), status, mimetype="text/html")
