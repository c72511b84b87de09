"""What a shell offers while an argument is typed: names from the running workspace, or nothing, at once and in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client

_TIMEOUT_S = 1.5
_MOST = 200
# Of images of kind fpga, as `contracts/image.py` has them.
STAGES = ("pre", "accelerated", "post")


def models(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Names of models that begin with what was typed; behind ``NAME@`` its aliases."""
    return _offered(context, lambda client: _models(client, typed))


def model_files(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Files of the model that the command names."""
    # While an option lacks its value, click leaves the arguments before it where they were.
    reference = context.params.get("reference") or next(iter(context.args), None)
    if not isinstance(reference, str):
        return []
    return _offered(context, lambda client: _begun((one.path for one in client.models.get(reference).files), typed))


def environments(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: (one.name for one in client.environments.list(_MOST, name=_begins(typed)).items))


def images(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: (one.name for one in client.images.list(_MOST, name=_begins(typed)).items))


def services(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: (one.name for one in client.services.list(_MOST, name=_begins(typed)).items))


def devices(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: (one.name for one in client.devices.list(_MOST, name=_begins(typed)).items))


def enrollment_keys(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Ids of keys that are not revoked."""
    return _offered(
        context,
        lambda client: _begun((one.id for one in client.enrollment_keys.list(_MOST).items if one.revoked_at is None), typed),
    )


def edge_deployments(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: (one.name for one in client.edge.list(_MOST, name=_begins(typed)).items))


def secrets(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: _begun((one.name for one in client.secrets.list(_MOST).items), typed))


def secret_pairs(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Behind ``KEY=`` the names of secrets."""
    key, equals, begun = typed.partition("=")
    return [f"{key}={name}" for name in secrets(context, parameter, begun)] if equals else []


def stage_pairs(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """``STAGE=``, and behind it models."""
    stage, equals, begun = typed.partition("=")
    if equals:
        return [f"{stage}={name}" for name in models(context, parameter, begun)]
    return [f"{one}=" for one in STAGES if one.startswith(typed)]


def webhooks(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: _begun((one.name for one in client.webhooks.list(_MOST).items), typed))


def runs(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return _offered(context, lambda client: _begun((one.id for one in client.runs.list(limit=_MOST).items), typed))


def _models(client: Client, typed: str) -> Iterable[str]:
    name, at, begun = typed.partition("@")
    if at:
        return (f"{one.name}@{one.alias}" for one in client.models.aliases(name) if one.alias.startswith(begun))
    return (one.name for one in client.models.list(_begins(typed), _MOST, newest=True).items)


def _begins(typed: str) -> str | None:
    return f"{typed}*" if typed else None


def _begun(names: Iterable[str], typed: str) -> Iterable[str]:
    return (name for name in names if name.startswith(typed))


def _offered(context: click.Context, ask: Callable[[Client], Iterable[str]]) -> list[str]:
    from hedgerow.errors import HedgerowError
    from hedgerow.sdk.connect import connect

    root = context.find_root()
    try:
        with connect(root.obj or root.params.get("where"), start=False) as client:
            client.transport.hurry(_TIMEOUT_S)
            return sorted(set(ask(client)))
    except (HedgerowError, OSError):
        return []  # whoever presses the tabulator wants no error message
