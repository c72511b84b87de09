"""The tree that ``hedgerow lineage`` draws."""

from __future__ import annotations

from typing import get_args

from hedgerow.cli.lineage import _KINDS, list_lines, tree_lines
from hedgerow.contracts.lineage import Lineage, LineageEdge, LineageNode, NodeKind

DIGEST = "sha256:" + "ab" * 32


def graph() -> Lineage:
    nodes = [
        LineageNode(id="model:iris:1", kind="model", name="iris:1", facts={"digest": DIGEST, "framework": "onnx"}),
        LineageNode(id="run:r", kind="run", name="r", facts={"state": "succeeded", "metrics.auc": "0.99"}),
        LineageNode(id=f"data:{DIGEST}", kind="data", name="flowers", facts={"digest": DIGEST}),
        LineageNode(id="image:i:1", kind="image", name="i:1", deleted=True),
        LineageNode(id="module:d/m", kind="module", name="d/m"),
        LineageNode(id="device:d", kind="device", name="d", facts={"state": "online"}),
    ]
    pairs = [
        ("run:r", "model:iris:1"),
        (f"data:{DIGEST}", "run:r"),
        (f"data:{DIGEST}", "model:iris:1"),
        ("model:iris:1", "image:i:1"),
        ("image:i:1", "module:d/m"),
        ("module:d/m", "device:d"),
    ]
    return Lineage(root="model:iris:1", nodes=nodes, edges=[LineageEdge(source=a, target=b) for a, b in pairs])


def test_the_tree_has_both_ways() -> None:
    assert list(tree_lines(graph(), "both")) == [
        "model iris:1  abababababab onnx",
        "made from:",
        f"  data flowers {DIGEST}",
        "  run r  succeeded auc=0.99",
        f"    data flowers {DIGEST}",
        "went into:",
        "  image i:1 DELETED",
        "    module d/m",
        "      device d  online",
    ]


def test_one_way_and_nothing() -> None:
    lonely = Lineage(root="device:d", nodes=[graph().nodes[-1]], edges=[])
    assert list(tree_lines(lonely, "down")) == ["device d  online", "went into: nothing recorded"]


def test_a_list_leaves_the_beginning_out() -> None:
    assert next(list_lines(graph())) == "run r  succeeded auc=0.99"
    assert list(list_lines(Lineage(root="device:d", nodes=[graph().nodes[-1]], edges=[]))) == ["None."]


def test_the_command_knows_every_kind() -> None:
    assert set(_KINDS) == set(get_args(NodeKind))
