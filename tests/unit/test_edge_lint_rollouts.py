"""What lint and the reader say of a rollout's policy."""

from __future__ import annotations

from typing import Any

import pytest

from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.contracts.rollout import RolloutGroup, RolloutPolicy
from hedgerow.errors import InvalidDocument
from hedgerow.sdk.edge_lint.lint import lint


def written(*groups: dict[str, Any], **module: Any) -> dict[str, Any]:
    module = {"command": ["x"], "limits": {"memory_bytes": 1_000_000}, **module}
    return {"target": "*", "priority": 1, "modules": {"m": module}, "rollout": {"groups": list(groups)}}


@pytest.mark.parametrize(
    ("groups", "level", "place"),
    [
        ([{"percent": 10, "devices": 1}], "error", "$.rollout.groups[0]"),
        ([{"percent": 10}, {"target": "site = 1"}], "error", "$.rollout.groups[1].target"),
        ([{"name": "all"}, {"percent": 10}], "warning", "$.rollout.groups[1]"),
        ([{"percent": 10, "timeout_s": 60}], "warning", "$.rollout.groups[0].timeout_s"),
        ([{"persent": 10}], "error", "$.rollout.groups[0].persent"),
    ],
)
def test_traps_of_a_policy(groups: list[dict[str, Any]], level: str, place: str) -> None:
    found = [one for one in lint(written(*groups)) if one.level != "note"]
    assert [(one.level, one.place) for one in found] == [(level, place)]


def test_a_policy_without_traps() -> None:
    good = written({"percent": 10, "timeout_s": 60}, {"target": "tags.a = 'b'"}, update={"commit_after_s": 5})
    assert [one for one in lint(good) if one.level != "note"] == []
    deployment, _ = read_manifest(good)
    assert deployment.rollout == RolloutPolicy(
        groups=[RolloutGroup(percent=10, timeout_s=60), RolloutGroup(target="tags.a = 'b'")], on_error="pause"
    )


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="on_errors"):
        read_manifest({**written(), "rollout": {"groups": [{}], "on_errors": "reverse"}})
