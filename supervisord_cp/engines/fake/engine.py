"""The engine: sequences in, tokens out, at the pace of the latency model.

One task computes steps. A step is planned by the scheduler, takes as long as the knobs say, and gives each
sequence of the batch one token, which its consumer reads with `async for`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.scheduler import Job, Limits, Scheduler, Step, prefix_of
from supervisord_cp.engines.fake.telemetry import RequestTimes, Telemetry
from supervisord_cp.engines.fake.text import Continuation, token_id

DEAD: Final = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class EngineDead(Exception):
    """The engine core is gone."""


class QueueFull(Exception):
    """An admission limit is reached; the text is vLLM's flag for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One sequence to generate."""

    prompt: str
    prompt_ids: Sequence[int]
    max_tokens: int
    """At least 1."""
    choice: int = 0
    stop: tuple[str, ...] = ()
    natural_end: bool = True
    """Whether the answer may end by itself before `max_tokens`."""
    priority: int = 0
    salt: int = 0
    """Sequences with different salts share no prefix cache."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added to a sequence."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    """`stop`, `length` or `abort` on the last one."""
    stop_reason: str | None = None
    """The stop string that was met."""


class Generation:
    """One sequence: read its deltas with `async for`, then or in between `Engine.close` it."""

    def __init__(self, work: Work, job: Job, now: float) -> None:
        self.work = work
        self.job = job
        self.times = RequestTimes(arrived=now)
        self.text = ""
        """All text so far, withheld characters included."""
        self.ended = False
        self._continuation = Continuation(work.prompt, work.choice)
        self._shown = 0
        self._hold = max((len(stop) - 1 for stop in work.stop), default=0)
        self._ready: deque[Delta | Exception] = deque()
        self._wakeup: asyncio.Future[None] | None = None

    async def deltas(self) -> AsyncIterator[Delta]:
        """Deltas up to the one with a finish reason.

        Raises:
            EngineDead: the engine core died.
        """
        while True:
            while not self._ready:
                self._wakeup = asyncio.get_running_loop().create_future()
                await self._wakeup
            item = self._ready.popleft()
            if isinstance(item, Exception):
                raise item
            yield item
            if item.finish_reason is not None:
                return

    def advance(self, output_tokens: int) -> str | None:
        """Take the next token; the finish reason, if that was the last one."""
        piece = self._continuation.next()
        self.text += piece.decode()
        reason, stop_reason = None, None
        for stop in self.work.stop:
            found = self.text.find(stop, max(0, self._shown - len(stop)))
            if found >= 0:
                self.text = self.text[:found]
                reason, stop_reason = "stop", stop
                break
        else:
            if self.job.generated >= self.work.max_tokens:
                reason = "length"
            elif self.work.natural_end and self.job.generated >= output_tokens:
                reason = "stop"
        end = len(self.text) if reason else max(self._shown, len(self.text) - self._hold)
        self.push(Delta(self.text[self._shown : end], (token_id(piece),), reason, stop_reason))
        self._shown = end
        return reason

    def push(self, item: Delta | Exception) -> None:
        """Hand something to the consumer."""
        self._ready.append(item)
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class Engine:
    """Generations, the scheduler that serves them, and the task that computes."""

    def __init__(
        self, limits: Limits, faults: Faults, *, max_queued: int | None, max_queued_tokens: int | None
    ) -> None:
        self.scheduler: Final = Scheduler(limits)
        self.telemetry: Final = Telemetry()
        self.sleep_level: int | None = None
        self.weights = True
        """Whether they are what was loaded; level 2 discards them, and the memory that it gets back holds
        anything until they are loaded again."""
        self._discarded: set[str] = set()
        self.dead = False
        self.draining = False
        """New sequences end at once with `abort`."""
        self._frozen = False
        self._faults = faults
        self._max_queued = max_queued
        self._max_queued_tokens = max_queued_tokens
        self._open: dict[Job, Generation] = {}
        self._changed = asyncio.Event()

    @property
    def unfinished(self) -> int:
        """Sequences running or waiting."""
        return len(self._open)

    @property
    def paused(self) -> bool:
        return not self.scheduler.admitting

    def submit(self, work: Work) -> Generation:
        """Queue a sequence.

        Raises:
            EngineDead: the engine core is gone.
            QueueFull: an admission limit is reached.
        """
        if self.dead:
            raise EngineDead(DEAD)
        self._check_admission(len(work.prompt_ids))
        prefix = prefix_of(work.prompt_ids, self.scheduler.limits.block_size, work.salt)
        job = Job(prompt_tokens=max(1, len(work.prompt_ids)), prefix=prefix, priority=work.priority)
        generation = Generation(work if self.weights else _garbled(work), job, _now())
        if self.draining:
            generation.ended = True
            generation.push(Delta("", (), "abort"))
            return generation
        self.telemetry.seen += 1
        self._open[job] = generation
        self.scheduler.add(job)
        self.touch()
        return generation

    def close(self, generation: Generation) -> None:
        """Abort a sequence that has not ended; one that has is left alone."""
        if not generation.ended:
            self._end(generation, "abort")

    def abort(self, request_ids: frozenset[str] | None) -> int:
        """End sequences with finish reason `abort`: those of these requests, or all; how many there were."""
        chosen = [g for g in self._open.values() if request_ids is None or g.work.request_id in request_ids]
        for generation in chosen:
            self._end(generation, "abort")
            generation.push(Delta("", (), "abort"))
        return len(chosen)

    def pause(self, mode: str) -> None:
        """Stop computing: `abort` ends what is in flight, `wait` lets what runs finish, `keep` freezes it."""
        self.scheduler.admitting = False
        self._frozen = mode == "keep"
        if mode == "abort":
            self.abort(None)
        self.touch()

    def resume(self) -> None:
        """Compute again."""
        self.scheduler.admitting = True
        self._frozen = False
        self.touch()

    def sleep(self, level: int) -> None:
        """Give back memory; computing was paused before."""
        self.sleep_level = level
        self._discarded = {"weights", "kv_cache"} if level else set()
        if level:
            self.scheduler.cache.clear()
        self.weights = self.weights and level < 2

    def wake_up(self, tags: list[str] | None) -> bool:
        """Take memory again, all of it or what the tags say; whether all of it is back, and it computes."""
        self._discarded -= self._discarded if tags is None else set(tags)
        if self._discarded:
            return False
        if self.sleep_level is not None and self._faults.knobs.wake_garbled:
            self.weights = False
        self.sleep_level = None
        self.resume()
        return True

    def reload_weights(self) -> None:
        """Load them from disk."""
        self.weights = True

    def die(self) -> None:
        """Fail everything in flight and everything to come."""
        self.dead = True
        for generation in list(self._open.values()):
            self._end(generation, "error")
            generation.push(EngineDead(DEAD))
        self.touch()

    def touch(self) -> None:
        """Look again at whether there is something to do."""
        self._changed.set()

    async def run(self) -> None:
        """Compute steps until cancelled."""
        due = _now()
        while True:
            await self._work()
            step = self.scheduler.begin_step()
            due = max(due, _now()) + step_seconds(step, self._faults.knobs)
            self._admit(step)
            await _sleep_until(due)
            while self._stuck():
                await self._change()
                due = _now()
            self._finish(step)

    def _check_admission(self, tokens: int) -> None:
        scheduler = self.scheduler
        waiting = scheduler.waiting
        free = max(0, scheduler.limits.max_seqs - len(scheduler.running))
        if self._max_queued is not None and len(waiting) >= self._max_queued + free:
            self.telemetry.rejected["max_num_queued_reqs"] += 1
            raise QueueFull("max_num_queued_reqs")
        if self._max_queued_tokens is not None:
            queued = sum(job.missing for job in waiting)
            if queued and queued + tokens > self._max_queued_tokens:
                self.telemetry.rejected["max_num_queued_tokens"] += 1
                raise QueueFull("max_num_queued_tokens")

    async def _work(self) -> None:
        while self._stuck() or not self.scheduler.has_work:
            await self._change()

    def _stuck(self) -> bool:
        return self.dead or self._frozen or (self._faults.knobs.hang and bool(self.scheduler.running))

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _admit(self, step: Step) -> None:
        self.telemetry.max_running = max(self.telemetry.max_running, len(self.scheduler.running))
        now = _now()
        for job in step.admitted:
            generation = self._open[job]
            if generation.times.admitted is None:
                generation.times.admitted = now

    def _finish(self, step: Step) -> None:
        ready = self.scheduler.end_step(step)
        if step.tokens:
            self.telemetry.observe("iteration_tokens_total", step.tokens)
        now = _now()
        for job in ready:
            generation = self._open[job]
            if generation.times.first_token is None:
                self.telemetry.prompt(job)
            self.telemetry.token(generation.times, now)
            reason = generation.advance(self._faults.knobs.output_tokens)
            if reason is not None:
                self._end(generation, reason)

    def _end(self, generation: Generation, reason: str) -> None:
        generation.ended = True
        job = generation.job
        self._open.pop(job, None)
        self.scheduler.remove(job)
        self.telemetry.observe("request_params_max_tokens", generation.work.max_tokens)
        self.telemetry.observe("request_num_preemptions", job.preemptions)
        self.telemetry.finish(reason, generation.times, job.generated, _now())


def _garbled(work: Work) -> Work:
    """What is computed with weights that are not there: the answer to something else."""
    return replace(work, prompt=work.prompt[::-1] + "?")


def step_seconds(step: Step, knobs: Knobs) -> float:
    """How long a step takes by the latency model."""
    milliseconds = knobs.itl_ms + knobs.itl_per_sequence_ms * max(0, len(step.decode) - 1)
    if any(not job.generated for job, _ in step.prefill):
        milliseconds += knobs.first_token_ms
    return milliseconds / 1000 + step.prefill_tokens / max(1.0, knobs.prefill_tokens_per_s)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _sleep_until(due: float) -> None:
    await asyncio.sleep(max(0.0, due - _now()))
