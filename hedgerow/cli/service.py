"""``hedgerow service``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.input import parse_json, read_text
from hedgerow.cli.options import FILTER, json_option, key_values, limit_option, workspace
from hedgerow.cli.output import ago, follow, pairs, print_json, print_page, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.service import Endpoint
    from hedgerow.sdk.services import ServiceState


@click.group("service")
def command() -> None:
    """Endpoints: deploy, score, traffic."""


@command.command()
@click.argument("endpoint")
@click.option("--image", required=True, metavar="REF", shell_complete=complete.images, help="The image to run.")
@click.option("--deployment", default="blue", show_default=True, help="Name of the deployment under the endpoint.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(0, 1000), help="How many to run.")
@click.option("--max-concurrent", default=8, show_default=True, type=click.IntRange(1), help="Requests at once per replica.")
@json_option
def deploy(endpoint: str, image: str, deployment: str, replicas: int, max_concurrent: int, as_json: bool) -> None:
    """Run an image behind ENDPOINT's stable URL."""
    from hedgerow.contracts.service import DeploymentSettings

    settings = DeploymentSettings(replicas=replicas, max_concurrent_requests=max_concurrent)
    with workspace() as client:
        activity = client.services.deploy(endpoint, image, deployment=deployment, settings=settings)
        follow(client, activity.id, f"deploying {endpoint}", quiet=as_json)
        found = client.services.get(endpoint)
    if as_json:
        print_json(found)
    else:
        click.echo(f"Deployed {endpoint}/{deployment}: {found.scoring_url}")


@command.command("list")
@click.option("--name", type=FILTER, shell_complete=complete.services, help="Only this one; 'team-*': names that begin so.")
@click.option(
    "--state", type=click.Choice(["starting", "ready", "degraded", "failed"]), help="Only with a deployment in this state."
)
@limit_option
@json_option
def list_services(name: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """By name."""
    with workspace() as client:
        page = client.services.list(limit, name=name, state=cast("ServiceState | None", state))
    columns: dict[str, Callable[[Endpoint], object]] = {
        "endpoint": lambda e: e.name,
        "deployments": lambda e: len(e.deployments),
        "traffic": lambda e: pairs(e.traffic),
        "url": lambda e: e.scoring_url,
        "created": lambda e: ago(e.created_at),
    }
    empty = "No service fits." if name or state else "No services yet: hedgerow service deploy NAME --image REF"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


@command.command()
@click.argument("endpoint", shell_complete=complete.services)
@json_option
def show(endpoint: str, as_json: bool) -> None:
    """An endpoint with its deployments and replicas."""
    with workspace() as client:
        found = client.services.get(endpoint)
    if as_json:
        print_json(found)
        return
    print_record({"endpoint": found.name, "url": found.scoring_url, "traffic": pairs(found.traffic)})
    rows = [
        (d.name, d.state, f"{d.image.name}:{d.image.version}", r.name, r.state, r.address, r.restarts, r.reason or d.reason)
        for d in found.deployments
        for r in d.replicas
    ]
    print_table(("deployment", "state", "image", "replica", "state", "address", "restarts", "reason"), rows, "No replicas.")


@command.command()
@click.argument("endpoint", shell_complete=complete.services)
@click.argument("shares", nargs=-1, required=True, callback=key_values, metavar="DEPLOYMENT=PERCENT…")
@json_option
def traffic(endpoint: str, shares: dict[str, str], as_json: bool) -> None:
    """Split ENDPOINT's traffic; the percentages sum to 100."""
    if not all(re.fullmatch("[0-9]{1,3}", share) for share in shares.values()):
        raise click.BadParameter("percentages are whole numbers from 0 to 100")
    with workspace() as client:
        found = client.services.set_traffic(endpoint, {name: int(share) for name, share in shares.items()})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{endpoint}: {pairs(found.traffic)}")


@command.command()
@click.argument("endpoint", shell_complete=complete.services)
@click.option("--data", required=True, metavar="JSON|@FILE", help="Body to send, or @ and the file that holds it.")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON for machines, as without it: answers are JSON.")
def score(endpoint: str, data: str) -> None:
    """Send one request and print the answer."""
    file = Path(data[1:]) if data.startswith("@") else None
    body = parse_json(read_text(file) if file else data, file or "--data")
    with workspace() as client:
        click.echo(json.dumps(client.services.score(endpoint, body)))


@command.command()
@click.argument("endpoint", shell_complete=complete.services)
@click.option("--deployment", metavar="NAME", help="Only this deployment; one that gets no traffic, or the last one.")
@yes_option
@json_option
def delete(endpoint: str, deployment: str | None, yes: bool, as_json: bool) -> None:
    """Stop every replica and forget the endpoint."""
    with workspace() as client:
        if deployment is None:
            name, do = endpoint, lambda: client.services.delete(endpoint)
        else:
            name, do = f"{endpoint}/{deployment}", lambda: client.services.delete_deployment(endpoint, deployment)
        take_away(name, do, meaning=" and stop its replicas", yes=yes, as_json=as_json)
