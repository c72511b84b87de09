"""What a shell offers while an argument is typed: names from the running workspace, or nothing, at once and in silence."""

from __future__ import annotations

import click

_TIMEOUT_S = 1.5
_MOST = 200


def models(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Names of models that begin with what was typed; behind ``NAME@`` its aliases."""
    from hedgerow.errors import HedgerowError
    from hedgerow.sdk.connect import connect

    root = context.find_root()
    try:
        with connect(root.obj or root.params.get("where"), start=False) as client:
            client.transport.hurry(_TIMEOUT_S)
            name, at, begun = typed.partition("@")
            if at:
                return [f"{one.name}@{one.alias}" for one in client.models.aliases(name) if one.alias.startswith(begun)]
            found = client.models.list(f"{typed}*" if typed else None, _MOST, newest=True).items
            return sorted({one.name for one in found})
    except (HedgerowError, OSError):
        return []  # whoever presses the tabulator wants no error message
