"""``hedgerow completion``: the few lines that teach a shell to complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = """\b
bash   echo 'eval "$(hedgerow completion bash)"' >> ~/.bashrc
zsh    echo 'eval "$(hedgerow completion zsh)"' >> ~/.zshrc
fish   hedgerow completion fish > ~/.config/fish/completions/hedgerow.fish"""


@click.command("completion", epilog=_HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and names of models."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has one for each of the choices
    click.echo(kind(context.find_root().command, {}, "hedgerow", "_HEDGEROW_COMPLETE").source())
