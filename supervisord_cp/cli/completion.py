"""`completion`: what a shell needs to complete our commands."""

from typing import Final

import click

INTO: Final = {
    "bash": "~/.bashrc:  source <(supervisord-cp completion bash)",
    "zsh": "~/.zshrc:  source <(supervisord-cp completion zsh)",
    "fish": "~/.config/fish/completions/supervisord-cp.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(INTO)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion of commands and options for a shell.

    For bash put `source <(supervisord-cp completion bash)` into ~/.bashrc; for zsh likewise into ~/.zshrc;
    for fish write it to ~/.config/fish/completions/supervisord-cp.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    click.echo(kind(root, {}, "supervisord-cp", "_SUPERVISORD_CP_COMPLETE").source())
