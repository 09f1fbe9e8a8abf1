"""What this host has: GPUs, a vLLM, free ports."""

import asyncio
import shutil
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.listeners import bind_error, in_use, listener_of
from supervisord_cp.adapters.nvml import NvmlReader
from supervisord_cp.cli.up_plan import Host, Wish
from supervisord_cp.clock import SystemClock
from supervisord_cp.config.schema import Listen
from supervisord_cp.errors import SupervisordError, UsageError
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.ports.gpu import GpuReading

DRIVER_PATIENCE_S: Final = 30.0
"""A driver without persistence mode takes seconds per GPU to come up."""
POLL_S: Final = 0.02
ENGINE_PORTS: Final = 100
"""Ports in a block that engines get theirs from."""
FIRST_BLOCK: Final = 8000
LAST_BLOCK: Final = 29900


def look_at_host(wish: Wish) -> Host:
    """GPUs, where they matter for the wish, and the vLLM on PATH.

    Raises:
        SupervisordError: there is a driver, and it does not answer.
    """
    found = shutil.which("vllm")
    vllm = str(Path(found).absolute()) if found else ""
    if wish.device == "cpu" or (wish.engine == "fake" and wish.device == "auto"):
        return Host(vllm=vllm)
    reading = asyncio.run(_read_gpus())
    if reading.gpus is None:
        raise SupervisordError(f"{render(reading.reason)} (--device cpu does without GPUs)")
    return Host(gpus=reading.gpus, vllm=vllm)


async def _read_gpus() -> GpuReading:
    """The first reading, or what is known when patience ends."""
    reader = NvmlReader(clock=SystemClock())
    await reader.start()
    try:
        for _ in range(round(DRIVER_PATIENCE_S / POLL_S)):
            reading = reader.read()
            if reading.gpus is not None or reading.reason.code is not ReasonCode.GPUS_NOT_READ_YET:
                break
            await asyncio.sleep(POLL_S)
        return reader.read()
    finally:
        await reader.stop()


def settled(listen: Listen) -> Listen:
    """The listener with port 0 replaced by a free port."""
    if listen.port:
        return listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((listen.host, 0))
        return Listen(host=listen.host, port=probe.getsockname()[1])


def require_free(listen: Listen, option: str) -> None:
    """Make sure that we can listen there.

    Raises:
        UsageError: we cannot; the text says who holds it, when that can be seen, and what to do.
    """
    error = bind_error(listen.host, listen.port)
    if error is None:
        return
    if not in_use(error):
        raise UsageError(f"{option} {listen}: {error.strerror or error}")
    holder = listener_of(listen.port)
    raise SupervisordError(
        f"{listen} is taken{f' by {holder}' if holder else ''}; say another one: {option} HOST:PORT"
    )


def metrics_listen(control: Listen, api: Listen) -> Listen | None:
    """Where the agent's own metrics go: the port after the control listener's, if it is free."""
    beside = Listen(host=control.host, port=control.port + 1)
    if not beside.loopback or beside.port > 65535 or beside.port == api.port:
        return None
    return None if bind_error(beside.host, beside.port) else beside


def engine_ports(others: Collection[int]) -> tuple[int, int]:
    """A block of ports of which none is taken or wanted by `others`; the first block when there is none."""
    for first in range(FIRST_BLOCK, LAST_BLOCK + 1, ENGINE_PORTS):
        block = range(first, first + ENGINE_PORTS)
        if all(port not in others and bind_error("127.0.0.1", port) is None for port in block):
            return block[0], block[-1]
    return FIRST_BLOCK, FIRST_BLOCK + ENGINE_PORTS - 1
