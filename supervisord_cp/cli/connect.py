"""Where central is, and which token it wants: options, environment, configuration, in that order."""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from supervisord_cp.cli.client import DEFAULT_ADDRESS, TOKEN_VARIABLE, ControlClient
from supervisord_cp.cli.options import Command, config_option

ADDRESS_VARIABLE: Final = "SUPERVISORD_CP_ADDRESS"
_ROLES: Final = ("operator", "viewer", "agent")
"""Roles whose tokens let a person ask, the one that may do more first."""


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where central is, for a command whose first argument is a `ControlClient`."""

    @wraps(command)
    def connected(
        *args: Any, address: str | None, token_file: str | None, config: Path | None, **rest: Any
    ) -> Any:
        above = click.get_current_context().find_root().params
        address, token_file = address or above.get("address"), token_file or above.get("token_file")
        client = find_central(address, Path(token_file) if token_file else None, config, os.environ)
        return command(client, *args, **rest)

    return _address_options(config_option(required=False)(connected))


def _address_options(command: Command) -> Command:
    address = click.option(
        "--address",
        metavar="URL",
        help=f"Central's control listener; else ${ADDRESS_VARIABLE}, the configuration, {DEFAULT_ADDRESS}.",
    )
    token = click.option(
        "--token-file",
        metavar="FILE",
        help=f"File with the token that central wants; else ${TOKEN_VARIABLE}, the configuration.",
    )
    return address(token(command))


def find_central(
    address: str | None, token_file: Path | None, config: Path | None, environment: Mapping[str, str]
) -> ControlClient:
    """A client for the central that options, environment or configuration name, in that order."""
    address = address or environment.get(ADDRESS_VARIABLE)
    token = person_token(token_file) if token_file else environment.get(TOKEN_VARIABLE)
    if config is not None and (address is None or token is None):
        from_file, its_tokens = _from_config(config)
        address = address or from_file
        if token is None and its_tokens is not None and os.access(its_tokens, os.R_OK):
            token = person_token(its_tokens)
    return ControlClient(address or DEFAULT_ADDRESS, token or "")


def _from_config(path: Path) -> tuple[str, Path | None]:
    """Central's address and its tokens file, as the configuration has them."""
    from supervisord_cp.config.findings import Level
    from supervisord_cp.config.load import read_file

    reading = read_file(path)
    if reading.problems(Level.ERROR):  # who looks for a fault needs central, whatever else the file says
        click.echo(f"{path} has mistakes: supervisord-cp config check {path}", err=True)
    config = reading.config
    if "central" not in config.tables:
        if "agent" in config.tables:
            return config.agent.central, None
        if "router" in config.tables:
            return config.router.central, None
    return reachable(config.central.control_listen.host, config.central.control_listen.port), (
        config.central.tokens_file
    )


def reachable(host: str, port: int) -> str:
    """The address at which this host reaches a listener of its own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def person_token(path: Path) -> str:
    """The token in a file that a person uses: its only line, else an operator's, else one that may look.

    Raises:
        UsageError: the file cannot be read, or holds none.
    """
    from supervisord_cp.adapters.tokens import read_token

    return read_token(path, *_ROLES)
