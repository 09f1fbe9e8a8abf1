"""Streams through a router that is restarted all the time, and through a fleet whose instances come and go.

    python benchmarks/router_restarts.py [--streams 500] [--seconds 30] [--every 5] [--processes 2]

Starts `up` with fake engines, keeps so many streams of so many seconds open, and meanwhile restarts the
router (`supervisord-cp restart router`) every few seconds; then, under a second batch of streams, drains one
instance, restarts another and kills a third. Prints what became of the streams, what is still in flight,
and the memory of the router's processes.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

PROGRAM: Final = (sys.executable, "-P", "-m", "supervisord_cp")
MODEL: Final = "fake-llama"
INSTANCES: Final = 4
TOKENS_PER_S: Final = 5.0
START_S: Final = 120.0


class Fleet:
    """`up` on free ports."""

    def __init__(self, folder: Path, processes: int) -> None:
        self._folder = folder
        self.processes = processes
        self._up: subprocess.Popen[str] | None = None
        self.api = self.control = ""

    async def start(self) -> None:
        """Once to have a configuration written, once with the one that is wanted."""
        words = ["--engine", "fake", "--replicas", str(INSTANCES), "--api", "127.0.0.1:0"]
        knobs = ["--", "--fake-itl-ms", str(1000 / TOKENS_PER_S), "--max-num-seqs", "1024"]
        await self._run([*words, "--control", "127.0.0.1:0", *knobs])
        await self.stop()
        text = (self._folder / "state" / "up.toml").read_text()
        own = self._folder / "own.toml"
        own.write_text(text.replace("[router]\n", f"[router]\nprocesses = {self.processes}\n"))
        await self._run(["-c", str(own)])

    async def _run(self, words: list[str]) -> None:
        log = self._folder / "up.log"
        with log.open("w") as out:
            self._up = subprocess.Popen(  # noqa: ASYNC220
                [*PROGRAM, "up", "--state-dir", str(self._folder / "state"), *words], stdout=out, text=True
            )
        deadline = time.monotonic() + START_S
        while "engines ready." not in (said := log.read_text()):
            if self._up.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the fleet did not start:\n{said}")
            await asyncio.sleep(0.1)
        self.api = re.findall(r"^API +(\S+)/v1$", said, re.MULTILINE)[0]
        self.control = re.findall(r"^Control +(\S+)$", said, re.MULTILINE)[0]

    async def stop(self) -> None:
        if self._up is not None:
            self._up.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._up.wait, START_S)
            self._up = None

    async def ask(self, *words: str) -> str:
        """What a client command says."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *words, "--address", self.control,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return (await process.communicate())[0].decode()

    async def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self.ask("instances", "-o", "json"))
        return found

    def router(self) -> list[psutil.Process]:
        """The processes that serve."""
        assert self._up is not None
        found = []
        for process in psutil.Process(self._up.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "supervisord_cp.router" in process.cmdline():
                    found.append(process)
        return found

    def memory_mb(self) -> float:
        """Resident memory of the processes that serve."""
        return sum(process.memory_info().rss for process in self.router()) / 2**20

    async def inflight(self, session: aiohttp.ClientSession) -> int:
        """Open requests as the routers count them."""
        async with session.get(f"{self.control}/metrics") as answer:
            page = await answer.text()
        counts = re.findall(r"^supervisord_cp_inflight_requests\{.*\} (\d+)$", page, re.MULTILINE)
        return sum(map(int, counts))


async def stream(session: aiohttp.ClientSession, api: str, seconds: float) -> tuple[str, str]:
    """What became of one stream, and which instance it was on."""
    tokens = int(seconds * TOKENS_PER_S)
    body = {"model": MODEL, "prompt": "x", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    instance, tail = "", b""
    try:
        async with session.post(f"{api}/v1/completions", json=body) as answer:
            instance = answer.headers.get("x-supervisord-cp-instance", "")
            if answer.status != 200:
                return f"status {answer.status}", instance
            async for chunk in answer.content.iter_any():
                tail = (tail + chunk)[-64:]
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"cut: {type(error).__name__}", instance
    return ("complete" if tail.endswith(b"data: [DONE]\n\n") else "cut: no end"), instance


async def batch(
    fleet: Fleet, streams: int, seconds: float, disturb: Callable[[asyncio.Event], Awaitable[None]]
) -> list[tuple[str, str]]:
    """Open streams over a second, then see to it that things happen until all have ended."""
    over = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        tasks = []
        for _ in range(streams):
            tasks.append(asyncio.create_task(stream(session, fleet.api, seconds)))
            await asyncio.sleep(1.0 / streams)
        disturbing = asyncio.create_task(disturb(over))
        outcomes = await asyncio.gather(*tasks)
        over.set()
        await disturbing
    return list(outcomes)


async def settled(fleet: Fleet) -> tuple[int, float]:
    """In-flight requests and memory once nothing is open any more."""
    deadline, open_ = time.monotonic() + 30.0, 0
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            open_ = await fleet.inflight(session)
            if not open_ and len(fleet.router()) == fleet.processes:
                break
            await asyncio.sleep(0.2)
    return open_, fleet.memory_mb()


def table(outcomes: list[tuple[str, str]]) -> str:
    counts = Counter(what for what, _ in outcomes)
    return ", ".join(f"{number} {what}" for what, number in counts.most_common())


async def restarts(fleet: Fleet, arguments: argparse.Namespace) -> None:
    done = []

    async def disturb(over: asyncio.Event) -> None:
        while not over.is_set():
            said = (await fleet.ask("restart", "router")).strip()
            done.append(said.endswith("restarted"))
            try:
                await asyncio.wait_for(over.wait(), arguments.every)
            except TimeoutError:
                continue

    before = fleet.memory_mb()
    outcomes = await batch(fleet, arguments.streams, arguments.seconds, disturb)
    open_, after = await settled(fleet)
    print(f"router restarted {sum(done)} times ({len(done) - sum(done)} refused): {table(outcomes)}")
    print(f"  in flight afterwards {open_}; memory of the serving processes {before:.0f} -> {after:.0f} MB")


async def churn(fleet: Fleet, arguments: argparse.Namespace) -> None:
    drained, restarted, killed = (f"{MODEL}-{n}" for n in range(3))

    async def disturb(over: asyncio.Event) -> None:
        await asyncio.sleep(arguments.seconds / 10)
        print(f"  {(await fleet.ask('drain', drained)).strip()}")
        print(f"  {(await fleet.ask('restart', restarted)).strip()}")
        victim = next(item for item in await fleet.instances() if item["id"] == killed)
        psutil.Process(victim["pid"]).kill()

    before = fleet.memory_mb()
    outcomes = await batch(fleet, arguments.streams, arguments.seconds, disturb)
    open_, after = await settled(fleet)
    for what, name in (("drained", drained), ("restarted", restarted), ("killed", killed)):
        print(f"  {what} {name}: {table([one for one in outcomes if one[1] == name])}")
    print(f"  untouched: {table([one for one in outcomes if one[1] not in (drained, restarted, killed)])}")
    print(f"  in flight afterwards {open_}; memory of the serving processes {before:.0f} -> {after:.0f} MB")


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), arguments.processes)
        try:
            await fleet.start()
            await batch(fleet, arguments.streams, 1.0, lambda over: over.wait())  # memory that is needed once
            await restarts(fleet, arguments)
            print("instances drained, restarted and killed:")
            await churn(fleet, arguments)
        finally:
            await fleet.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
