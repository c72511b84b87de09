"""``/api/v1/lineage``: what something was made from and what was made from it."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response

from hedgerow.contracts.lineage import Direction, Lineage, NodeKind
from registry.errors import AmbiguousCommit, InvalidLineageId
from registry.server import arguments
from registry.server.errors import InvalidArgument
from registry.server.http import answer, context
from registry.server.operation import QueryField, operation
from registry.store import lineage
from registry.store.lineage_graph import KINDS

DEFAULT_NODES, MOST_NODES = 500, 5000

_QUERY = (
    QueryField("of", "where to begin: model:NAME:VERSION, data:sha256:…, commit:4f1c2a9, module:DEVICE/MODULE, …"),
    QueryField("direction", "up (made from), down (made of it) or both; both if absent", choices=("up", "down", "both")),
    QueryField("depth", "how many links away at most", "integer", most=lineage.DEEPEST),
    QueryField("limit", f"how many things at most; {DEFAULT_NODES} if absent", "integer", least=1, most=MOST_NODES),
    QueryField("only", "only things of this kind, however far away, without the links between", repeated=True, choices=KINDS),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("lineage", __name__, url_prefix="/api/v1/lineage")
    blueprint.get("")(show_lineage)
    return blueprint


@operation(
    "Show where something comes from and where it went",
    "reader",
    scope="lineage",
    result=Lineage,
    query=_QUERY,
    errors=(InvalidLineageId, AmbiguousCommit),
)
def show_lineage() -> Response:
    """One graph of nodes and edges, the nearest first; ``truncated`` when there is more than ``limit``.

    What an owner deleted although it was used is marked ``deleted``. With ``only`` the answer has no edges, and its nodes are
    the beginning and everything of those kinds that can be reached.
    """
    here = context()
    of = arguments.text("of")
    if of is None:
        raise InvalidArgument(name="of", value="", hint="Name something, for example of=model:iris:3.")
    direction = cast(Direction, arguments.text("direction") or "both")
    only = cast("list[NodeKind]", arguments.texts("only"))
    depth, limit = arguments.integer("depth"), arguments.integer("limit") or DEFAULT_NODES
    if only and depth is not None:
        raise InvalidArgument(name="depth", value=str(depth), hint="With `only` distance does not count; leave one of them out.")
    now = here.clock.now()
    with here.database.read() as connection:
        if only:
            found = lineage.reach(connection, of, direction=direction, only=only, limit=limit, now=now)
        else:
            found = lineage.walk(
                connection, of, direction=direction, depth=lineage.DEEPEST if depth is None else depth, limit=limit, now=now
            )
    return answer(found)
