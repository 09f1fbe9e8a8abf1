"""Continuous batching, simply: which sequences compute what in a step, and how long the step takes.

Pure: no clock, no I/O. Tokens are counted, never looked at.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One sequence as the scheduler sees it."""

    prompt_tokens: int
    prefix: tuple[int, ...] = ()
    """Digests of the prompt's full blocks, each covering all before it."""
    priority: int = 0
    """Lower is sooner; equal ones in order of arrival."""
    generated: int = 0
    computed: int = 0
    """Tokens whose keys and values exist."""
    cached: int = 0
    """Tokens of the prompt that came from the prefix cache on first admission."""
    blocks: int = 0
    preemptions: int = 0
    fresh: bool = True
    """Never admitted yet."""

    @property
    def length(self) -> int:
        return self.prompt_tokens + self.generated

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one comes: one when decoding, more in a prefill."""
        return self.length - self.computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One forward pass."""

    decode: tuple[Job, ...]
    prefill: tuple[tuple[Job, int], ...]
    """Jobs with the tokens of their prompt computed in this step."""
    admitted: tuple[Job, ...]
    preempted: tuple[Job, ...]

    @property
    def prefill_tokens(self) -> int:
        return sum(tokens for _, tokens in self.prefill)

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + len(self.decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine was configured with."""

    max_seqs: int = 256
    max_batched_tokens: int = 8192
    block_size: int = 16
    capacity_tokens: int = 262_144
    prefix_caching: bool = True


class PrefixCache:
    """Digests of blocks that were computed, least recently used ones forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity: Final = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.queries = 0
        self.hits = 0

    def match(self, prefix: Sequence[int]) -> int:
        """How many leading blocks are known."""
        found = 0
        for block in prefix:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            found += 1
        return found

    def insert(self, prefix: Iterable[int]) -> None:
        for block in prefix:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()


@dataclass(slots=True)
class Scheduler:
    """The waiting queue, the running batch and the KV blocks they hold."""

    limits: Limits
    waiting: deque[Job] = field(default_factory=deque)
    running: list[Job] = field(default_factory=list)
    cache: PrefixCache = field(init=False)
    admitting: bool = True
    """False while paused: what waits goes on waiting."""
    preemptions: int = 0
    _blocks_used: int = 0

    def __post_init__(self) -> None:
        self.cache = PrefixCache(self.capacity)

    @property
    def capacity(self) -> int:
        """KV blocks in all."""
        return max(1, self.limits.capacity_tokens // self.limits.block_size)

    @property
    def usage(self) -> float:
        """Share of the KV blocks that running sequences hold, 0 to 1."""
        return self._blocks_used / self.capacity

    @property
    def has_work(self) -> bool:
        return bool(self.running) or (self.admitting and bool(self.waiting))

    def add(self, job: Job) -> None:
        """Queue a sequence behind those of its priority."""
        place = len(self.waiting)
        while place and self.waiting[place - 1].priority > job.priority:
            place -= 1
        self.waiting.insert(place, job)

    def remove(self, job: Job) -> None:
        """Forget a sequence that ended or was aborted; what is not known is ignored."""
        if job in self.running:
            self.running.remove(job)
            self._release(job)
        elif job in self.waiting:
            self.waiting.remove(job)

    def begin_step(self) -> Step:
        """Choose the next step: decodes first, then prompts already begun, then new ones, as far as tokens,
        sequences and blocks allow. Sequences without room are preempted, the youngest first."""
        preempted = self._make_room()
        decode = tuple(job for job in self.running if job.missing == 1)
        budget = self.limits.max_batched_tokens - len(decode)
        prefill: list[tuple[Job, int]] = []
        for job in self.running:
            if job.missing > 1 and budget > 0:
                prefill.append((job, min(job.missing, budget)))
                budget -= prefill[-1][1]
        admitted = []
        while budget > 0 and self.admitting and self.waiting and len(self.running) < self.limits.max_seqs:
            job = self.waiting[0]
            if not self._admit(job):
                break
            self.waiting.popleft()
            admitted.append(job)
            prefill.append((job, min(job.missing, budget)))
            budget -= prefill[-1][1]
        return Step(
            decode=decode, prefill=tuple(prefill), admitted=tuple(admitted), preempted=tuple(preempted)
        )

    def end_step(self, step: Step) -> list[Job]:
        """Account for a step that was computed; the jobs that get a token from it, in batch order.
        What was removed meanwhile gets none."""
        ready = []
        for job, tokens in (*((job, 1) for job in step.decode), *step.prefill):
            if not job.blocks:
                continue
            job.computed += tokens
            if job.missing == 0:
                if not job.generated:
                    self.cache.insert(job.prefix)
                job.generated += 1
                ready.append(job)
        return ready

    def _admit(self, job: Job) -> bool:
        need = self._blocks_for(job.length + 1)
        if self._blocks_used + need > self.capacity:
            return False
        known = 0
        if self.limits.prefix_caching:
            known = min(self.cache.match(job.prefix) * self.limits.block_size, job.prompt_tokens - 1)
        if job.fresh:
            job.fresh, job.cached = False, known
            self.cache.queries += job.prompt_tokens
            self.cache.hits += known
        job.computed, job.blocks = known, need
        self._blocks_used += need
        self.running.append(job)
        return True

    def _make_room(self) -> list[Job]:
        """Give each running sequence the block that its next token needs."""
        preempted: list[Job] = []
        for job in list(self.running):
            if not job.blocks:
                continue  # preempted a moment ago
            need = self._blocks_for(job.length + 1) - job.blocks
            while need > 0 and self._blocks_used + need > self.capacity:
                preempted.append(self._preempt())
                if not job.blocks:
                    break
            else:
                job.blocks += need
                self._blocks_used += need
        return preempted

    def _preempt(self) -> Job:
        job = self.running.pop()
        self._release(job)
        job.computed = 0
        job.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(job)
        return job

    def _release(self, job: Job) -> None:
        self._blocks_used -= job.blocks
        job.blocks = 0

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_size)


def prefix_of(tokens: Sequence[int], block_size: int, salt: int = 0) -> tuple[int, ...]:
    """Digests of the full blocks of a prompt; equal prompts with equal salts have equal ones."""
    digests = []
    last = salt
    for start in range(0, len(tokens) - block_size + 1, block_size):
        last = hash((last, *tokens[start : start + block_size]))
        digests.append(last)
    return tuple(digests)
