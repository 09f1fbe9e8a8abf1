"""Whose process the kernel's OOM killer ended."""

from pathlib import Path

import pytest

from supervisord_cp.adapters.oom import (
    FIRST_PID_NAMESPACE,
    WINDOW_S,
    Cgroup,
    KernelLog,
    OomWatch,
    cgroup_of,
)
from supervisord_cp.clock import ManualClock


def counter(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"low 0\noom 9\noom_kill {count}\noom_group_kill 0\n")


def record(pid: int, name: str) -> bytes:
    return f"6,901,5000,-;Out of memory: Killed process {pid} ({name}) total-vm:9kB, anon-rss:8kB\n".encode()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Our own process, and one with a control group of its own, 40."""
    for pid, group in (("self", "/agent"), ("40", "/engines/chat-0"), ("41", "/agent"), ("42", "/")):
        folder = tmp_path / "proc" / pid
        (folder / "ns").mkdir(parents=True)
        (folder / "cgroup").write_text(f"1:cpu:/x\n0::{group}\n")
    (tmp_path / "proc/self/ns/pid").symlink_to(FIRST_PID_NAMESPACE)
    return tmp_path / "proc"


def test_an_engines_own_control_group_is_the_best_witness(tmp_path: Path, proc: Path) -> None:
    events = tmp_path / "cgroup/engines/chat-0/memory.events"
    counter(events, 3)
    cgroup = cgroup_of(40, proc, tmp_path / "cgroup")
    assert cgroup is not None
    vmstat = tmp_path / "vmstat"
    counter(vmstat, 7)
    watch = OomWatch(ManualClock(), vmstat)
    watch.look()
    counter(vmstat, 9)
    assert watch.of([40], cgroup).number == 0, "somebody else's"
    counter(events, 4)
    found = watch.of([40], cgroup)
    assert (found.number, found.evidence) == (1, "the kernel's OOM killer ended 1 process of it")


@pytest.mark.parametrize("pid", [41, 42, 43])
def test_a_shared_control_group_is_no_witness(tmp_path: Path, proc: Path, pid: int) -> None:
    for group in (".", "agent", "engines/chat-0"):
        counter(tmp_path / "cgroup" / group / "memory.events", 3)
    assert cgroup_of(pid, proc, tmp_path / "cgroup") is None


def test_the_kernels_log_names_the_victim(tmp_path: Path, proc: Path) -> None:
    clock, kmsg, vmstat = ManualClock(), tmp_path / "kmsg", tmp_path / "vmstat"
    kmsg.write_bytes(record(40, "before"))
    counter(vmstat, 1)
    watch = OomWatch(clock, vmstat, log=KernelLog(clock, kmsg, proc))
    watch.look()
    clock.advance(2.0)
    counter(vmstat, 3)
    with kmsg.open("ab") as file:
        file.write(record(77, "postgres") + record(41, "VLLM::EngineCor"))
    assert watch.of([40], None).number == 0, "killed before we looked"
    assert watch.of([40, 41], None).evidence == "the kernel's OOM killer ended its 41 (VLLM::EngineCor)"
    clock.advance(WINDOW_S)
    assert watch.of([41], None).number == 0


@pytest.mark.parametrize("why", ["another namespace", "not readable"])
def test_without_the_kernels_log_the_hosts_counter_is_all_there_is(
    tmp_path: Path, proc: Path, why: str
) -> None:
    clock, kmsg, vmstat = ManualClock(), tmp_path / "kmsg", tmp_path / "vmstat"
    if why == "another namespace":
        kmsg.write_bytes(b"")
        (proc / "self/ns/pid").unlink()
        (proc / "self/ns/pid").symlink_to("pid:[4026532000]")
    counter(vmstat, 1)
    watch = OomWatch(clock, vmstat, log=KernelLog(clock, kmsg, proc))
    watch.look()
    clock.advance(2.0)
    counter(vmstat, 2)
    assert watch.of([40], None).evidence == "the kernel's OOM killer ended 1 process of this host just before"


def test_a_control_group_that_is_gone_says_nothing(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    counter(events, 3)
    cgroup = Cgroup(tmp_path)
    events.unlink()
    assert cgroup.kills() is None
