"""The live part of the page: one look at the fleet a second, and its difference to the last."""

import asyncio
import collections
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.page.patch import Json, merge_patch
from supervisord_cp.central.page.state import figures_of, fleet_figures, page_state

TICK_S: Final = 1.0
KEPT: Final = 300
"""Ticks of the curves."""
WAITING: Final = 30
"""A browser that is this many ticks behind is let go, and comes again by itself."""

Watcher = asyncio.Queue[bytes | None]


class Feed:
    """`run()` looks; `follow()` is a browser's stream of server-sent events."""

    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self._curves: dict[str, collections.deque[float | None]] = {}
        self._state: Json = {}
        self._watchers: set[Watcher] = set()

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """Take in the figures of now; tell those who watch what is new."""
        figures = fleet_figures(figures_of(self._c))
        for label in {*figures, *self._curves}:
            curve = self._curves.setdefault(label, collections.deque(maxlen=KEPT))
            curve.append(figures.get(label))
        if not self._watchers:
            return
        state = page_state(self._c)
        patch = merge_patch(self._state, state)
        self._state = state
        self._tell(_event("tick", {"figures": figures, "patch": patch}))

    def _tell(self, event: bytes) -> None:
        for watcher in list(self._watchers):
            if watcher.full():
                self._watchers.discard(watcher)
                watcher.get_nowait()
                watcher.put_nowait(None)
            else:
                watcher.put_nowait(event)

    async def follow(self, access: Json) -> AsyncIterator[bytes]:
        """The whole state first, then what changes. `access`: what this browser may do."""
        self._catch_up()
        watcher: Watcher = asyncio.Queue(WAITING)
        self._watchers.add(watcher)
        curves = {label: list(curve) for label, curve in self._curves.items()}
        first = {"state": self._state, "curves": curves, "access": access, "tick_s": TICK_S}
        try:
            yield b"retry: 1000\n" + _event("state", first)
            while (event := await watcher.get()) is not None:
                yield event
        finally:
            self._watchers.discard(watcher)

    def _catch_up(self) -> None:
        """Who comes now is told everything; those who watch already must not miss the difference."""
        state = page_state(self._c)
        patch = merge_patch(self._state, state)
        if patch and self._watchers:
            self._tell(_event("tick", {"patch": patch}))
        self._state = state


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
