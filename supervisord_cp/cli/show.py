"""Commands that show the fleet."""

import sys
from collections.abc import Callable
from typing import Any, Final

import click

from supervisord_cp.cli import sheets
from supervisord_cp.cli.client import ControlClient
from supervisord_cp.cli.connect import with_client
from supervisord_cp.cli.options import output_option, watch_option
from supervisord_cp.cli.render import print_sheet, show

NOT_HEALTHY: Final = 3


@click.command()
@with_client
@output_option
@watch_option
def status(client: ControlClient, output: str, watch: bool) -> None:
    """Show the fleet on one screen.

    Exit code 3 when something is not healthy.
    """
    latest = show(lambda: client.get("status"), _print_status, output=output, watch=watch)
    if not latest.get("healthy"):
        sys.exit(NOT_HEALTHY)


def _print_status(value: Any) -> None:
    click.echo(sheets.headline(value))
    if deployments := value.get("deployments"):
        click.echo()
        print_sheet(sheets.deployments_sheet(deployments))
    if problems := value.get("problems"):
        click.echo()
        for problem in problems:
            click.echo(f"! {problem}")


@click.command()
@with_client
@output_option
@watch_option
def nodes(client: ControlClient, output: str, watch: bool) -> None:
    """List the hosts that have an agent."""
    _list(client, "nodes", sheets.nodes_sheet, output, watch)


@click.command()
@with_client
@output_option
@watch_option
def gpus(client: ControlClient, output: str, watch: bool) -> None:
    """List the GPUs of all nodes and what holds them."""
    _list(client, "gpus", sheets.gpus_sheet, output, watch)


@click.command()
@with_client
@output_option
@watch_option
def instances(client: ControlClient, output: str, watch: bool) -> None:
    """List the engines: state, place, load, reasons."""
    _list(client, "instances", sheets.instances_sheet, output, watch)


@click.command()
@with_client
@output_option
@watch_option
def deployments(client: ControlClient, output: str, watch: bool) -> None:
    """List the deployments: wanted, ready, and why."""
    _list(client, "deployments", sheets.deployments_sheet, output, watch)


def _list(
    client: ControlClient, what: str, sheet: Callable[[Any], sheets.Sheet], output: str, watch: bool
) -> None:
    show(lambda: client.get(what), lambda value: print_sheet(sheet(value)), output=output, watch=watch)
