"""Feeling the pulse of an idle engine: a question of one token, because nothing else asks it to do anything.

An engine whose core has hung while it was idle answers 200 on its health page, and its gauge of running
requests, which the core would have to raise, stays at zero whatever is sent to it. With a question of ours
under way it is an engine with work, and counters that stand still mean what they always mean.
"""

import asyncio
import logging
from typing import Final

from msgspec.structs import replace

from supervisord_cp.agent.engine_http import CallFailed, EngineHttp
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.core.instances.progress import MOST_PATIENCE
from supervisord_cp.engines.base import Engine
from supervisord_cp.model.instance import EngineLoad

log = logging.getLogger(__name__)

PULSE_S: Final = 60.0
"""Time without any sign of work after which an engine is asked."""


class Pulse:
    """Of one incarnation."""

    def __init__(self, engine: Engine, notes: RunNotes, http: EngineHttp) -> None:
        spec = notes.desired.spec
        self._call = engine.pulse(spec) if spec.stall_s > 0 else None
        self._rest_paths = engine.rest_paths
        self._notes = notes
        self._http = http
        self._seen: EngineLoad | None = None
        self._quiet_since = 0.0
        self._asking = False
        self._answered = 0
        self._task: asyncio.Task[None] | None = None

    def look(self, load: EngineLoad, now: float) -> EngineLoad:
        """Take in an engine's figures; what they say with a question of ours counted as work."""
        if self._call is None or all(counter is None for counter in _counters(load)):
            return load
        quiet = not (load.running or load.waiting or load.asleep) and self._unmoved(load)
        if self._asking:
            return replace(load, running=max(1, load.running or 0), ranks=())
        if not quiet:
            self._quiet_since = now
        elif now - self._quiet_since >= PULSE_S:
            self._asking = True
            self._task = asyncio.create_task(self._ask())
        self._seen = load
        return load

    def without(self, load: EngineLoad) -> EngineLoad:
        """The figures without what we have caused: an idle engine is to be seen as idle."""
        running, generated = load.running, load.generation_tokens_total
        if self._asking and running:
            running -= 1
        if generated is not None:
            generated = max(0.0, generated - self._answered)
        return replace(load, running=running, generation_tokens_total=generated)

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    def _unmoved(self, load: EngineLoad) -> bool:
        return self._seen is not None and _counters(self._seen) == _counters(load)

    async def _ask(self) -> None:
        """Until there is an answer, whatever it says: that it is slow is seen elsewhere."""
        assert self._call is not None
        notes = self._notes
        try:
            if not await self._http.rests(notes.url, self._rest_paths, notes.api_key):
                patience_s = 2 * MOST_PATIENCE * notes.desired.spec.stall_s
                await self._http.call(notes.url, self._call, notes.api_key, patience_s)
                self._answered += 1
        except CallFailed as error:
            log.debug("pulse of %s: %s", notes.desired.id, error)
        finally:
            self._asking, self._seen = False, None


def _counters(load: EngineLoad) -> tuple[float | None, ...]:
    return (load.iterations_total, load.prompt_tokens_total, load.generation_tokens_total)
