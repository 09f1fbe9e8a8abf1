"""Policies that misbehave in the processes that operators run, with requests all the time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.e2e.local import Up, configured
from tests.plugins.files import scorer, write
from tests.waiting import PATIENCE_S

pytestmark = [pytest.mark.process, pytest.mark.asyncio, pytest.mark.timeout(180)]

NONE = "there is no policy of this name"
FAULTS = {
    "raises": "raise RuntimeError('broken')",
    "sleeps": "time.sleep(60)",
    "loops": "while True: pass",
    "answers nonsense": "return ['x'] * len(candidates)",
    "changes what it is given": "request.id = 'x'",
    "ends the process": "raise SystemExit(1)",
}
"""In the router; while it is tried out it behaves."""
UNUSABLE = {"fails to import": "import nowhere_at_all\n", "is no Python": "def f(:\n"}


DEPLOYMENT = """
[plugins]
paths = ["plugins"]
[deployments.chat]
engine = "fake"
model = "m"
replicas = 2
args = { fake-itl-ms = 1 }
router = "mine"
"""


class Site:
    """`supervisord-cp up` with two fake engines and a folder of policies."""

    def __init__(self, root: Path) -> None:
        self.plugins = root / "plugins"
        self.plugins.mkdir()
        self._up = Up(root, ("-c", str(configured(root, DEPLOYMENT))))
        self._http = httpx.AsyncClient(timeout=30)
        self.asked = 0
        self.failures: list[str] = []

    @cached_property
    def api(self) -> str:
        return self._up.api

    @cached_property
    def control(self) -> str:
        return self._up.control

    async def get(self, what: str) -> Any:
        try:
            return (await self._http.get(f"{self.control}/api/v1/{what}")).json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return []

    async def row(self) -> dict[str, Any]:
        """The policy in `policy list`."""
        rows = await self.get("policies")
        return next((row for row in rows if row["name"] == "mine"), {})

    async def reload(self) -> None:
        await self._http.post(f"{self.control}/api/v1/policies/reload", json={}, timeout=60)

    async def ask(self) -> None:
        """One request, to be answered whatever the policy does."""
        self.asked += 1
        body = {"model": "m", "prompt": "x", "max_tokens": 2, "user": "bad"}
        try:
            answer = await self._http.post(f"{self.api}/v1/completions", json=body)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
        else:
            if answer.status_code != 200:
                self.failures.append(answer.text[:200])

    async def ask_for_ever(self) -> None:
        while True:
            await asyncio.gather(self.ask(), self.ask())

    async def until(self, true: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not true(row := await self.row()):
            assert time.monotonic() < deadline, f"never: {what}\n{row}\n{self._up.output[-3000:]}"
            await asyncio.sleep(0.05)
        return row

    async def close(self) -> None:
        await self._http.aclose()
        await asyncio.to_thread(self._up.close)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while [one["state"] for one in await made.get("instances")] != ["ready"] * 2:
            assert time.monotonic() < deadline, made._up.output[-3000:]
            await asyncio.sleep(0.1)
        yield made
    finally:
        await made.close()


def misbehaves(fault: str) -> str:
    body = f"if request.user == 'bad':\n        {fault}\n    return [0.0] * len(candidates)"
    return scorer("mine", body, before="import time\n")


async def test_no_request_fails_whatever_a_policy_does_and_removing_it_heals(site: Site) -> None:
    asking = asyncio.create_task(site.ask_for_ever())
    try:
        row = await site.until(lambda row: row.get("used_by"), "the name is known")
        assert row["problem"] == NONE
        for what, fault in FAULTS.items():
            path = write(site.plugins, "mine.py", misbehaves(fault))
            row = await site.until(lambda row: row.get("breaker_open"), f"{what}: the breaker opens")
            assert row["failures"] > 0, what
            assert row["problem"], what
            path.unlink()
            await site.until(
                lambda row: (
                    row["problem"] == "there is no policy of this name" and not row.get("breaker_open")
                ),
                f"{what}: without the file it is healed",
            )
        for what, text in UNUSABLE.items():
            write(site.plugins, "mine.py", text + misbehaves("pass"))
            rows: list[dict[str, Any]] = []
            deadline = time.monotonic() + PATIENCE_S
            while not any("mine.py" in str(row.get("problem")) for row in rows):
                assert time.monotonic() < deadline, f"never: {what} is told: {rows}"
                await site.reload()
                rows = await site.get("policies")
        write(site.plugins, "mine.py", misbehaves("pass"))
        row = await site.until(
            lambda row: row.get("calls") and row["problem"] == "" and not row["breaker_open"], "it decides"
        )
        asked = site.asked
        await site.until(lambda row: site.asked > asked + 20 and row["calls"], "and goes on")
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert site.failures == []
    assert site.asked > 50
    kinds = [event["kind"] for event in await site.get("events?limit=1000&subject=mine")]
    assert kinds.count("policy.breaker_open") == len(FAULTS)
    assert kinds.count("policy.gone") == len(FAULTS)
