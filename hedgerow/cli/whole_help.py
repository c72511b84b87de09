"""Groups whose ``--help`` says the whole first sentence of each command: click itself cuts what does not fit into one line."""

from __future__ import annotations

import click

_LONGEST = 500


class WholeHelp(click.Group):
    """A group, and the groups below it, with command lists that wrap instead of ending in dots."""

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_LONGEST)) for name, one in found if one is not None and not one.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
