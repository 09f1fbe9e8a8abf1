"""The instances of a node and what they occupy: derived when asked, so that nothing can drift."""

from collections.abc import Mapping
from dataclasses import dataclass

from supervisord_cp.agent.instance import Instance
from supervisord_cp.core.instances.admission import Occupancy
from supervisord_cp.core.instances.life import LOADING
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.launch import Generation
from supervisord_cp.ports.gpu import GpuPort


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a node is and what it offers."""

    name: str
    device_kind: str
    """`cuda` or `cpu`."""
    slots: tuple[DeviceId, ...]


class Roster:
    """What there is on this node now."""

    def __init__(self, identity: Identity, gpu: GpuPort) -> None:
        self.identity = identity
        self.instances: dict[InstanceId, Instance] = {}
        self.generation: Generation | None = None
        """The desired state that is on disk and acted upon."""
        self._gpu = gpu

    def occupancy(self) -> Occupancy:
        """What instances use now."""
        instances = self.instances.values()
        return Occupancy(
            devices={device: one.id for one in instances for device in one.devices_held()},
            loading=sum(one.life.stage in LOADING for one in instances),
        )

    def known_devices(self) -> tuple[DeviceId, ...] | None:
        """What engines can be put on; None: not known now."""
        if self.identity.device_kind == "cpu":
            return self.identity.slots
        gpus = self._gpu.read().gpus
        return None if gpus is None else tuple(gpu.uuid for gpu in gpus)

    def gpus(self) -> Mapping[DeviceId, Gpu]:
        """Their last samples."""
        return {gpu.uuid: gpu for gpu in self._gpu.read().gpus or ()}

    def device_indexes(self) -> dict[DeviceId, int]:
        """NVML's numbers of the GPUs, as long as CUDA numbers them in the same way; else none.

        A lost GPU, or one in MIG mode, shifts one count and not the other. Without numbers engines are
        pinned by UUID, which names one GPU whatever happens.
        """
        gpus = self._gpu.read().gpus or ()
        plain = all(gpu.parent is None and gpu.health is not GpuHealth.LOST for gpu in gpus)
        if not plain or sorted(gpu.index for gpu in gpus) != list(range(len(gpus))):
            return {}
        return {gpu.uuid: gpu.index for gpu in gpus}

    def ports_in_use(self) -> set[int]:
        """Ports on which engines may listen."""
        return {one.port for one in self.instances.values() if one.port is not None}

    def ports_kept(self) -> set[int]:
        """Last ports of all instances."""
        return {one.last_port for one in self.instances.values() if one.last_port is not None}

    def owners(self) -> dict[int, InstanceId]:
        """Processes of our engines, by pid. Looks through the host's processes."""
        return {
            pid: one.id
            for one in self.instances.values()
            if one.running is not None
            for pid in one.running.process.survivors()
        }
