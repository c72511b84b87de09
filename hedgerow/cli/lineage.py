"""``hedgerow lineage``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import plain, print_json, short

if TYPE_CHECKING:
    from hedgerow.contracts.lineage import Direction, Lineage, LineageNode, NodeKind

_KINDS = ("data", "commit", "run", "environment", "model", "image", "deployment", "edge-deployment", "module", "device")
# What is said of each thing in one line; the rest is in --json.
_SHOWN = ("state", "framework", "kind", "desired_image", "target", "branch", "seen_at")


@click.command("lineage")
@click.argument("thing", metavar="KIND:NAME")
@click.option("--up", "up", is_flag=True, help="Only what it was made from.")
@click.option("--down", "down", is_flag=True, help="Only what was made from it.")
@click.option("--only", multiple=True, type=click.Choice(_KINDS), help="Only things of this kind, as a list; repeatable.")
@click.option("--depth", type=click.IntRange(0, len(_KINDS)), help="How many links away at most.")
@click.option("--limit", default=500, show_default=True, type=click.IntRange(1, 5000), help="How many things at most.")
@json_option
def command(thing: str, up: bool, down: bool, only: tuple[str, ...], depth: int | None, limit: int, as_json: bool) -> None:
    """Where something comes from, and where it went.

    \b
    KIND:NAME is one of
      data:NAME  data:sha256:…  commit:4f1c2a9  run:ID
      model:NAME[:VERSION|@ALIAS]  environment:NAME[:VERSION]
      image:NAME[:VERSION]  image@sha256:…
      deployment:ENDPOINT/NAME  edge-deployment:NAME
      module:DEVICE/MODULE  device:NAME
    """
    if only and depth is not None:
        raise click.UsageError("With --only distance does not count; leave --depth out.")
    direction: Direction = "up" if up and not down else "down" if down and not up else "both"
    show_lineage(thing, direction, cast("tuple[NodeKind, ...]", only), depth, limit, as_json)


def show_lineage(
    thing: str,
    direction: Direction = "both",
    only: tuple[NodeKind, ...] = (),
    depth: int | None = None,
    limit: int = 500,
    as_json: bool = False,
) -> None:
    """Ask the workspace and print a tree, a list (with ``only``) or JSON."""
    with workspace() as client:
        if only:
            found = client.lineage.reach(thing, direction, only, limit=limit)
        else:
            found = client.lineage.of(thing, direction, depth=depth, limit=limit)
    if as_json:
        print_json(found)
        return
    for line in list_lines(found) if only else tree_lines(found, direction):
        click.echo(plain(line))
    if found.truncated:
        click.echo(f"There is more: ask with --limit above {limit}, or for one kind with --only.", err=True)


def list_lines(found: Lineage) -> Iterator[str]:
    """What was found, one thing a line, without the beginning."""
    nodes = [node for node in found.nodes if node.id != found.root]
    yield from (_line(node) for node in nodes)
    if not nodes:
        yield "None."


def tree_lines(found: Lineage, direction: Direction) -> Iterator[str]:
    """The beginning, below it what it was made from and what was made from it; what was shown once is not shown again."""
    nodes = {node.id: node for node in found.nodes}
    ways: dict[str, dict[str, list[str]]] = {"made from": {}, "went into": {}}
    for edge in found.edges:
        ways["made from"].setdefault(edge.target, []).append(edge.source)
        ways["went into"].setdefault(edge.source, []).append(edge.target)
    yield _line(nodes[found.root])
    for title, step in (("made from", "up"), ("went into", "down")):
        if direction in (step, "both"):
            branches = list(_branches(found.root, ways[title], nodes, "  ", {found.root}))
            yield f"{title}:" if branches else f"{title}: nothing recorded"
            yield from branches


def _branches(
    of: str, following: Mapping[str, list[str]], nodes: Mapping[str, LineageNode], indent: str, shown: set[str]
) -> Iterator[str]:
    # As deep as there are kinds: the graph has no cycles.
    for near in sorted(set(following.get(of, []))):
        again = near in shown and near in following
        yield f"{indent}{_line(nodes[near])}{' (see above)' if again else ''}"
        if near not in shown:
            shown.add(near)
            yield from _branches(near, following, nodes, f"{indent}  ", shown)


def _line(node: LineageNode) -> str:
    digest = node.facts.get("digest") or node.facts.get("desired_digest")
    said = [short(digest)] if digest and node.kind != "data" else []
    said += [node.facts[fact] for fact in _SHOWN if fact in node.facts]
    said += [f"{name.partition('.')[2]}={value}" for name, value in node.facts.items() if name.startswith("metrics.")][:5]
    name = f"{node.name} {node.id.removeprefix('data:')}" if node.kind == "data" and node.id != f"data:{node.name}" else node.name
    gone = " DELETED" if node.deleted else ""
    return f"{node.kind} {name}{gone}" + (f"  {' '.join(said)}" if said else "")
