"""GPUs in memory, with the behaviour of the real reader (tests/gpu/test_gpu_port.py runs over both)."""

import msgspec

from supervisord_cp.adapters.nvml_lines import ProbeLine, Sample, Unreadable, Xid, fold, view
from supervisord_cp.clock import Clock
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from supervisord_cp.ports.gpu import GpuReading

STALE_AFTER_S = 10.0


def gpu(index: int, *, total: int = 80 * 2**30, used: int = 0, name: str = "NVIDIA H100 80GB HBM3") -> Gpu:
    """A healthy GPU with an UUID that tells its index."""
    uuid = DeviceId(f"GPU-00000000-0000-0000-0000-{index:012}")
    return Gpu(uuid=uuid, index=index, name=name, memory_total=total, memory_used=used)


class FakeGpu:
    """A GpuPort whose driver does what a test says. Memory that holders have adds to `memory_used`."""

    def __init__(self, *gpus: Gpu, clock: Clock) -> None:
        self._clock = clock
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._unreadable: dict[DeviceId, Unreadable] = {}
        self._known: dict[DeviceId, Sample] | None = None
        self._xids: list[Xid] = []
        self._started = False
        self._silent = False

    async def start(self) -> None:
        self._started = True

    async def stop(self) -> None:
        self._started = False

    def read(self) -> GpuReading:
        if self._started and not self._silent:
            line = ProbeLine(gpus=tuple(self._gpus.values()), xids=tuple(self._xids))
            self._xids.clear()
            self._known = fold(self._known or {}, line, self._clock.now())
        if self._known is None:
            return GpuReading(gpus=None, reason=self._reason())
        return GpuReading(gpus=view(self._known, self._clock.now(), STALE_AFTER_S), reason=self._reason())

    def hold(self, uuid: DeviceId, pid: int, used: int, *, owner: str = "", command: str = "") -> None:
        """A process takes memory of a GPU."""
        one = self._gpus[uuid]
        holder = Holder(pid=pid, owner=owner, command=command, bytes=used)
        self._change(uuid, holders=(*one.holders, holder), memory_used=(one.memory_used or 0) + used)

    def release(self, pid: int) -> None:
        """A process gives back what it holds."""
        for one in list(self._gpus.values()):
            freed = sum(holder.bytes for holder in one.holders if holder.pid == pid)
            holders = tuple(holder for holder in one.holders if holder.pid != pid)
            self._change(one.uuid, holders=holders, memory_used=(one.memory_used or 0) - freed)

    def lose(self, uuid: DeviceId) -> None:
        """The driver says that a GPU is lost."""
        one = self._gpus.pop(uuid)
        self._unreadable[uuid] = Unreadable(index=one.index, health=GpuHealth.LOST)

    def remove(self, uuid: DeviceId) -> None:
        """The driver lists a GPU no more."""
        del self._gpus[uuid]

    def put(self, one: Gpu) -> None:
        """Add a GPU, or replace what is said of it."""
        self._unreadable.pop(one.uuid, None)
        self._gpus[one.uuid] = one

    def xid(self, uuid: DeviceId, code: int) -> None:
        """The driver reports an error."""
        self._xids.append(Xid(gpu=uuid, code=code))

    def silence(self) -> None:
        """The driver answers no more."""
        self._silent = True

    def answer(self) -> None:
        """The driver answers again."""
        self._silent = False

    def _change(self, uuid: DeviceId, **fields: object) -> None:
        self._gpus[uuid] = msgspec.structs.replace(self._gpus[uuid], **fields)

    def _reason(self) -> Reason:
        if self._silent:
            return Reason(code=ReasonCode.GPU_DRIVER_SILENT)
        if not self._started:
            return Reason(code=ReasonCode.GPUS_NOT_READ_YET)
        if not self._known:
            return Reason(code=ReasonCode.NO_GPU, params={"error": "the driver lists none"})
        return NO_REASON
