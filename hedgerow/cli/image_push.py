"""``hedgerow image push``: the password comes from standard input or a secret, never from the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from hedgerow.cli import complete
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import count, follow, print_json, size


@click.command()
@click.argument("reference", shell_complete=complete.images)
@click.argument("target", metavar="TARGET")
@click.option("--username", metavar="USER", help="Who pushes; with --password-stdin or --secret.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--docker-login", is_flag=True, help="Log in as `docker login` or `podman login` did on this machine.")
@click.option("--secret", metavar="NAME", help="A secret of the workspace that holds the password, or USER:PASSWORD.")
@click.option("--insecure", is_flag=True, help="The registry speaks plain http; the control plane must allow it.")
@click.option("--mount-from", "mount_from", multiple=True, metavar="NAME", help="A repository there that may have some of it.")
@click.option("--no-referrers", is_flag=True, help="Leave out what lies beside the image (bill of materials, reports).")
@json_option
def push(
    reference: str,
    target: str,
    username: str | None,
    password_stdin: bool,
    docker_login: bool,
    secret: str | None,
    insecure: bool,
    mount_from: tuple[str, ...],
    no_referrers: bool,
    as_json: bool,
) -> None:
    """Send an image to another OCI registry: TARGET is HOST[:PORT]/NAME:TAG.

    Only what the registry lacks is sent. The control plane sends it, and may call public https and what --egress-allow names.
    """
    _expect_registry(target)
    password = _password(username, secret, from_stdin=password_stdin, from_docker=docker_login)
    with workspace() as client:
        activity = client.images.push(
            reference,
            target,
            username=username,
            password=password,
            secret=secret,
            docker_login=docker_login,
            insecure=insecure,
            mount_from=mount_from,
            referrers=not no_referrers,
        )
        ended = follow(client, activity.id, f"pushing {reference}", quiet=as_json)
    if as_json:
        print_json(ended.result)
    else:
        click.echo(f"Pushed {ended.result['image']} to {ended.result['reference']}")
        click.echo(_sent(ended.result))


def _expect_registry(target: str) -> None:
    """Before a password is read."""
    from hedgerow.contracts.remote_image import RemoteReferenceInvalid, push_target

    try:
        push_target(target)
    except RemoteReferenceInvalid as problem:
        raise click.UsageError(f"TARGET {problem.sentence()}") from None


def _password(username: str | None, secret: str | None, *, from_stdin: bool, from_docker: bool) -> str | None:
    """What stands on standard input, if it is wanted from there."""
    if from_docker and (username is not None or from_stdin or secret is not None):
        raise click.UsageError("--docker-login goes without --username, --password-stdin and --secret.")
    if from_stdin and (secret is not None or username is None):
        raise click.UsageError("--password-stdin goes with --username, and without --secret.")
    if username is not None and not from_stdin and secret is None:
        raise click.UsageError("--username needs --password-stdin or --secret NAME.")
    password = sys.stdin.read().removesuffix("\n").removesuffix("\r") if from_stdin else None
    if password == "":
        raise click.ClickException("The password is empty. Write it to standard input.")
    return password


def _sent(result: Mapping[str, str]) -> str:
    pushed, mounted, there = (len(result[name].split()) for name in ("pushed", "mounted", "already_there"))
    sent = f"{count(pushed, 'blob')} ({size(int(result['pushed_bytes']))}) sent"
    return f"{sent}, {mounted} mounted, {there} there already"
