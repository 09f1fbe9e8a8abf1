"""The signs by which a GPU's condition is judged, as NVML gives them. Judging is done elsewhere."""

from types import MappingProxyType
from typing import Final

import pynvml as nvml

from supervisord_cp.adapters.nvml_calls import Asker, Handle
from supervisord_cp.model.gpu import GpuSigns, RecoveryAction, Slowdown

# A software power cap is left out: under full load it is how a GPU normally runs.
_SLOWDOWNS: Final = (
    (nvml.nvmlClocksEventReasonHwSlowdown, Slowdown.HARDWARE),
    (nvml.nvmlClocksEventReasonHwThermalSlowdown, Slowdown.HARDWARE_THERMAL),
    (nvml.nvmlClocksEventReasonSwThermalSlowdown, Slowdown.SOFTWARE_THERMAL),
    (nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, Slowdown.POWER_BRAKE),
)
_ACTIONS: Final = MappingProxyType(
    {
        nvml.NVML_GPU_RECOVERY_ACTION_NONE: RecoveryAction.NONE,
        nvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: RecoveryAction.GPU_RESET,
        nvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: RecoveryAction.NODE_REBOOT,
        nvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: RecoveryAction.DRAIN_P2P,
        nvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: RecoveryAction.DRAIN_AND_RESET,
        nvml.NVML_GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: RecoveryAction.RECOVER_IMEX,
        nvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: RecoveryAction.BUS_RESET,
        nvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: RecoveryAction.SYSTEM_REBOOT,
    }
)


def read_signs(ask: Asker) -> GpuSigns:
    """The signs of one GPU, Xids excepted: those are events."""
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
    remapped = ask(nvml.nvmlDeviceGetRemappedRows)
    return GpuSigns(
        slowdowns=tuple(slowdown for bit, slowdown in _SLOWDOWNS if reasons & bit),
        ecc_uncorrected=ask(_ecc_uncorrected),
        remap_pending=None if remapped is None else bool(remapped[2]),
        remap_failed=None if remapped is None else bool(remapped[3]),
        recovery=ask(_recovery),
    )


def _ecc_uncorrected(handle: Handle) -> int:
    return int(
        nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        )
    )


def _recovery(handle: Handle) -> RecoveryAction:
    (field,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if field.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(field.nvmlReturn)
    return _ACTIONS.get(field.value.uiVal, RecoveryAction.UNKNOWN)
