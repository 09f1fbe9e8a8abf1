"""Options and parameter types that several commands share."""

import contextlib
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from supervisord_cp.config.schema import Listen

CONFIG_VARIABLE: Final = "SUPERVISORD_CP_CONFIG"
DEFAULT_CONFIG: Final = Path("/etc/supervisord-cp/config.toml")

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Command = TypeVar("Command", bound=Callable[..., Any])


def duration(text: str) -> float:
    """Seconds of `90`, `30s`, `5m`, `1h30m`, `2d`; the type of an option.

    Raises:
        click.BadParameter: it is none of these.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
    units = [unit for _, unit in parts]
    complete = "".join(number + unit for number, unit in parts) == text
    if not parts or not complete or (len(parts) > 1 and "" in units):
        raise click.BadParameter(f"{text!r} is no duration; write it like 90, 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def time_of(text: str) -> float:
    """Seconds since 1970 of `10m` (that long ago) or of a date and time here; the type of an option.

    Raises:
        click.BadParameter: it is neither.
    """
    with contextlib.suppress(click.BadParameter):
        return time.time() - duration(text)
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time; write it like 10m (ago) or 2026-01-31T14:05"
        ) from None


def listen(text: str) -> "Listen":
    """The listener of `HOST:PORT`; the type of an option.

    Raises:
        click.BadParameter: it is not that.
    """
    from supervisord_cp.config.spelling import Mismatch, parse_listen

    try:
        return parse_listen(text)
    except Mismatch as error:
        raise click.BadParameter(f"{error} ({error.hint})" if error.hint else str(error)) from error


def _default_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    return value or (DEFAULT_CONFIG if os.access(DEFAULT_CONFIG, os.R_OK) else None)


def _needed_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:
    if (found := _default_config(ctx, param, value)) is None:
        raise click.MissingParameter(ctx=ctx, param=param)
    return found


def config_option(*, required: bool) -> Callable[[Command], Command]:
    """`-c FILE`, else $SUPERVISORD_CP_CONFIG, else the system's file when there is one."""
    return click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=CONFIG_VARIABLE,
        callback=_default_config if not required else _needed_config,
        metavar="FILE",
        help=f"Configuration file; else ${CONFIG_VARIABLE}, else {DEFAULT_CONFIG}.",
    )


def log_options(command: Command) -> Command:
    """`--log-level` and `--log-format`."""
    from supervisord_cp.obs.logging import FORMAT_VARIABLE, FORMATS, LEVEL_VARIABLE, LEVELS

    level = click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default="info",
        show_default=True,
        envvar=LEVEL_VARIABLE,
        show_envvar=True,
        help="How much is logged on standard error.",
    )
    form = click.option(
        "--log-format",
        type=click.Choice(FORMATS, case_sensitive=False),
        default="text",
        show_default=True,
        envvar=FORMAT_VARIABLE,
        show_envvar=True,
        help="Log lines of key=value, or of JSON.",
    )
    return level(form(command))


def output_option(command: Command) -> Command:
    """`-o table|json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(("table", "json")),
        default="table",
        show_default=True,
        help="Tables are for people, JSON for programs.",
    )(command)


def watch_option(command: Command) -> Command:
    """`-w`."""
    return click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes.")(command)
