"""``hedgerow``: a table of commands, each imported only when it is used, and the one place that turns errors into exit codes."""

from __future__ import annotations

import difflib
import importlib
import io
import sys
from types import ModuleType
from typing import cast

import click

from hedgerow import __version__
from hedgerow.errors import HedgerowError

# command → (module, one-line help); the help stands here so that `hedgerow --help` imports nothing.
COMMANDS = {
    "quickstart": ("hedgerow.cli.quickstart.command", "The whole story on this machine, then a summary with links."),
    "up": ("hedgerow.cli.up", "Start the control plane: API, pages, image registry, hub, controller, broker."),
    "doctor": ("hedgerow.cli.doctor", "Look at this machine and workspace: what is missing, what to do."),
    "gc": ("hedgerow.cli.gc", "Free contents that nothing refers to any more."),
    "backup": ("hedgerow.cli.backup", "Save the whole workspace into one file, while everything goes on."),
    "restore": ("hedgerow.cli.restore", "Make a workspace from a backup, here or on another machine."),
    "workspace": ("hedgerow.cli.workspace", "Choose which workspace commands talk to."),
    "token": ("hedgerow.cli.token", "Create, list and revoke tokens."),
    "secret": ("hedgerow.cli.secret", "Values that the workspace keeps sealed and shows to nobody."),
    "model": ("hedgerow.cli.model", "Register and look at models."),
    "env": ("hedgerow.cli.environment", "Environments for scoring scripts."),
    "image": ("hedgerow.cli.image", "Build images from models and look at them."),
    "lineage": ("hedgerow.cli.lineage", "What something was made from, and what was made from it."),
    "serve": ("hedgerow.cli.serve", "Score one model or image here, without a workspace."),
    "service": ("hedgerow.cli.service", "Endpoints: deploy, score, traffic."),
    "device": ("hedgerow.cli.device", "Enrol devices and look at them."),
    "edge": ("hedgerow.cli.edge", "Deploy modules to devices."),
    "agent": ("hedgerow.cli.agent", "The device side: run the edge agent."),
    "run": ("hedgerow.cli.run", "Recorded training runs."),
    "activity": ("hedgerow.cli.activity", "Follow or cancel long work."),
    "event": ("hedgerow.cli.event", "What happened in the workspace, and what happens now."),
    "webhook": ("hedgerow.cli.webhook", "Have events sent to other programs."),
    "telemetry": ("hedgerow.cli.telemetry", "Telemetry that devices sent."),
    "completion": ("hedgerow.cli.completion", "Let the shell complete commands, options and names."),
}


class _LazyGroup(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101 - each module of the table has one
        return command

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not context.resilient_parsing:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", context)
        return super().resolve_command(context, args)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="hedgerow")
@click.option("--workspace", "-w", "where", metavar="URL|FOLDER", help="Workspace to talk to, instead of the one in use.")
@click.pass_context
def cli(context: click.Context, where: str | None) -> None:
    """From a trained model to a scoring endpoint or a fleet of edge devices, on machines you own."""
    context.obj = where


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Errors are one sentence on standard error."""
    _write_everything()
    # httpx brings a command of its own, with all that draws its colours: a sixth of the time in which one of ours starts. Where
    # it cannot be imported, httpx does without.
    sys.modules.setdefault("httpx._main", cast("ModuleType", None))
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as asked:
        sys.exit(asked.exit_code)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except HedgerowError as problem:
        from hedgerow.cli.output import plain

        click.echo(f"hedgerow: {plain(problem.sentence())}", err=True)
        sys.exit(1)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        click.echo(f"hedgerow: {where}{problem.strerror or problem}. Check the path, its owner and free space.", err=True)
        sys.exit(1)


def _write_everything() -> None:
    """A terminal that has no ✓ gets its code instead of our traceback; so does a file name that is no UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None when it was closed before us
            stream.reconfigure(errors="backslashreplace")
