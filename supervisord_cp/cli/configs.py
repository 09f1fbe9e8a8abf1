"""`config check | show | plan`."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from supervisord_cp.cli.connect import find_central
from supervisord_cp.cli.text import count
from supervisord_cp.config.effective import from_plain, masked, plain
from supervisord_cp.config.findings import Finding, Level
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.load import Reading, find_file, load, read_file
from supervisord_cp.config.on_disk import missing_files
from supervisord_cp.config.plan import Change, ChangeKind, diff_configs
from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.config.toml_text import toml_text
from supervisord_cp.engines.allow import refusals
from supervisord_cp.errors import SupervisordError
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.plugin_host.checks import named_policies, policy_findings
from supervisord_cp.plugin_host.host import PolicyHost


@click.group()
def config() -> None:
    """Check, show and compare configuration files.

    FILE is by default $SUPERVISORD_CP_CONFIG, else ./config.toml, else /etc/supervisord-cp/config.toml.
    """


def _file_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("file", required=False, type=click.Path(path_type=Path))(command)


def _output_option(first: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice((first, "json")),
        default=first,
        show_default=True,
        help="The form.",
    )


@config.command()
@_file_argument
def check(file: Path | None) -> None:
    """Report every mistake in FILE, each with its line. Exit code 2 when there is one."""
    path = find_file(file, os.environ)
    reading = read_file(path)
    registry = PolicyHost(reading.config.plugins.paths).refresh(named_policies(reading))
    policies = tuple(policy_findings(reading, registry))
    on_this_host = (*missing_files(reading.record), *refused_here(reading))
    for problem in reading.problems(Level.WARNING, (*on_this_host, *policies)):
        click.echo(f"warning: {problem}", err=True)
    checked = reading.accepted(policies)
    deployments = count(len(checked.deployments), "deployment")
    static = count(len(checked.static_instances), "static instance")
    click.echo(f"{path} is fine: {deployments}, {static}")


@config.command()
@_file_argument
@_output_option("toml")
def show(file: Path | None, output: str) -> None:
    """Print the configuration that FILE gives: with all defaults, secrets masked."""
    document = plain(masked(load(find_file(file, os.environ))))
    click.echo(
        json.dumps(document, indent=2, default=str) if output == "json" else toml_text(document).rstrip()
    )


@config.command()
@_file_argument
@_output_option("text")
@click.option("--address", metavar="URL", help="Central's control listener; else as FILE says.")
@click.option(
    "--token-file", metavar="FILE", type=click.Path(path_type=Path), help="The token that it wants."
)
def plan(file: Path | None, output: str, address: str | None, token_file: Path | None) -> None:
    """Show what changes when the running central reads FILE.

    Values of secrets are not compared: central does not show them.
    """
    path = find_file(file, os.environ)
    new = masked(load(path))
    above = click.get_current_context().find_root().params
    address = address or above.get("address")
    token_file = token_file or (Path(above["token_file"]) if above.get("token_file") else None)
    central = find_central(address, token_file, path, os.environ)
    running = central.get("config")
    if not isinstance(running, dict):
        raise SupervisordError(f"{central.address} does not answer with a configuration")
    changes = diff_configs(from_plain(running), new)
    if output == "json":
        click.echo(json.dumps([_as_json(change) for change in changes], indent=2))
    else:
        click.echo("\n".join(_plan_lines(changes)))


def refused_here(reading: Reading) -> Iterator[Finding]:
    """What the node's own policy refuses, where the file has it; another node may allow it."""
    if "agent" not in reading.config.tables:
        return
    for deployment in reading.record.of(DeploymentConfig):
        engine, command = deployment.value.engine, deployment.value.command
        if engine != EngineKind.NONE and not (engine == EngineKind.COMMAND and not command):
            for why in refusals(launch_spec(deployment.value), reading.config.agent.allow):
                yield deployment.warning((), f"cannot run on this file's agent: {why}")


def _plan_lines(changes: Sequence[Change]) -> Iterator[str]:
    if not changes:
        yield "nothing changes"
    signs = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}
    for change in changes:
        yield f"{signs[change.kind]} {change.subject}: {change.effect if change.keys else change.kind}"
        for key in change.keys:
            yield f"    {key}  [{key.effect}]"


def _as_json(change: Change) -> dict[str, object]:
    return {
        "kind": change.kind,
        "table": change.table,
        "name": change.name,
        "effect": change.effect,
        "keys": [
            {"key": key.key, "old": key.old, "new": key.new, "effect": key.effect} for key in change.keys
        ],
    }
