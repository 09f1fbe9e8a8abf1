"""The process tree: API server, `VLLM::EngineCore` below it, `VLLM::Worker` below that.

The children are forks of the still small API process: they hold none of its files but the standard three, do
nothing, and do not notice when the API server is killed. A worker ends with its engine core, an engine core
with its workers.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

from setproctitle import setproctitle

from supervisord_cp.engines.fake.log import log

_STOP: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeShape:
    """How many processes, what they are called, and how they misbehave."""

    prefix: str = "VLLM"
    workers: int = 1
    tensor_parallel: bool = False
    ignore_sigterm: bool = False
    escape: str = "none"
    """`setsid`: workers leave the session; `double_fork`: they leave their parent too. Either way they do not
    end with their engine core."""


def spawn_engine_core(shape: TreeShape) -> int:
    """Fork the engine core, which forks its workers; the process id of the engine core.

    Call it before there is an event loop or a thread.
    """
    return _fork(partial(_engine_core, shape))


def reap(pid: int) -> int | None:
    """The exit status of a child that has ended (negative: its signal), None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, if it is still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _fork(body: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
    finally:
        os._exit(70)  # body() ends the process itself; never return into the parent's code


def _engine_core(shape: TreeShape) -> NoReturn:
    os.closerange(3, 1 << 16)
    setproctitle(f"{shape.prefix}::EngineCore")
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, signal.SIGCHLD})
    watch, alive = os.pipe()
    workers = {_fork(partial(_worker, shape, rank, watch, alive)): rank for rank in range(shape.workers)}
    os.close(watch)
    while True:
        number = signal.sigwait({*_STOP, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            if shape.ignore_sigterm:
                continue
            log(
                "EngineCore",
                os.getpid(),
                "core.py:1454",
                f"[shutdown] EngineCore: trigger received signal={signal.Signals(number).name}",
            )
            _end_workers(workers)
            os._exit(0)
        dead = [rank for pid, rank in workers.items() if reap(pid) is not None]
        if dead and shape.escape != "double_fork":
            message = f"Worker proc VllmWorker-{dead[0]} died unexpectedly, shutting down executor."
            log("EngineCore", os.getpid(), "multiproc_executor.py:316", message, "ERROR")
            _end_workers(workers)
            os._exit(1)


def _end_workers(workers: dict[int, int]) -> None:
    for pid in workers:
        send(pid, signal.SIGKILL)


def _worker(shape: TreeShape, rank: int, watch: int, alive: int) -> NoReturn:
    os.close(alive)
    setproctitle(f"{shape.prefix}::Worker" + (f"_TP{rank}" if shape.tensor_parallel else ""))
    for number in _STOP:
        signal.signal(number, signal.SIG_IGN if shape.ignore_sigterm else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_STOP, signal.SIGCHLD})
    if shape.escape == "none":
        os.read(watch, 1)  # returns when the engine core is gone
        os._exit(0)
    os.setsid()
    if shape.escape == "double_fork" and os.fork():
        os._exit(0)
    while True:
        signal.pause()
