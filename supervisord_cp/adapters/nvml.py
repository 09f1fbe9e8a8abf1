"""GPUs through a disposable probe: what may hang in the driver is a process that can be left behind."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Final

import msgspec

from supervisord_cp.adapters.child import Child
from supervisord_cp.adapters.nvml_lines import ProbeLine, Sample, fold, view
from supervisord_cp.clock import Clock
from supervisord_cp.model.base import DeviceId, Value
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from supervisord_cp.ports.gpu import GpuReading

log = logging.getLogger(__name__)

PROBE: Final = "supervisord_cp.adapters.nvml_probe"
LONGEST_LINE: Final = 8 * 1024 * 1024
DRIVER_FOLDER: Final = Path("/proc/driver/nvidia/gpus")


class ProbeTiming(Value, frozen=True, kw_only=True):
    """How patient the reader is with its probe; all in seconds."""

    interval_s: float = 1.0
    first_line_s: float = 30.0
    """A driver without persistence mode takes seconds per GPU to come up."""
    silent_s: float = 10.0
    """Without a line for so long the probe is killed, and what it read last is unknown."""
    recheck_s: float = 60.0
    """How often a host without GPUs is looked at again."""
    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    kill_wait_s: float = 2.0


class _Ending(Enum):
    """How a probe's life ended."""

    ABSENT = auto()
    SILENT = auto()
    ENDED = auto()


