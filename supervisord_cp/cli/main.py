"""The program `supervisord-cp`."""

from importlib import import_module
from typing import Any, Final

import click

from supervisord_cp.errors import ConfigErrors, SupervisordError
from supervisord_cp.version import __version__

_CLI: Final = "supervisord_cp.cli"
_COMMANDS: Final = {
    "up": "up",
    "central": "daemons",
    "agent": "daemons",
    "router": "daemons",
    "config": "configs",
    "status": "show",
    "nodes": "show",
    "gpus": "show",
    "instances": "show",
    "deployments": "show",
    "top": "top",
    "scale": "operate",
    "start": "operate",
    "stop": "operate",
    "restart": "operate",
    "drain": "operate",
    "cordon": "operate",
    "uncordon": "operate",
    "forget": "operate",
    "logs": "follow",
    "events": "follow",
    "explain": "follow",
    "policy": "policy",
    "install": "install",
    "doctor": "doctor",
    "completion": "completion",
}
"""Each command and the module that has it, in the order of the help page."""


class Program(click.Group):
    """Imports a command's module when that command is asked for, and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (module := _COMMANDS.get(cmd_name)) is None:
            return None
        command = getattr(import_module(f"{_CLI}.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SupervisordError as error:
            itself = isinstance(error, ConfigErrors)  # each of its lines says where it is
            click.echo(str(error) if itself else f"supervisord-cp: {error}", err=True)
            ctx.exit(error.exit_code)


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="supervisord-cp")
@click.option("--address", metavar="URL", help="Central's control listener, for the commands that ask it.")
@click.option("--token-file", metavar="FILE", help="File with the token that central wants.")
def program(address: str | None, token_file: str | None) -> None:
    """Launch, supervise, scale and route to fleets of vLLM engines.

    `supervisord-cp up` runs everything on this host; `supervisord-cp status` shows it.
    """


def main() -> None:
    """The entry point."""
    program(prog_name="supervisord-cp")
