"""Batches, blocks and the prefix cache, step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.engines.fake.engine import step_seconds
from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.scheduler import Job, Limits, PrefixCache, Scheduler, Step, prefix_of


def job(tokens: int, **fields: object) -> Job:
    return Job(prompt_tokens=tokens, **fields)  # type: ignore[arg-type]


def run(scheduler: Scheduler, *, limit: int = 1000) -> int:
    """Steps until every job has ten tokens; how many it took."""
    for steps in range(limit):
        if not scheduler.has_work:
            return steps
        for ready in scheduler.end_step(scheduler.begin_step()):
            if ready.generated == 10:
                scheduler.remove(ready)
    raise AssertionError("never done")


def test_a_prompt_gets_its_first_token_from_its_prefill() -> None:
    scheduler = Scheduler(Limits())
    one = job(100)
    scheduler.add(one)
    step = scheduler.begin_step()
    assert (step.prefill_tokens, step.decode, step.admitted) == (100, (), (one,))
    assert scheduler.end_step(step) == [one]
    step = scheduler.begin_step()
    assert (step.prefill_tokens, step.decode) == (0, (one,))
    assert scheduler.end_step(step) == [one]
    assert one.generated == 2


def test_no_more_sequences_run_than_allowed() -> None:
    scheduler = Scheduler(Limits(max_seqs=2))
    for _ in range(3):
        scheduler.add(job(5))
    scheduler.begin_step()
    assert (len(scheduler.running), len(scheduler.waiting)) == (2, 1)


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    scheduler = Scheduler(Limits(max_batched_tokens=64))
    short, long = job(10), job(150)
    scheduler.add(short)
    scheduler.end_step(scheduler.begin_step())
    scheduler.add(long)
    chunks = []
    while not long.generated:
        step = scheduler.begin_step()
        assert step.decode == (short,)
        chunks.append(step.prefill_tokens)
        scheduler.end_step(step)
    assert chunks == [63, 63, 24]


def test_the_waiting_are_served_by_priority_then_arrival() -> None:
    scheduler = Scheduler(Limits())
    jobs = [job(1, priority=priority) for priority in (1, 0, 1, -1)]
    for each in jobs:
        scheduler.add(each)
    assert list(scheduler.waiting) == [jobs[3], jobs[1], jobs[0], jobs[2]]


def test_without_blocks_a_job_waits() -> None:
    scheduler = Scheduler(Limits(block_size=16, capacity_tokens=64))
    scheduler.add(job(40))
    scheduler.add(job(40))
    scheduler.begin_step()
    assert (len(scheduler.running), len(scheduler.waiting)) == (1, 1)
    assert scheduler.usage == 3 / 4


def test_the_youngest_is_preempted_and_computed_again() -> None:
    scheduler = Scheduler(Limits(block_size=4, capacity_tokens=32))
    old, young = job(11), job(11)
    scheduler.add(old)
    scheduler.add(young)
    preempted: list[Job] = []
    while not preempted:
        step = scheduler.begin_step()
        preempted += step.preempted
        scheduler.end_step(step)
    assert preempted == [young]
    assert (young.computed, scheduler.preemptions) == (0, 1)
    kept = young.generated
    scheduler.remove(old)
    step = scheduler.begin_step()
    assert step.prefill == ((young, 11 + kept),)
    assert scheduler.end_step(step) == [young]
    assert young.generated == kept + 1


def test_while_paused_nothing_is_admitted_and_what_runs_goes_on() -> None:
    scheduler = Scheduler(Limits())
    scheduler.add(job(5))
    scheduler.end_step(scheduler.begin_step())
    scheduler.add(job(5))
    scheduler.admitting = False
    assert scheduler.begin_step().admitted == ()
    assert scheduler.has_work
    scheduler.remove(scheduler.running[0])
    assert not scheduler.has_work


def test_a_known_prefix_is_not_computed_again() -> None:
    scheduler = Scheduler(Limits(block_size=4))
    tokens = list(range(18))
    first = job(18, prefix=prefix_of(tokens, 4))
    scheduler.add(first)
    scheduler.end_step(scheduler.begin_step())
    same = job(18, prefix=prefix_of(tokens, 4))
    other = job(18, prefix=prefix_of([*tokens[:9], *range(100, 109)], 4))
    scheduler.add(same)
    scheduler.add(other)
    step = scheduler.begin_step()
    assert dict(step.prefill) == {same: 2, other: 10}
    assert (same.cached, other.cached) == (16, 8)
    assert (scheduler.cache.queries, scheduler.cache.hits) == (54, 24)


def prefill_again(scheduler: Scheduler, tokens: int) -> tuple[Job, int]:
    """The same prompt twice: the second job, and the tokens its prefill computes."""
    prefix = prefix_of(range(tokens), 4)
    first, second = job(tokens, prefix=prefix), job(tokens, prefix=prefix)
    scheduler.add(first)
    scheduler.end_step(scheduler.begin_step())
    scheduler.remove(first)
    scheduler.add(second)
    return second, scheduler.begin_step().prefill_tokens


def test_a_prompt_that_is_known_to_the_last_token_is_not_free() -> None:
    second, computed = prefill_again(Scheduler(Limits(block_size=4)), 16)
    assert (second.cached, computed) == (15, 1)


def test_the_prefix_cache_can_be_off() -> None:
    second, computed = prefill_again(Scheduler(Limits(block_size=4, prefix_caching=False)), 16)
    assert (second.cached, computed) == (0, 16)


@pytest.mark.parametrize(
    ("decodes", "prompt", "knobs", "seconds"),
    [
        (1, 0, {}, 0.002),
        (11, 0, {}, 0.0022),
        (0, 500, {}, 0.002 + 0.005),
        (1, 500, {"first_token_ms": 100.0}, 0.102 + 0.005),
        (1, 0, {"first_token_ms": 100.0}, 0.002),
        (0, 100, {"itl_ms": 0.0, "prefill_tokens_per_s": 1000.0}, 0.1),
    ],
)
def test_a_step_takes_what_its_tokens_take(
    decodes: int, prompt: int, knobs: dict[str, float], seconds: float
) -> None:
    decode = tuple(job(1, generated=1) for _ in range(decodes))
    prefill = ((job(prompt), prompt),) if prompt else ()
    step = Step(decode=decode, prefill=prefill, admitted=(), preempted=())
    assert step_seconds(step, Knobs(**knobs)) == pytest.approx(seconds)  # type: ignore[arg-type]


def test_digests_cover_all_blocks_before_and_the_salt() -> None:
    one, two = prefix_of([1, 2, 3, 4, 5], 2), prefix_of([9, 2, 3, 4], 2)
    assert len(one) == len(two) == 2
    assert not set(one) & set(two)
    assert prefix_of([1, 2], 2, salt=1) != prefix_of([1, 2], 2, salt=2)


def test_the_prefix_cache_forgets_the_least_recently_used() -> None:
    cache = PrefixCache(3)
    cache.insert((1, 2))
    cache.insert((3,))
    cache.match((1,))
    cache.insert((4,))
    assert [cache.match((block,)) for block in (1, 2, 3, 4)] == [1, 0, 1, 1]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(8, 80),
)
def test_every_job_is_served_and_every_block_comes_back(
    jobs: list[tuple[int, bool]], max_seqs: int, budget: int
) -> None:
    limits = Limits(max_seqs=max_seqs, max_batched_tokens=budget, block_size=4, capacity_tokens=96)
    scheduler = Scheduler(limits)
    for tokens, aborted in jobs:
        one = job(tokens, prefix=prefix_of(range(tokens), 4))
        scheduler.add(one)
        step = scheduler.begin_step()
        if aborted:
            scheduler.remove(one)
        ended = [ready for ready in scheduler.end_step(step) if ready.generated == 10]
        assert one not in ended
        for ready in ended:
            scheduler.remove(ready)
        assert 0 <= scheduler.usage <= 1
    run(scheduler)
    assert scheduler.usage == 0
    assert not scheduler.running
    assert not scheduler.waiting