class NvmlReader:
    """Keeps one probe running and its last lines at hand.

    A probe that is silent is killed and another one started, later each time. One that does not even
    die of SIGKILL (it sits in the driver) is left behind; a second one is waited for.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        environ: Mapping[str, str] | None = None,
        timing: ProbeTiming | None = None,
    ) -> None:
        """`environ` replaces the probe's whole environment."""
        self._clock = clock
        self._environ = environ
        self._timing = timing or ProbeTiming()
        self._known: dict[DeviceId, Sample] | None = None
        self._reason = Reason(code=ReasonCode.GPUS_NOT_READ_YET)
        self._task: asyncio.Task[None] | None = None
        self._probe: Child | None = None
        self._abandoned: Child | None = None

    async def start(self) -> None:
        """Begin to read; returns before the first reading is there."""
        self._task = asyncio.create_task(self._watch(), name="gpu probe")

    def read(self) -> GpuReading:
        """The last reading, at once."""
        if self._known is None:
            return GpuReading(gpus=None, reason=self._reason)
        gpus = view(self._known, self._clock.now(), self._timing.silent_s)
        return GpuReading(gpus=gpus, reason=self._reason)

    async def stop(self) -> None:
        """End the probe; returns after `kill_wait_s` also when it does not end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for process in (self._probe, self._abandoned):
            if process is not None:
                await self._kill(process)

    async def _watch(self) -> None:
        delay = self._timing.first_delay_s
        while True:
            known_before = self._known
            try:
                ending = await self._run_probe()
            except OSError as error:
                self._say(Reason(code=ReasonCode.PROBE_FAILED, params={"error": str(error)}))
                ending = _Ending.ENDED
            if ending is _Ending.ABSENT:
                await asyncio.sleep(self._timing.recheck_s)
                continue
            if self._known is not known_before:
                delay = self._timing.first_delay_s
            await asyncio.sleep(delay)
            delay = min(self._timing.longest_delay_s, delay * 2)

    async def _run_probe(self) -> _Ending:
        """One probe from its start to its end."""
        self._probe = process = await Child.start(
            _probe_argv("--interval", str(self._timing.interval_s)), env=self._environ, limit=LONGEST_LINE
        )
        ending = await self._follow(process)
        if ending is _Ending.SILENT:
            self._say(Reason(code=ReasonCode.GPU_DRIVER_SILENT))
        if not await self._kill(process):
            await self._abandon(process)
        self._probe = None
        if (
            ending is _Ending.ENDED
            and process.returncode
            and self._reason.code is not ReasonCode.PROBE_FAILED
        ):
            error = f"it ended with status {process.returncode}"
            self._say(Reason(code=ReasonCode.PROBE_FAILED, params={"error": error}))
        return ending

    async def _follow(self, process: Child) -> _Ending:
        """Take in lines until there are no more, or none in time."""
        patience = self._timing.first_line_s
        while True:
            try:
                async with asyncio.timeout(patience):
                    text = await process.stdout.readline()
                if not text:
                    return _Ending.ENDED
                line = msgspec.json.decode(text, type=ProbeLine)
            except TimeoutError:
                return _Ending.SILENT
            except ValueError as error:  # a line that is too long, or none of ours
                self._say(Reason(code=ReasonCode.PROBE_FAILED, params={"error": str(error)}))
                return _Ending.ENDED
            self._take(line)
            if line.absent:
                return _Ending.ABSENT
            patience = self._timing.silent_s

    def _take(self, line: ProbeLine) -> None:
        if line.error:
            self._say(Reason(code=ReasonCode.PROBE_FAILED, params={"error": line.error}))
        elif line.absent:
            # GPUs that were there and are not any more are unknown once their samples are old.
            self._known = self._known or {}
            self._say(Reason(code=ReasonCode.NO_GPU, params={"error": line.absent}))
        else:
            self._known = fold(self._known or {}, line, self._clock.now())
            self._say(NO_REASON)

    def _say(self, reason: Reason) -> None:
        """Keep the reason, and log it when it is news."""
        if reason == self._reason:
            return
        self._reason = reason
        if reason == NO_REASON:
            log.info("GPUs are being read: %d", len(self._known or {}))
        elif reason.code is ReasonCode.NO_GPU and not self._known:
            log.info("%s", render(reason))
        else:
            log.warning("GPUs cannot be read: %s", render(reason))

    async def _kill(self, process: Child) -> bool:
        """SIGKILL and a short wait. False: it does not die, so it sits in a call of the driver."""
        process.kill()
        try:
            async with asyncio.timeout(self._timing.kill_wait_s):
                await process.wait()
        except TimeoutError:
            return False
        return True

    async def _abandon(self, process: Child) -> None:
        """Leave it behind. With one left behind already, wait until either has ended."""
        log.error("the GPU probe %d does not die of SIGKILL; it is left behind", process.pid)
        earlier = self._abandoned
        while earlier is not None and earlier.returncode is None and process.returncode is None:
            await asyncio.sleep(self._timing.kill_wait_s)
        if process.returncode is None:
            self._abandoned = process


def has_gpu(
    timeout_s: float, *, environ: Mapping[str, str] | None = None, driver_folder: Path = DRIVER_FOLDER
) -> bool:
    """Whether this host has a GPU that NVML knows. Blocks for `timeout_s` at most, and a moment.

    A driver that is there but gives no answer counts by the GPUs that the kernel module has listed.
    """
    line = sweep_once(timeout_s, environ=environ)
    if line.error:
        return driver_folder.is_dir() and any(driver_folder.iterdir())
    return bool(line.gpus or line.unreadable)


def sweep_once(timeout_s: float, *, environ: Mapping[str, str] | None = None) -> ProbeLine:
    """What NVML says now. Blocks for `timeout_s` at most, and a moment; `error` says if it gave no answer."""
    probe = subprocess.Popen(
        _probe_argv("--once"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=None if environ is None else dict(environ),
        start_new_session=True,
    )
    try:
        answer, _ = probe.communicate(timeout=timeout_s)
        return msgspec.json.decode(answer, type=ProbeLine)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        return ProbeLine(error="no answer")
    finally:
        _leave(probe)


def _leave(probe: subprocess.Popen[bytes]) -> None:
    """Kill it without waiting for long: it may sit in the driver."""
    probe.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        probe.wait(timeout=1.0)
    if probe.stdout is not None:
        probe.stdout.close()


def _probe_argv(*options: str) -> list[str]:
    # -P: a folder of our package's name where the agent happens to be started is not taken for it.
    return [sys.executable, "-P", "-m", PROBE, *options]
