"""``hedgerow doctor``: what this machine and workspace have, what is missing, what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click
import msgspec

from hedgerow.cli.options import json_option
from hedgerow.cli.output import print_json, size
from hedgerow.errors import HedgerowError

_LOW_DISK_BYTES = 1 << 30
_EXTRAS = {"runtime": "onnxruntime", "edge": "paho", "server": "sqlalchemy", "convert": "skl2onnx"}
_MARKS = {"ok": ("✓", "green"), "missing": ("–", "yellow"), "failed": ("✗", "red")}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One look. ``missing`` limits what works here; ``failed`` needs doing."""

    what: str
    state: Literal["ok", "missing", "failed"]
    found: str
    remedy: str = ""


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Look at this machine and workspace; exit code 1 when something needs doing."""
    findings = [*_machine(), *_workspace(click.get_current_context().find_root().obj)]
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark, colour = _MARKS[finding.state]
            click.echo(f" {click.style(mark, fg=colour)} {finding.what.ljust(width)}  {finding.found}")
            if finding.remedy:
                click.echo(f"   {' ' * width}  → {finding.remedy}")
    if any(finding.state == "failed" for finding in findings):
        raise click.exceptions.Exit(1)


def _machine() -> Iterator[Finding]:
    yield Finding(what="python", state="ok", found=sys.version.split()[0])
    for extra, module in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"pip install 'hedgerow[{extra}]'"
        yield Finding(
            what=f"extra [{extra}]", state="ok" if there else "missing", found="installed" if there else "absent", remedy=remedy
        )
    haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    yield Finding(
        what="balancer",
        state="ok" if haproxy else "missing",
        found=haproxy or "haproxy is not installed: one replica per endpoint only",
        remedy="" if haproxy else "apt install haproxy",
    )
    yield _docker()
    free = shutil.disk_usage(Path.cwd()).free
    low = free < _LOW_DISK_BYTES
    yield Finding(
        what="disk", state="failed" if low else "ok", found=f"{size(free)} free here", remedy="Free some space." if low else ""
    )


def _docker() -> Finding:
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if importlib.util.find_spec("docker") is not None:
        import docker
        from docker.errors import DockerException

        try:
            version = docker.from_env(timeout=3).version()["Version"]
            return Finding(what="docker", state="ok", found=f"engine {version} at {socket}")
        except (DockerException, OSError):
            pass
    return Finding(
        what="docker",
        state="missing",
        found=f"no engine answers at {socket}: no docker images, no docker modules",
        remedy="apt install docker.io",
    )


def _workspace(where: str | None) -> Iterator[Finding]:
    from hedgerow.sdk.connect import connect

    try:
        with connect(where, start=False) as client:
            info = client.info()
    except HedgerowError as problem:
        yield Finding(what="workspace", state="missing", found=str(problem), remedy=problem.advice)
        return
    yield Finding(what="workspace", state="ok", found=f"{info.url} ({info.workspace_id}, Hedgerow {info.hedgerow_version})")
    for role in info.roles:
        runs = role.pid is not None
        yield Finding(
            what=role.role,
            state="ok" if runs else "failed",
            found=f"runs as process {role.pid}" if runs else "does not run on this machine",
            remedy="" if runs else "Start it with `hedgerow up`; its log says why it ended.",
        )
