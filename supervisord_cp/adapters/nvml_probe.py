"""The process that talks to NVML, so that nobody else hangs when the driver does.

`python -m supervisord_cp.adapters.nvml_probe` writes one line (`nvml_lines.ProbeLine`, JSON) a second to
stdout until it is killed, its parent ends, or there is nothing to read on this host.
"""

import argparse
import ctypes
import pwd
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec
import psutil
import pynvml as nvml

from supervisord_cp.adapters.nvml_calls import FIELD_ABSENT, SEVERITY, Asker, Handle, health_of
from supervisord_cp.adapters.nvml_events import XidEvents
from supervisord_cp.adapters.nvml_lines import ProbeLine, Unreadable, Xid
from supervisord_cp.adapters.nvml_signs import read_signs
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder

REOPEN_AFTER_SWEEPS: Final = 60
COMMAND_LENGTH: Final = 120
COMMAND_WORDS: Final = 16
PR_SET_PDEATHSIG: Final = 1

NOT_HERE: Final = frozenset({nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED})


def main() -> int:
    """Sweep until told otherwise. 0: said what there is to say; 1: NVML as a whole failed."""
    parser = argparse.ArgumentParser(description="Reads GPUs through NVML, one JSON line a sweep.")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--once", action="store_true", help="one sweep, then end")
    options = parser.parse_args()
    _end_with_parent()
    try:
        nvml.nvmlInit()
        _sweep_all(options.interval, options.once)
    except nvml.NVMLError as error:
        absent = error.value in NOT_HERE
        _write(ProbeLine(absent=str(error)) if absent else ProbeLine(error=str(error)))
        return 0 if absent else 1
    return 0


def _sweep_all(interval_s: float, once: bool) -> None:
    owners = _Owners()
    events = None if once else XidEvents()
    xids: tuple[Xid, ...] = ()
    troubled = 0
    while True:
        started = time.monotonic()
        line = msgspec.structs.replace(sweep(owners), xids=xids)
        _write(line)
        healthy = not line.unreadable and all(gpu.health is GpuHealth.HEALTHY for gpu in line.gpus)
        troubled = 0 if healthy else troubled + 1
        # A GPU that comes back is seen only by a process that opens the library anew.
        if events is None or line.absent or troubled >= REOPEN_AFTER_SWEEPS:
            return
        xids = events.wait(started + interval_s - time.monotonic())


def sweep(owners: "_Owners") -> ProbeLine:
    """Read every GPU once.

    Raises:
        NVMLError: not even their number can be read.
    """
    count = nvml.nvmlDeviceGetCount()
    if not count:
        return ProbeLine(absent="the driver lists none")
    read: list[tuple[float, Gpu]] = []
    unreadable: list[Unreadable] = []
    partitioned: list[DeviceId] = []
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if _mig_enabled(handle):
                partitioned.append(DeviceId(nvml.nvmlDeviceGetUUID(handle)))
                for device in list(_mig_devices(handle)):
                    at = time.monotonic()
                    read.append((at, read_device(device, index, owners, parent=handle)))
            else:
                at = time.monotonic()
                read.append((at, read_device(handle, index, owners)))
        except nvml.NVMLError as error:
            unreadable.append(Unreadable(index=index, health=health_of(error), error=str(error)))
    now = time.monotonic()
    return ProbeLine(
        gpus=tuple(msgspec.structs.replace(gpu, age_ms=round((now - at) * 1000)) for at, gpu in read),
        unreadable=tuple(unreadable),
        partitioned=tuple(partitioned),
    )


def read_device(handle: Handle, index: int, owners: "_Owners", *, parent: Handle | None = None) -> Gpu:
    """Read one GPU or MIG device; what it does not offer is None.

    A MIG device is as warm and as well as its `parent`.

    Raises:
        NVMLError: it has no UUID to be known by.
    """
    uuid = DeviceId(nvml.nvmlDeviceGetUUID(handle))
    ask = Asker(handle)
    ask_whole = ask if parent is None else Asker(parent)
    name = ask(nvml.nvmlDeviceGetName)
    # The first version of this call counts what the driver reserves as used: total - used is really free.
    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    rates = ask(nvml.nvmlDeviceGetUtilizationRates)
    temperature = ask_whole(lambda device: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))
    milliwatts = ask_whole(nvml.nvmlDeviceGetPowerUsage)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3) or ()
    signs = read_signs(ask_whole)
    return Gpu(
        uuid=uuid,
        index=index,
        name=name or "",
        memory_total=memory and memory.total,
        memory_used=memory and memory.used,
        utilization=rates and rates.gpu / 100,
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if milliwatts is None else milliwatts / 1000,
        holders=tuple(owners.holder(process.pid, process.usedGpuMemory or 0) for process in processes),
        health=max(ask.health, ask_whole.health, key=SEVERITY.index),
        signs=signs,
        parent=None if parent is None else DeviceId(nvml.nvmlDeviceGetUUID(parent)),
    )


class _Owners:
    """Tells who a process is. Names of users are looked up once: the lookup may go over a network."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def holder(self, pid: int, used: int) -> Holder:
        """The process as a holder of `used` bytes; one that is not to be seen here has no owner."""
        try:
            process = psutil.Process(pid)
            owner, command = self._name(process.uids().real), shown_command(process.cmdline())
        except (psutil.Error, ValueError):
            owner, command = "", ""
        return Holder(pid=pid, owner=owner, command=command, bytes=used)

    def _name(self, uid: int) -> str:
        if uid not in self._names:
            try:
                self._names[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self._names[uid] = str(uid)
        return self._names[uid]


def shown_command(argv: list[str]) -> str:
    """A command line up to its first option, printable: options of strangers may carry secrets."""
    shown: list[str] = []
    words = iter(" ".join(argv[:COMMAND_WORDS]).split())
    for word in words:
        if word == "-m":
            shown += [word, *islice(words, 1)]
        elif word.startswith("-"):
            break
        else:
            shown.append(word)
    text = " ".join(shown)[:COMMAND_LENGTH]
    return "".join(character if character.isprintable() else "?" for character in text)


def _mig_enabled(handle: Handle) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value in FIELD_ABSENT:
            return False
        raise
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _mig_devices(handle: Handle) -> Iterator[Handle]:
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise


def _end_with_parent() -> None:
    """Do not outlive the reader, not even inside a call that does not return."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(line: ProbeLine) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
