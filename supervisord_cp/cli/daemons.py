"""The daemons, in the foreground."""

import ctypes
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from supervisord_cp.cli.options import Command, config_option, log_options

if TYPE_CHECKING:
    from supervisord_cp.config.schema import Config

_PR_SET_PDEATHSIG: Final = 1


def daemon_options(command: Command) -> Command:
    """What every daemon takes."""
    parent = click.option("--with-parent", type=int, metavar="PID", hidden=True, help="End when PID ends.")
    return config_option(required=True)(log_options(parent(command)))


def end_with_parent(parent: int) -> None:
    """Have the kernel send us SIGTERM when our parent ends, whatever ends it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(0)


def _begin(log_level: str, log_format: str, with_parent: int | None) -> None:
    if with_parent is not None:
        end_with_parent(with_parent)
    from supervisord_cp.obs.logging import FORMAT_VARIABLE, LEVEL_VARIABLE, configure

    configure(log_level, log_format)
    os.environ |= {
        LEVEL_VARIABLE: log_level,
        FORMAT_VARIABLE: log_format,
    }  # the daemons that it starts log alike


def _prepared(
    path: Path, log_level: str, log_format: str, with_parent: int | None, *, policies: bool = True
) -> "Config":
    """What all daemons do first; a wrong configuration is told before anything large is loaded.

    `policies`: the daemon asks policies, so their names are checked, too."""
    _begin(log_level, log_format, with_parent)
    from supervisord_cp.config.load import load

    if not policies:
        return load(path)
    from supervisord_cp.plugin_host.checks import load_for_daemon

    return load_for_daemon(path)


def _run(main: Coroutine[Any, Any, int]) -> NoReturn:
    import asyncio

    sys.exit(asyncio.run(main))


@click.command()
@daemon_options
@click.option("--without-router", is_flag=True, hidden=True, help="Start none, whatever start_router says.")
@click.option("--stop-router", is_flag=True, help="Stop the router that it started, too, when it is stopped.")
def central(
    config: Path,
    log_level: str,
    log_format: str,
    with_parent: int | None,
    without_router: bool,
    stop_router: bool,
) -> None:
    """Run the daemon that decides.

    It starts a router as a child unless the configuration says `start_router = false`. SIGTERM leaves that
    router serving unless --stop-router is given; SIGHUP reads the configuration again.
    """
    settings = _prepared(config, log_level, log_format, with_parent)
    from supervisord_cp.central.app import run_central

    _run(run_central(config, settings, stop_router=stop_router, start_router=not without_router))


@click.command()
@daemon_options
@click.option("--stop-engines", is_flag=True, help="Stop the engines, too, when it is stopped.")
def agent(config: Path, log_level: str, log_format: str, with_parent: int | None, stop_engines: bool) -> None:
    """Run the supervisor of this host's engines.

    SIGTERM leaves the engines running unless --stop-engines is given: the next agent takes them over.
    """
    settings = _prepared(config, log_level, log_format, with_parent, policies=False)
    from supervisord_cp.agent.app import run_agent

    _run(run_agent(settings, stop_engines=stop_engines))


@click.command()
@daemon_options
@click.option(
    "--no-wait", is_flag=True, help="At SIGTERM leave open requests to the processes that have them."
)
def router(config: Path, log_level: str, log_format: str, with_parent: int | None, no_wait: bool) -> None:
    """Run the data plane: the address that OpenAI clients talk to.

    It holds the address and runs the processes that serve ([router] processes). SIGTERM lets open requests
    finish; a second one ends them. SIGHUP replaces the processes, with the configuration as it is then,
    without refusing a connection or cutting a stream.
    """
    _begin(log_level, log_format, with_parent)
    from supervisord_cp.router.holder import run_processes

    _run(run_processes(config, log_level=log_level, wait=not no_wait))
