"""`policy list | check | test | reload`."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from supervisord_cp.cli import text
from supervisord_cp.cli.client import ControlClient
from supervisord_cp.cli.connect import with_client
from supervisord_cp.cli.options import Command, output_option, watch_option
from supervisord_cp.cli.render import print_sheet, show
from supervisord_cp.cli.sheets import Sheet
from supervisord_cp.errors import ConfigErrors, Problem, SupervisordError, UsageError

if TYPE_CHECKING:
    from supervisord_cp.plugin_host.source import Source

RELOAD_S: Final = 60.0
"""Files that have changed are tried out before central answers."""
_NO_TESTS: Final = 5
"""pytest's exit status for a file without tests."""


@click.group()
def policy() -> None:
    """Drop-in policies: what there is, whether a file is one."""


@policy.command("list")
@with_client
@output_option
@watch_option
def list_(client: ControlClient, output: str, watch: bool) -> None:
    """List policies: who uses them, and how they do."""
    show(
        lambda: client.get("policies"),
        lambda value: print_sheet(policies_sheet(value)),
        output=output,
        watch=watch,
    )


@policy.command()
@with_client
def reload(client: ControlClient) -> None:
    """Look at policy files again, now.

    Changed files are noticed within two seconds anyway; what could not be used is tried again by this.
    Exit code 1 when something cannot be used.
    """
    answer = client.post("policies", "reload", body={}, timeout_s=RELOAD_S)
    problems = dict.fromkeys(answer.get("problems", ()))
    for router, told in answer.get("routers", {}).items():
        failed = told.get("error") if isinstance(told, dict) else None
        problems |= dict.fromkeys([f"router {router}: {failed}"] if failed else told)
    if problems:
        raise SupervisordError("\n".join(problems))
    click.echo("all policies can be used")


def _file_argument(command: Command) -> Command:
    argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
    return argument(_params_option(command))


def _params_option(command: Command) -> Command:
    return click.option(
        "--params", metavar="TOML", help="Its parameters, such as 'a = 1, b = \"x\"'; else its defaults."
    )(command)


@policy.command()
@_file_argument
def check(file: Path, params: str | None) -> None:
    """Check whether FILE can be used as a policy.

    It is run in a process of its own and asked about many fleets and requests: does it answer, in time,
    something that can be an answer, and the same again? Exit code 2 when it cannot be used.
    """
    click.echo(_checked(file, params))


@policy.command()
@_file_argument
def test(file: Path, params: str | None) -> None:
    """Check FILE, then run its own tests with pytest: test_FILE beside it, or in the folder tests there.

    They import the policy by its file's name.
    """
    click.echo(_checked(file, params))
    places = (file.with_name(f"test_{file.name}"), file.parent / "tests" / f"test_{file.name}")
    own = next((place for place in places if place.is_file()), None)
    if own is None:
        click.echo(f"it has no tests of its own: there is no {places[0]}", err=True)
        return
    if find_spec("pytest") is None:
        raise UsageError(f"{own} needs pytest: {sys.executable} -m pip install pytest")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(own)]
    path = os.pathsep.join((str(file.parent.absolute()), os.environ.get("PYTHONPATH", "")))
    ended = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}, check=False)
    if ended.returncode == _NO_TESTS:
        raise UsageError(f"{own} has no test")
    if ended.returncode:
        raise SupervisordError(f"{own}: failed; pytest ended with status {ended.returncode}")


def _checked(file: Path, params: str | None) -> str:
    """What to say of a file that is fine.

    Raises:
        ConfigErrors: it cannot be used.
    """
    from supervisord_cp.plugin_host.source import read_source
    from supervisord_cp.plugin_host.trial import Subject, try_out

    source = read_source(str(file), file.read_bytes())
    if source.declaration is None:
        raise ConfigErrors((source.problem or Problem(message="declares no policy", path=str(file)),))
    given = None if params is None else _table(params)
    verdict = try_out(Subject(path=source.path, text=source.text, params=given))
    if verdict.problems:
        raise ConfigErrors(verdict.problems)
    return f"{file} is fine: {_described(source)}, {_asked(verdict.cases, verdict.skipped)}"


def _described(source: "Source") -> str:
    assert source.declaration is not None
    return f'{source.declaration.kind} "{source.declaration.name}"'


def _asked(cases: int, skipped: str) -> str:
    if skipped:
        return f"not asked anything: without --params {skipped}"
    return text.count(cases, "question") + " answered"


def _table(params: str) -> dict[str, Any]:
    import tomli

    try:
        table: dict[str, Any] = tomli.loads(f"params = {{ {params} }}")["params"]
    except tomli.TOMLDecodeError as error:
        raise click.BadParameter(f"not TOML: {error}", param_hint="--params") from error
    return table


def policies_sheet(policies: list[Mapping[str, Any]]) -> Sheet:
    """`policy list`."""
    return Sheet(
        ("POLICY", "STATE", "KIND", "FROM", "USED BY", "CALLS", "FAILED", "ABOUT"),
        tuple(_row(item) for item in policies),
        tuple(_colour(item) for item in policies),
        coloured=1,
        empty="no policies",
    )


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(item.get("name") or "-"),
        _state(item),
        str(item.get("kind") or "-"),
        _from(item),
        ", ".join(item.get("used_by", ())) or "-",
        text.number(item.get("calls")),
        text.number(item.get("failures")),
        _about(item),
    )


def _state(item: Mapping[str, Any]) -> str:
    if item.get("breaker_open"):
        return "left alone"
    if item.get("problem"):
        return "old version" if item.get("version") else "unusable"
    return "in use" if item.get("used_by") or item.get("shadow") else "available"


def _colour(item: Mapping[str, Any]) -> str:
    state = _state(item)
    return {"left alone": "degraded", "unusable": "degraded", "old version": "starting"}.get(state, "")


def _from(item: Mapping[str, Any]) -> str:
    if item.get("origin") == "built-in":
        return "built-in"
    version = item.get("version")
    where = str(item.get("where") or "-")
    return f"{where}@{version}" if version else where


def _about(item: Mapping[str, Any]) -> str:
    shadows = [
        f"shadow of {count['deployment']}: agrees in {count['agreed']} of {count['decisions']}"
        for count in item.get("shadow", ())
    ]
    told = item.get("problem") or item.get("state") or item.get("summary") or ""
    return "; ".join((*shadows, str(told)))
