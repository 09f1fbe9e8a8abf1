"""Commands that tell what happened and why: logs, events, explanations."""

import codecs
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click

from supervisord_cp.cli import text
from supervisord_cp.cli.client import ControlClient
from supervisord_cp.cli.connect import with_client
from supervisord_cp.cli.explained import decision_lines, decisions_sheet
from supervisord_cp.cli.explained_instance import end_lines, instance_lines
from supervisord_cp.cli.explained_request import request_parts
from supervisord_cp.cli.options import output_option, time_of
from supervisord_cp.cli.render import print_json, print_sheet, until_interrupted

_INDENT: Final = "  "


@click.command()
@with_client
@click.argument("instance")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=200, show_default=True, help="How many lines."
)
@click.option("--previous", is_flag=True, help="The log of the life before this one.")
def logs(client: ControlClient, instance: str, follow: bool, lines: int, previous: bool) -> None:
    """Print the log of an instance's engine."""
    if follow and previous:
        raise click.UsageError("a previous life writes no more: --follow and --previous exclude each other")
    output = sys.stdout.buffer
    wanted = client.stream(
        "instances", instance, "logs", lines=lines, follow=int(follow), previous=int(previous)
    )
    with until_interrupted():
        for piece in wanted:
            output.write(piece)
            output.flush()


@click.command()
@with_client
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="How many.")
@output_option
def events(client: ControlClient, follow: bool, lines: int, output: str) -> None:
    """List what happened, the oldest first."""
    latest = client.get("events", limit=lines)
    if output == "json" and not follow:
        print_json(latest)
        return
    with until_interrupted():
        for event in latest:
            _print_event(event, output)
        if follow:
            for event in server_sent(client.stream("events", "stream")):
                _print_event(event, output)


def _print_event(event: Mapping[str, Any], output: str) -> None:
    if output == "json":
        print_json(event, compact=True)
    else:
        click.echo(event_line(event))


def event_line(event: Mapping[str, Any]) -> str:
    """One event as a line, with the time of day here when central learned of it."""
    moment = datetime.fromtimestamp(float(event.get("at", 0.0)), UTC).astimezone()
    mark = {"warning": "!", "error": "!!"}.get(str(event.get("severity", "info")), "")
    parts = (
        f"{moment:%Y-%m-%d %H:%M:%S}",
        f"{mark:2}",
        event.get("kind"),
        event.get("subject"),
        event.get("message"),
    )
    return " ".join(str(part) for part in parts if part)


def server_sent(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The JSON values of a stream of server-sent events; comments and keep-alives are skipped."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    rest, data = "", []
    for piece in pieces:
        *lines, rest = (rest + decode(piece)).split("\n")
        for line in lines:
            line = line.removesuffix("\r")
            if line.startswith("data:"):
                data.append(line.removeprefix("data:").lstrip())
            elif not line and data:
                yield json.loads("\n".join(data))
                data = []


@click.command()
@with_client
@click.argument("kind", type=click.Choice(("request", "deployment", "instance")))
@click.argument("id")
@click.option(
    "--at", type=time_of, metavar="TIME", help="Of a deployment: what held then (`10m` ago, or a date)."
)
@click.option(
    "--last", type=click.IntRange(min=1), metavar="N", help="Of a deployment: its latest decisions."
)
@output_option
def explain(
    client: ControlClient,
    kind: str,
    id: str,  # noqa: A002 the argument's name
    at: float | None,
    last: int | None,
    output: str,
) -> None:
    """Tell why something is as it is.

    Of a deployment: what was measured and how old that is, what each policy proposes, which limits changed
    the number, and what would have to change for another one.
    """
    if kind != "deployment" and (at is not None or last is not None):
        raise click.UsageError("--at and --last are for deployments")
    if at is not None and last is not None:
        raise click.UsageError("--at and --last exclude each other")
    query = {key: number for key, number in (("at", at), ("last", last)) if number is not None}
    value = client.get("explain", kind, id, **query)
    if output == "json":
        print_json(value)
    elif "decisions" in value and kind == "deployment":
        print_sheet(decisions_sheet(value["decisions"]))
    elif "decision" in value:
        _print_lines(decision_lines(value))
        _print_events(value)
    elif kind == "instance":
        _print_lines(instance_lines(value))
        _print_events(value)
        _print_lines(end_lines(value))
    elif kind == "request":
        for heading, sheet in request_parts(value):
            click.echo(heading)
            print_sheet(sheet)
    else:
        _print_lines(outline(value))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_events(value: Mapping[str, Any]) -> None:
    if latest := value.get("events"):
        click.echo("events:")
        _print_lines(f"  {text.short(event_line(event))}" for event in latest)


def outline(value: Any, depth: int = 0) -> Iterator[str]:
    """A JSON value as indented `key: value` lines."""
    indent = _INDENT * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                yield f"{indent}{key}:"
                yield from outline(item, depth + 1)
            else:
                yield f"{indent}{key}: {_scalar(item)}"
    elif isinstance(value, list):
        for item in value:
            first, *more = list(outline(item, 0)) or [_scalar(item)]
            yield f"{indent}- {first}"
            yield from (f"{indent}{_INDENT}{line}" for line in more)
    else:
        yield f"{indent}{_scalar(value)}"


def _scalar(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
