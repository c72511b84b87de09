"""Command lists of groups with many words are whole at 80 columns."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from hedgerow.cli import device, device_certificate, device_key, edge, edge_keys, edge_release, edge_rollout

GROUPS = [
    device.command,
    device_certificate.command,
    device_key.key,
    edge.command,
    edge_keys.command,
    edge_release.command,
    edge_rollout.command,
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(group.name))
def test_no_command_of_the_group_is_cut(group: click.Group) -> None:
    shown = CliRunner().invoke(group, ["--help"], terminal_width=80, max_content_width=80).output
    listed = shown.split("Commands:\n")[1]
    assert not [line for line in listed.splitlines() if line.endswith("...")]
    assert max(map(len, listed.splitlines())) <= 80
    for name in group.commands:
        assert f"  {name}" in listed
