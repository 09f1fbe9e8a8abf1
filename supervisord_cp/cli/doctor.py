"""`doctor`: what is wrong with this host, and what to do."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from supervisord_cp.cli.options import config_option, output_option
from supervisord_cp.cli.render import print_json
from supervisord_cp.errors import ConfigErrors, UsageError

if TYPE_CHECKING:
    from supervisord_cp.doctor.finding import Finding

NOT_HEALTHY: Final = 3
_COLOURS: Final = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command()
@config_option(required=False)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Look at what the `up` with this state directory runs, instead of a configuration file.",
)
@output_option
def doctor(config: Path | None, state_dir: Path | None, output: str) -> None:
    """Look at this host and say what is wrong, and what to do.

    Looks at configuration, files, disks, ports, programs, driver, GPUs, units, central, clock,
    instances that crash, Prometheus.
    Changes nothing. Exit code 3 when there is an error.
    """
    findings = _examine(_of_up(state_dir) if state_dir else config, output)
    if output == "json":
        print_json([msgspec.to_builtins(one) for one in findings])
    errors = sum(one.level == "error" for one in findings)
    warnings = sum(one.level == "warning" for one in findings)
    if output != "json":
        click.echo(f"\n{_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    if errors:
        sys.exit(NOT_HEALTHY)


def _of_up(state_dir: Path) -> Path:
    """What the `up` in a state directory runs.

    Raises:
        UsageError: there is none.
    """
    from supervisord_cp.cli.up_lock import running_config

    if (config := running_config(state_dir)) is None:
        raise UsageError(f"no `up` runs in {state_dir}; name its configuration with -c FILE")
    return config


def _examine(config: Path | None, output: str) -> "list[Finding]":
    from supervisord_cp.cli.configs import refused_here
    from supervisord_cp.cli.up import default_state_dir
    from supervisord_cp.cli.up_lock import running_config
    from supervisord_cp.config.findings import Level
    from supervisord_cp.config.load import read_file
    from supervisord_cp.config.schema import Config
    from supervisord_cp.doctor.examine import examine
    from supervisord_cp.doctor.finding import error, ok, warning

    findings: list[Finding] = []

    def tell(finding: "Finding") -> None:
        findings.append(finding)
        if output != "json":
            _print(finding)

    config = config or running_config(default_state_dir(os.environ))
    if config is None:
        remedy = (
            "defaults are looked at instead; -c FILE names one, --state-dir DIR an `up`;"
            " supervisord-cp install systemd writes a first one"
        )
        tell(warning("configuration", "there is none", remedy))
        settings = Config()
    else:
        try:
            reading = read_file(config)
            settings = reading.accepted()
        except ConfigErrors as problem:
            tell(error("configuration", str(problem), "correct these lines; nothing else was looked at"))
            return findings
        tell(ok("configuration", f"{config} is valid"))
        for doubt in reading.problems(Level.WARNING, refused_here(reading)):
            tell(warning("configuration", str(doubt), ""))
    for finding in examine(settings):
        tell(finding)
    return findings


def _print(finding: "Finding") -> None:
    level = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.subject}: {finding.message}")
    if finding.remedy:
        click.echo(f"         → {finding.remedy}")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
