"""Sheets and JSON values on standard output."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from supervisord_cp.cli.sheets import BAD, GOOD, WARM, Sheet

WATCH_PERIOD_S: Final = 1.0
_UNBOUNDED: Final = 10_000
"""Columns of a pipe or a file: nothing is cut there."""


def print_sheet(sheet: Sheet) -> None:
    """A table without lines, coloured on a terminal; or one message when there is nothing to show."""
    if not sheet.rows:
        click.echo(sheet.empty, err=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED)
    header = "" if os.environ.get("NO_COLOR") else "bold"
    table = Table(box=None, pad_edge=False, header_style=header, show_edge=False)
    for column in sheet.columns:
        table.add_column(column, no_wrap=column != sheet.columns[-1], overflow="fold")
    for row, state in zip(sheet.rows, sheet.states, strict=True):
        styles = (_style(state) if column == sheet.coloured else "" for column in range(len(row)))
        table.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    console.print(table)


def print_json(value: object, *, compact: bool = False) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=None if compact else 2, ensure_ascii=False))


def show(fetch: Callable[[], Any], render: Callable[[Any], None], *, output: str, watch: bool) -> Any:
    """Fetch and show once, or again whenever it changes until interrupted. Returns what was last fetched."""
    latest = fetch()
    if not watch:
        if output == "json":
            print_json(latest)
        else:
            render(latest)
        return latest
    with until_interrupted():
        for value in _changes(fetch, latest):
            latest = value
            if output == "json":
                print_json(latest, compact=True)
                continue
            if sys.stdout.isatty():
                click.clear()
            render(latest)
    return latest


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is the normal end of what is watched or followed."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)


def _changes(fetch: Callable[[], Any], first: Any) -> Iterator[Any]:
    yield first
    shown = first
    while True:
        time.sleep(WATCH_PERIOD_S)
        if (latest := fetch()) != shown:
            shown = latest
            yield latest


def _style(state: str) -> str:
    if state in GOOD:
        return "green"
    if state in WARM:
        return "yellow"
    return "red" if state in BAD else ""
