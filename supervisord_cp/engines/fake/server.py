"""The API server's life: start, serve, notice that the engine core died, drain, end."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from supervisord_cp.engines.fake.app import build_app
from supervisord_cp.engines.fake.connection import Connection, ServerState
from supervisord_cp.engines.fake.engine import Engine
from supervisord_cp.engines.fake.failures import CORE_FAILED
from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.generate import Service
from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.listener import address_of
from supervisord_cp.engines.fake.log import log, log_http, log_lines
from supervisord_cp.engines.fake.metrics import MetricsPage, PageFacts
from supervisord_cp.engines.fake.options import Options
from supervisord_cp.engines.fake.processes import reap, send
from supervisord_cp.engines.fake.scheduler import Limits
from supervisord_cp.engines.fake.startup import StartFailed, Startup

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_BACKLOG: Final = 2048
_POLL_S: Final = 0.01
_GRACE_S: Final = 5.0
"""How long the engine core and open connections may take to end."""


class Server:
    """One engine's API server. Made inside the event loop that runs it."""

    def __init__(self, options: Options, knobs: Knobs, listener: socket.socket, engine_pid: int) -> None:
        self._options = options
        self._listener = listener
        self._engine_pid = engine_pid
        self._pid = os.getpid()
        self._faults = Faults(knobs, on_change=self._arm)
        self._engine = Engine(
            _limits(options, knobs),
            self._faults,
            max_queued=options.max_queued_requests,
            max_queued_tokens=options.max_queued_tokens,
        )
        self._stopping = asyncio.Event()
        self._engine_gone = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self, startup: Startup) -> int:
        """Start, serve until told to end or until the engine core dies, and end; the exit status.

        Raises:
            StartFailed: it does not come so far.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self._watch_engine()
        try:
            await self._first(self._load(startup), self._stopping.wait(), self._engine_gone.wait())
        except StartFailed:
            await self._end_children()
            raise
        if self._stopping.is_set():
            return await self._interrupted()
        if self._engine_gone.is_set():
            log_lines([CORE_FAILED])
            raise StartFailed(1)
        return await self._serve(startup)

    async def _load(self, startup: Startup) -> None:
        for phase in startup.phases(self._engine_pid):
            startup.begin(phase)
            await asyncio.sleep(phase.seconds)
            startup.end(phase)
        if self._faults.knobs.never_ready:
            await asyncio.Event().wait()

    async def _serve(self, startup: Startup) -> int:
        loop = asyncio.get_running_loop()
        state = self._server_state()
        if self._options.uds:
            listening: asyncio.Server = await loop.create_unix_server(
                lambda: Connection(state), sock=self._listener, backlog=_BACKLOG
            )
        else:
            listening = await loop.create_server(
                lambda: Connection(state), sock=self._listener, backlog=_BACKLOG
            )
        startup.serve(address_of(self._options))
        computing = asyncio.create_task(self._engine.run())
        self._arm({"exit_after_s": None, "engine_dies_after_s": None})
        code = 0
        try:
            await self._first(self._stopping.wait(), self._engine_death())
            if self._stopping.is_set():
                await self._drain()
            else:
                code = 1 if self._faults.knobs.on_engine_death == "exit1" else 0
            await self._close(listening, state)
        finally:
            computing.cancel()
        return code

    def _server_state(self) -> ServerState:
        service = Service(self._options, self._engine, self._faults, self._faults.knobs.version)
        facts = PageFacts(
            version=self._faults.knobs.version,
            model_name=self._options.served_names[0],
            created=time.time(),
            cache_config=_cache_config(self._options, self._engine.scheduler.capacity),
        )
        return ServerState(
            handler=build_app(service, self._faults, MetricsPage(facts)),
            keep_alive_s=self._options.keep_alive_s,
            access_log=self._options.access_log,
            quiet_paths=self._options.quiet_paths,
        )

    async def _engine_death(self) -> None:
        """Return when the engine core is dead and the watchdog has seen it; never, if that is survived."""
        await self._engine_gone.wait()
        message = "AsyncLLM output_handler failed. vllm.v1.engine.exceptions.EngineDeadError"
        self._say("async_llm.py:906", message, "ERROR")
        self._engine.die()
        while self._options.keep_alive_on_death or self._faults.knobs.on_engine_death == "stay":
            await asyncio.sleep(self._faults.knobs.watchdog_s)
        await asyncio.sleep(self._faults.knobs.watchdog_s)

    async def _drain(self) -> None:
        """Let requests finish as far as `--shutdown-timeout` allows, end the children, fail the rest."""
        timeout = self._options.shutdown_timeout_s
        mode = "drain" if timeout else "abort"
        self._say(
            "launcher.py:270", f"[shutdown] API server: stopping engine client mode={mode} timeout={timeout}s"
        )
        self._engine.draining = True
        deadline = _now() + timeout
        while self._engine.unfinished and _now() < deadline and not self._engine_gone.is_set():
            await asyncio.sleep(_POLL_S)
        await self._end_children()
        await asyncio.sleep(self._faults.knobs.shutdown_s)
        while self._faults.knobs.shutdown_hang:
            await asyncio.sleep(_POLL_S)
        self._say("launcher.py:279", "[shutdown] API server: engine client stopped")
        self._engine.die()

    async def _close(self, listening: asyncio.Server, state: ServerState) -> None:
        """Close the listener and the connections; a connection may finish what it writes."""
        log_http("Shutting down")
        listening.close()
        state.closing = True
        for connection in list(state.connections):
            connection.finish()
        deadline = _now() + _GRACE_S
        while state.connections and _now() < deadline:
            await asyncio.sleep(_POLL_S)
        for connection in list(state.connections):
            connection.abort()
        log_http("Waiting for application shutdown.")
        log_http("Application shutdown complete.")
        log_http(f"Finished server process [{self._pid}]")

    async def _interrupted(self) -> int:
        """A signal during the start: vLLM ends of a KeyboardInterrupt, when it ends."""
        await self._end_children()
        while self._faults.knobs.shutdown_hang:
            await asyncio.sleep(_POLL_S)
        return -signal.SIGINT

    async def _end_children(self) -> None:
        if self._faults.knobs.leave_children or self._engine_gone.is_set():
            return
        send(self._engine_pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._engine_gone.wait(), _GRACE_S)
        except TimeoutError:
            send(self._engine_pid, signal.SIGKILL)
            await self._engine_gone.wait()

    def _on_signal(self) -> None:
        if not self._faults.knobs.ignore_sigterm and not self._stopping.is_set():
            self._say("launcher.py:254", "[shutdown] API server: shutdown triggered")
            self._stopping.set()

    def _watch_engine(self) -> None:
        """Set `_engine_gone` when the engine core has ended."""
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(self._engine_pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            reap(self._engine_pid)
            self._engine_gone.set()

        loop.add_reader(pidfd, ended)

    def _arm(self, changes: Mapping[str, Any]) -> None:
        """Set the timers of the knobs that are named, as they are now."""
        loop = asyncio.get_running_loop()
        actions = {"exit_after_s": self._crash, "engine_dies_after_s": self._kill_engine}
        for name in actions.keys() & changes.keys():
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
            seconds: float | None = getattr(self._faults.knobs, name)
            if seconds is not None:
                self._timers[name] = loop.call_later(seconds, actions[name])

    def _crash(self) -> None:
        if not self._faults.knobs.leave_children:
            send(self._engine_pid, signal.SIGKILL)
        os._exit(self._faults.knobs.exit_code)

    def _kill_engine(self) -> None:
        send(self._engine_pid, signal.SIGKILL)

    async def _first(self, *waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait for the first of several things and drop the others.

        Raises:
            Exception: what the first one raised.
        """
        tasks = [asyncio.ensure_future(item) for item in waiting]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    def _say(self, place: str, message: str, level: str = "INFO") -> None:
        log("APIServer", self._pid, place, message, level)


def _limits(options: Options, knobs: Knobs) -> Limits:
    return Limits(
        max_seqs=options.max_num_seqs,
        max_batched_tokens=options.max_batched_tokens,
        block_size=options.block_size,
        capacity_tokens=knobs.kv_tokens,
        prefix_caching=options.prefix_caching,
    )


def _cache_config(options: Options, blocks: int) -> dict[str, str]:
    return {
        "block_size": str(options.block_size),
        "enable_prefix_caching": str(options.prefix_caching),
        "gpu_memory_utilization": str(options.gpu_memory_utilization),
        "kv_cache_max_concurrency": str(blocks * options.block_size / options.max_model_len),
        "kv_cache_size_tokens": str(blocks * options.block_size),
        "num_gpu_blocks": str(blocks),
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
