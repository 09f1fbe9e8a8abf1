"""The node's GPUs with what is thought of their health, and word of every change of it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from supervisord_cp.agent.state import StateDir
from supervisord_cp.clock import Clock
from supervisord_cp.core.instances.gpu_health import GpuRecord, judge, judged, resumed
from supervisord_cp.core.instances.xids import meaning_of
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.reason import render
from supervisord_cp.ports.gpu import GpuPort, GpuReading

LOOK_S: Final = 0.5

_SEVERITIES: Final = {
    GpuHealth.HEALTHY: Severity.INFO,
    GpuHealth.UNKNOWN: Severity.WARNING,
    GpuHealth.SUSPECT: Severity.WARNING,
    GpuHealth.QUARANTINED: Severity.ERROR,
    GpuHealth.LOST: Severity.ERROR,
}

Records = dict[DeviceId, GpuRecord]


class GpuWatch:
    """A `GpuPort` over one that only reads. What it has concluded outlives the agent, not the boot."""

    def __init__(self, gpu: GpuPort, *, clock: Clock, state: StateDir) -> None:
        self._gpu = gpu
        self._clock = clock
        self._state = state
        now = clock.now()
        self._records = {uuid: resumed(record, now) for uuid, record in state.load_gpus().items()}
        self._news: list[Event] = []

    async def start(self) -> None:
        """Begin to read."""
        await self._gpu.start()

    async def stop(self) -> None:
        """Stop reading."""
        await self._gpu.stop()

    def read(self) -> GpuReading:
        """The last reading, judged."""
        reading = self._gpu.read()
        if not reading.gpus:
            return reading
        now, before = self._clock.now(), self._records
        self._records = {gpu.uuid: judge(before.get(gpu.uuid), gpu, now) for gpu in reading.gpus}
        self._news += _news(before, self._records, reading.gpus)
        if _lasting(before) != _lasting(self._records):
            self._state.save_gpus(self._records)
        return replace(reading, gpus=tuple(judged(gpu, self._records[gpu.uuid], now) for gpu in reading.gpus))

    async def run(self, tell: Callable[[Event], None]) -> None:
        """Look often, and tell what has changed; until cancelled."""
        while True:
            self.read()
            news, self._news = self._news, []
            for event in news:
                tell(event)
            await asyncio.sleep(LOOK_S)


def _lasting(records: Records) -> dict[DeviceId, tuple[object, ...]]:
    """What is worth a file: not the times that move along with a condition that lasts."""
    return {
        uuid: (record.health, record.reason, record.quarantines, record.ecc)
        for uuid, record in records.items()
    }


def _news(before: Records, after: Records, gpus: tuple[Gpu, ...]) -> Iterator[Event]:
    for gpu in gpus:
        old, new = before.get(gpu.uuid), after[gpu.uuid]
        yield from _xid_news(gpu, {} if old is None else old.xids)
        was = GpuHealth.HEALTHY if old is None else old.health
        if new.health is not was:
            words = render(new.reason)
            yield Event(
                kind="gpu.health",
                subject=gpu.uuid,
                message=f"GPU {gpu.index}: {new.health}" + (f": {words}" if words else ""),
                severity=_SEVERITIES[new.health],
                reason=new.reason,
                data={"index": gpu.index, "from": was.value, "to": new.health.value},
            )


def _xid_news(gpu: Gpu, counted: dict[int, int]) -> Iterator[Event]:
    for xid, count in gpu.signs.xids.items():
        if count > counted.get(xid, 0):
            meaning = meaning_of(xid)
            yield Event(
                kind="gpu.xid",
                subject=gpu.uuid,
                message=f"GPU {gpu.index}: Xid {xid}, {meaning.words}",
                severity=Severity.WARNING,
                data={"index": gpu.index, "xid": xid, "count": count - counted.get(xid, 0)},
            )
