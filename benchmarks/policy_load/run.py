"""One run: every request at its moment, what came of each, and the figures of all."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from policy_load.site import FLEET, MODEL, Site
from policy_load.workload import KEYS, SLO_TTFT_S, Ask

HITS: Final = "vllm:prefix_cache_hits_total"
QUERIES: Final = "vllm:prefix_cache_queries_total"
PREEMPTIONS: Final = "vllm:num_preemptions_total"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a request; times are seconds since it was asked, unless they say more."""

    ask: Ask
    status: int = 0
    instance: str = ""
    first_s: float | None = None
    total_s: float = 0.0
    ended_at: float = 0.0
    """Since the run began."""
    complete: bool = False

    @property
    def in_time(self) -> bool:
        """The whole answer before the deadline; without one, the first token within the objective."""
        if not self.complete or self.first_s is None:
            return False
        deadline = self.ask.deadline_s
        return self.first_s <= SLO_TTFT_S if deadline is None else self.total_s <= deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run."""

    requests: int
    in_time: float
    """Share of all requests; one that was refused is not."""
    high_in_time: float
    """The same of those with priority high."""
    refused: float
    p50_s: float
    p99_s: float
    """Time to first token."""
    high_p99_s: float
    """The same of those with priority high."""
    cost: float
    """Of the GPUs while they work, per 1,000 answers in time."""
    jain: float
    """Of the tokens that each key was served while all of them waited."""
    prefix_hits: float
    near: float
    """Share of the requests that stayed in the router's zone."""
    together: float
    """Share of the requests that went where most of their session went."""
    preemptions: int


async def run(site: Site, asks: Sequence[Ask], *, one_key: bool = False) -> Figures:
    """Ask, wait for the last answer, and work it out."""
    before = await site.counters(HITS, QUERIES, PREEMPTIONS)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_ask(site, ask, began, one_key=one_key)) for ask in asks]
    after = await site.counters(HITS, QUERIES, PREEMPTIONS)
    counted = {name: after[name] - before[name] for name in before}
    return _figures([task.result() for task in running], counted, asks[-1].at)


async def _ask(site: Site, ask: Ask, began: float, *, one_key: bool) -> Outcome:
    outcome = Outcome(ask=ask)
    body, headers = ask.body(MODEL), ask.headers(one_key=one_key)
    await asyncio.sleep(began + ask.at - time.monotonic())
    asked = time.monotonic()
    url = f"http://127.0.0.1:{site.api}/v1/chat/completions"
    try:
        async with site.http.post(url, data=body, headers=headers) as answer:
            outcome.status = answer.status
            outcome.instance = answer.headers.get("x-supervisord-cp-instance", "")
            last = b""
            async for chunk in answer.content.iter_any():
                if outcome.first_s is None and b'"delta":{"content":' in chunk:
                    outcome.first_s = time.monotonic() - asked
                last = (last + chunk)[-64:]
            outcome.complete = answer.status == 200 and last.rstrip().endswith(b"[DONE]")
    except aiohttp.ClientError:
        pass
    outcome.total_s = time.monotonic() - asked
    outcome.ended_at = asked + outcome.total_s - began
    return outcome


def _figures(outcomes: list[Outcome], counted: dict[str, float], lasted: float) -> Figures:
    high = [outcome for outcome in outcomes if outcome.ask.priority == "high"]
    in_time = sum(outcome.in_time for outcome in outcomes)
    return Figures(
        requests=len(outcomes),
        in_time=in_time / len(outcomes),
        high_in_time=sum(outcome.in_time for outcome in high) / len(high),
        refused=sum(outcome.status in (429, 503, 504) for outcome in outcomes) / len(outcomes),
        p50_s=_quantile((o.first_s for o in outcomes), 0.5),
        p99_s=_quantile((o.first_s for o in outcomes), 0.99),
        high_p99_s=_quantile((o.first_s for o in high), 0.99),
        cost=1000 * sum(map(_cost, _busy(outcomes).items())) / max(1, in_time),
        jain=_jain(outcomes, lasted),
        prefix_hits=counted[HITS] / max(1.0, counted[QUERIES]),
        near=_near(outcomes),
        together=_together(outcomes),
        preemptions=int(counted[PREEMPTIONS]),
    )


def _quantile(values: Iterable[float | None], share: float) -> float:
    known = sorted(value for value in values if value is not None)
    return known[min(len(known) - 1, int(share * len(known)))] if known else float("nan")


def _busy(outcomes: list[Outcome]) -> dict[str, float]:
    """Seconds in which each instance had at least one request."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for outcome in outcomes:
        if outcome.complete and outcome.first_s is not None:
            # from its first token: it waited in the router before, nobody sees how long
            begins = outcome.ended_at - outcome.total_s + outcome.first_s
            spans.setdefault(outcome.instance, []).append((begins, outcome.ended_at))
    busy: dict[str, float] = {}
    for instance, theirs in spans.items():
        reached = 0.0
        total = 0.0
        for begins, ends in sorted(theirs):
            total += max(0.0, ends - max(begins, reached))
            reached = max(reached, ends)
        busy[instance] = total
    return busy


def _cost(busy: tuple[str, float]) -> float:
    instance, seconds = busy
    return next(machine.cost_per_hour for machine in FLEET if machine.name == instance) * seconds / 3600


def _jain(outcomes: list[Outcome], lasted: float) -> float:
    """Jain's index of the tokens that keys got in the second half of the arrivals: 1, all got alike."""
    served = dict.fromkeys(KEYS, 0.0)
    for outcome in outcomes:
        if outcome.complete and lasted / 2 <= outcome.ended_at <= lasted:
            served[outcome.ask.key] += outcome.ask.max_tokens + _prompt_tokens(outcome.ask)
    total, squares = sum(served.values()), sum(value**2 for value in served.values())
    return total**2 / (len(served) * squares) if squares else float("nan")


def _prompt_tokens(ask: Ask) -> float:
    return sum(len(message["content"]) for message in ask.messages) / 4


def _near(outcomes: list[Outcome]) -> float:
    near = {machine.name for machine in FLEET if machine.zone == "near"}
    placed = [outcome for outcome in outcomes if outcome.instance]
    return sum(outcome.instance in near for outcome in placed) / max(1, len(placed))


def _together(outcomes: list[Outcome]) -> float:
    by_session: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.instance:
            by_session.setdefault(outcome.ask.session, []).append(outcome.instance)
    kept = sum(max(map(went.count, set(went))) for went in by_session.values())
    return kept / max(1, sum(map(len, by_session.values())))
