"""Clients that ask for completions and remember what became of each."""

import asyncio
import json
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one request."""

    stream: bool
    instance: str = ""
    """Who answered, once its head has come."""
    failure: str = ""


async def ask(session: aiohttp.ClientSession, api: str, model: str, number: int, *, stream: bool) -> Outcome:
    """One chat completion, taken in to its end."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"request {number}"}],
        "max_tokens": 8,
        "stream": stream,
    }
    instance = ""
    try:
        async with session.post(f"{api}/v1/chat/completions", json=body) as response:
            instance = response.headers.get("x-supervisord-cp-instance", "")
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Outcome(stream=stream, instance=instance, failure=repr(error))
    return Outcome(stream=stream, instance=instance, failure=_fault(response.status, content, stream))


def _fault(status: int, content: bytes, stream: bool) -> str:
    if status != 200:
        return f"status {status}: {content[:200]!r}"
    if stream:
        return "" if content.endswith(b"data: [DONE]\n\n") else f"cut after {content[-80:]!r}"
    choices = json.loads(content).get("choices")
    return "" if choices and choices[0]["message"]["content"] else f"no text: {content[:200]!r}"


async def load(
    api: str, model: str, requests: int, concurrency: int, started: asyncio.Event
) -> list[Outcome]:
    """Ask `requests` times, every second one streaming; `started` is set when a tenth is done."""
    outcomes: list[Outcome] = []
    numbers = iter(range(requests))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            outcomes.append(await ask(session, api, model, number, stream=number % 2 == 0))
            if len(outcomes) >= requests // 10:
                started.set()

    timeout = aiohttp.ClientTimeout(total=60.0)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(concurrency):
            group.create_task(client(session))
    return outcomes
