"""Driver and GPUs, from one sweep of NVML. Pure."""

from collections.abc import Collection, Iterator
from typing import Final

from supervisord_cp.adapters.nvml_lines import ProbeLine
from supervisord_cp.doctor.finding import Finding, error, ok, warning
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from supervisord_cp.model.reason import render

MISMATCH: Final = "mismatch"


def gpu_findings(line: ProbeLine, device: str, ours: Collection[int]) -> Iterator[Finding]:
    """`device` is the agent's: `cuda`, `cpu` or `auto`; `ours`: PIDs of engines that an agent started."""
    if device == "cpu":
        yield ok("GPUs", "not looked for: device is cpu")
        return
    yield from _driver(line, wanted=device == "cuda")
    for entry in line.unreadable:
        yield error(
            f"GPU {entry.index}",
            f"cannot be read ({entry.error})",
            "look at `dmesg | grep -i xid`; a GPU that fell off the bus needs a reboot of the host",
        )
    for gpu in line.gpus:
        yield from _gpu(gpu, ours)


def _driver(line: ProbeLine, *, wanted: bool) -> Iterator[Finding]:
    if line.absent:
        if wanted:
            yield error(
                "driver",
                f'device = "cuda", but there is no NVIDIA driver ({line.absent})',
                "install the driver (`ubuntu-drivers install`, or NVIDIA's packages) and reboot",
            )
        else:
            yield warning(
                "driver",
                f"no NVIDIA driver ({line.absent}): engines run on the CPU",
                'install the driver, or say device = "cpu" in [agent]',
            )
    elif MISMATCH in line.error.lower():
        yield error(
            "driver",
            f"{line.error}: the driver was upgraded while its old kernel module is loaded",
            "reboot; or stop all that uses GPUs, `rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia`, "
            "then `nvidia-smi`",
        )
    elif line.error:
        yield error(
            "driver",
            f"it does not answer ({line.error})",
            "look at `dmesg | tail` and `nvidia-smi`; a driver that hangs needs a reboot",
        )
    else:
        count = len(line.gpus) + len(line.unreadable)
        yield ok("driver", f"answers, {count} {'GPU' if count == 1 else 'GPUs'}")


def _gpu(gpu: Gpu, ours: Collection[int]) -> Iterator[Finding]:
    name = f"GPU {gpu.index}"
    strangers = [holder for holder in gpu.holders if holder.pid not in ours]
    if gpu.health is not GpuHealth.HEALTHY:
        yield error(
            name,
            f"{gpu.health}: {render(gpu.health_reason) or 'it reports errors'}",
            "see `supervisord-cp gpus`; a reset (`nvidia-smi --gpu-reset -i "
            f"{gpu.index}`, when nothing uses it) or a reboot may help",
        )
    for holder in strangers:
        size = holder.bytes / 2**30
        yield warning(
            name,
            f"{_named(holder)} holds {size:.1f} GiB of it",
            f"end that process, or keep engines away: `supervisord-cp cordon NODE:{gpu.index}`",
        )
    if gpu.health is GpuHealth.HEALTHY and not strangers:
        total = "" if gpu.memory_total is None else f", {gpu.memory_total / 2**30:.0f} GiB"
        yield ok(name, f"{gpu.name or gpu.uuid}{total}, healthy")


def _named(holder: Holder) -> str:
    who = ", ".join(part for part in (f"PID {holder.pid}", holder.owner) if part)
    return f"{holder.command or 'a process'} ({who})"
