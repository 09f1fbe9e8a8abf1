"""What an Xid says of the GPU that it happened on.

From NVIDIA's "Xid catalog" for Ampere and newer (docs.nvidia.com/deploy/xid-errors, the immediate action's
resolution bucket), as of drivers R565 to R580. Where we differ, it is said.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.gpu import GpuHealth


class XidMeaning(Value, frozen=True, kw_only=True):
    """An Xid and how well a GPU is after it."""

    words: str
    health: GpuHealth


def meaning_of(xid: int) -> XidMeaning:
    """What is known of an Xid; one that is not in the table makes its GPU suspect."""
    return _MEANINGS.get(xid, _UNKNOWN)


def ends_engines(xid: int) -> bool:
    """Whether it explains the end of an engine that used the GPU. Some only report such an end (43, 45)."""
    return meaning_of(xid).health is not GpuHealth.HEALTHY or xid in _ENDS_APPLICATIONS


_ENDS_APPLICATIONS: Final = frozenset({11, 13, 25, 31, 32, 68, 69, 80})
_UNKNOWN: Final = XidMeaning(words="not in our table", health=GpuHealth.SUSPECT)

_HEALTHY: Final[Mapping[int, str]] = {
    # RESTART_APP: an application's doing, or an engine that the application restarts with.
    11: "invalid push buffer stream",
    13: "graphics engine exception, as a rule the application's",
    25: "invalid push buffer stream",
    31: "memory page fault, as a rule the application's",
    32: "invalid push buffer stream",
    68: "video decoder exception",
    69: "graphics engine class error",
    80: "corrupted push buffer",
    # IGNORE: nothing to do, or another Xid says what.
    14: "injected by a test",
    37: "driver firmware error",
    38: "driver firmware watchdog",
    43: "an application was stopped after an error of its own",
    44: "fault during a context switch",
    45: "an application was torn down, after a kill or another error",
    63: "a memory row is remapped at the next reset",
    66: "illegal access by the driver",
    67: "illegal access by the driver",
    92: "high rate of corrected memory errors",
    93: "InfoROM wear limit",
    106: "test message",
    107: "test message",
    108: "NVLink remote translation error",
    121: "corrected C2C link errors",
    137: "NVLink privilege error, as a rule the application's",
    141: "CUDA fast path error",
    154: "the recovery action has changed",  # which is read by itself
    160: "channel retired",
    161: "channel could not be retired",
    162: "power smoothing on",
    163: "power smoothing off",
    164: "power smoothing hardware near its end",
    165: "power smoothing hardware at its end",
    171: "uncorrectable DRAM error; Xid 48 goes with it",
    172: "uncorrectable SRAM error; Xid 48 goes with it",
}

_SUSPECT: Final[Mapping[int, str]] = {
    8: "GPU stopped processing",  # RESTART_APP
    54: "auxiliary power is not connected",  # CHECK_MECHANICALS
    78: "vGPU start error",  # UPDATE_SWFW
    94: "contained memory error",  # RESTART_APP; NVIDIA: reset when convenient
    # RESET_GPU; a kernel of the application that hangs causes it too, and the device plugin of Kubernetes
    # ignores it. When the GPU itself is stuck, the recovery action says so.
    109: "context switch timeout",
    # WORKFLOW_NVLINK5_ERR: from nothing to a reset by its sub-code, which NVML does not give.
    **dict.fromkeys(range(144, 151), "NVLink 5 error"),
    157: "no spare resources left for a repair",  # IGNORE; may come again
    167: "PCIe fatal timeout",  # no bucket yet, nor the next two
    168: "reduced memory capacity",
    169: "security processor halted",
}

_QUARANTINED: Final[Mapping[int, str]] = {
    46: "GPU stopped processing",  # RESET_GPU, as the others without a remark
    48: "uncorrectable memory error",  # WORKFLOW_XID_48: needs a reset or a reboot
    62: "internal microcontroller halted",
    64: "memory row could not be remapped",
    74: "NVLink error",  # WORKFLOW_NVLINK_ERR: needs a reset or a reboot
    79: "fallen off the bus",  # RESTART_BM: the machine has to be rebooted
    95: "uncontained memory error",
    110: "security fault",
    119: "GSP firmware does not answer",
    120: "GSP firmware error",
    136: "NVLink training failed",
    140: "unrecovered memory error",
    143: "initialization error",
    151: "key rotation error",  # RESTART_VM
    155: "NVLink error defined by software",
    156: "resource retired",
    158: "fatal timeout",
}

_COPY_ENGINES: Final = (39, 40, 41, *range(70, 73), *range(75, 78), 85, *range(126, 136))
_MEDIA_ENGINES: Final = (60, *range(82, 85), 86, 88, 89, *range(96, 106), 139, 142)

_MEANINGS: Final[Mapping[int, XidMeaning]] = MappingProxyType(
    {
        xid: XidMeaning(words=words, health=health)
        for health, table in (
            # RESTART_APP
            (GpuHealth.HEALTHY, dict.fromkeys(_COPY_ENGINES, "copy engine exception")),
            (GpuHealth.HEALTHY, dict.fromkeys(_MEDIA_ENGINES, "media engine exception")),
            (GpuHealth.HEALTHY, _HEALTHY),
            (GpuHealth.SUSPECT, _SUSPECT),
            (GpuHealth.QUARANTINED, _QUARANTINED),
        )
        for xid, words in table.items()
    }
)
