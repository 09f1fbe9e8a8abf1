"""`top`: the fleet on a full screen, live."""

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from supervisord_cp.cli.client import ControlClient
from supervisord_cp.cli.connect import with_client
from supervisord_cp.cli.follow import server_sent
from supervisord_cp.cli.render import until_interrupted
from supervisord_cp.errors import SupervisordError, Unreachable, UsageError

AGAIN_S: Final = 1.0
REFRESH_S: Final = 0.25
KEPT: Final = 300
UP: Final = (b"\x1b[A", b"k")
DOWN: Final = (b"\x1b[B", b"j")
HOME: Final = (b"\x1b[H", b"g")


@click.command()
@with_client
def top(client: ControlClient) -> None:
    """Watch the fleet on a full screen: deployments, GPUs, instances, what needs a look first.

    q or Ctrl-C ends it; the arrows scroll.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal; `status -w` and `instances -w` do without")
    client.get("status")  # a wrong address or token is said before the screen is taken over
    feed = Feed(client)
    threading.Thread(target=feed.run, daemon=True).start()
    with until_interrupted(), _keys():
        _show(feed)


class Feed:
    """What central streams, folded; read by the screen's thread, written by its own."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self.state: dict[str, Any] = {}
        self.curves: dict[str, list[float | None]] = {}
        self.note = ""

    def run(self) -> None:
        """Follow for ever; when the stream ends, again."""
        pause = threading.Event()
        while True:
            try:
                for told in server_sent(self._client.stream("page", "stream")):
                    self.take(told)
                self.note = "not connected"
            except (Unreachable, SupervisordError) as error:
                self.note = f"not connected: {error}"
            pause.wait(AGAIN_S)

    def take(self, told: dict[str, Any]) -> None:
        """One event."""
        from supervisord_cp.central.page.patch import applied

        self.note = ""
        if "state" in told:
            self.state, self.curves = told["state"], told["curves"]
            return
        self.state = applied(self.state, told["patch"])
        figures = told.get("figures")
        if figures is not None:
            names = {*figures, *self.curves}
            self.curves = {name: [*self.curves.get(name, []), figures.get(name)][-KEPT:] for name in names}


def _show(feed: Feed) -> None:
    from rich.console import Console
    from rich.live import Live

    from supervisord_cp.cli.top_screen import instance_count, screen

    console = Console(highlight=False)
    scroll = 0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            width, height = console.size
            content = screen(
                feed.state, feed.curves, width=width, height=height, scroll=scroll, note=feed.note
            )
            live.update(content, refresh=True)
            key = _key(REFRESH_S)
            if key == b"q":
                return
            last = max(0, instance_count(feed.state) - 1)
            scroll = 0 if key in HOME else scroll - (key in UP) + (key in DOWN)
            scroll = min(last, max(0, scroll))


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come at once and are not shown."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(wait_s: float) -> bytes:
    """The key that was pressed, b"" for none."""
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    return os.read(sys.stdin.fileno(), 16) if ready else b""
