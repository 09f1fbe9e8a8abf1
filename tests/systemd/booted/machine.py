"""A Debian with a real systemd, booted in systemd-nspawn from a copy of the image.

It has a network of its own, in which the tests are too from the boot on: what listens on 127.0.0.1 inside
is reachable from them, and nothing else of the host is.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from supervisord_cp.version import __version__
from tests.shape.sources import ROOT
from tests.systemd.booted.image import HOME, WHEELS, control_groups, execute, prepared_root

PROGRAM: Final = f"{HOME}/bin/supervisord-cp"
INSTALL: Final = (f"{HOME}/bin/pip", "install", "-q", "--no-index", "--no-deps", f"--find-links={WHEELS}")
NEXT: Final = "99.0.0"
"""A version that is newer than this one, and the same otherwise."""
SOURCE: Final = "/src"
NSPAWN: Final = (
    "systemd-nspawn",
    "--quiet",
    "--register=no",
    "--keep-unit",
    "--capability=CAP_NET_ADMIN",
    "--boot",
)
ENTER: Final = """
import ctypes, os, signal, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write("0")
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Runs a command in a control group, and not longer than the process that started it."""
PREFIX: Final = "scp-"
CLONE_NEWNET: Final = 0x40000000
UP: Final = ("running", "degraded")
"""What `systemctl is-system-running` says when the boot is over."""
BOOT_S: Final = 60.0
RUN_S: Final = 120.0


def leave_the_hosts_network() -> None:
    """From now on this process, and what it starts, has a network of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def end(control_group: Path) -> None:
    """Kill all that is in it, and remove it: the innermost groups first."""
    with contextlib.suppress(FileNotFoundError):
        (control_group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + BOOT_S
    while control_group.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(control_group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        time.sleep(0.02)


def renumber(wheel: Path, version: str) -> None:
    """Put the same wheel with another version beside it."""
    with (
        zipfile.ZipFile(wheel) as ours,
        zipfile.ZipFile(wheel.with_name(wheel.name.replace(__version__, version)), "w") as other,
    ):
        for name in ours.namelist():
            content = ours.read(name)
            if name.endswith(("/METADATA", "/RECORD", "/version.py")):
                content = content.replace(__version__.encode(), version.encode())
            other.writestr(name.replace(f"-{__version__}.", f"-{version}."), content)


class Machine:
    """One copy of the root, which may be booted again and again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._console = folder / "console"
        self._name = f"{PREFIX}{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        # Machines in one control group would take each other's processes for their own.
        self.control_group = (control_groups() or Path()) / self._name

    def build(self) -> None:
        """Make the copy, with the wheel of this checkout installed."""
        execute("cp", "-a", "--reflink=auto", str(prepared_root()), str(self.root))
        wheels = self.root / WHEELS.lstrip("/")
        execute(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT))
        [wheel] = wheels.iterdir()
        renumber(wheel, NEXT)
        execute("chroot", str(self.root), *INSTALL, f"supervisord-cp=={__version__}")

    def upgrade(self) -> None:
        """Install what stands for the next version."""
        self.do(*INSTALL, f"supervisord-cp=={NEXT}")

    def boot(self) -> None:
        """Boot it and wait until it is up."""
        for folder in self.control_group.parent.glob(f"{PREFIX}*"):
            if not psutil.pid_exists(int(folder.name.removeprefix(PREFIX))):
                end(folder)  # its tests were killed
        self.control_group.mkdir(exist_ok=True)
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    *(sys.executable, "-c", ENTER, str(self.control_group)),
                    *NSPAWN,
                    f"--machine={self._name}",
                    f"--directory={self.root}",
                    f"--bind-ro={ROOT}:{SOURCE}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        self.until(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() in UP, "it is up", BOOT_S
        )

    def power_off(self) -> None:
        """Shut it down as a power button does."""
        assert self._nspawn is not None
        self._nspawn.send_signal(signal.SIGTERM)
        self._nspawn.wait(BOOT_S)
        self._nspawn = None

    def close(self) -> None:
        """End it, whatever it does, and remove it."""
        end(self.control_group)
        if self._nspawn is not None:
            self._nspawn.wait()
            self._nspawn = None
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *argv: str, timeout_s: float = RUN_S) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        inside = self._inside()
        if inside is None:
            return subprocess.CompletedProcess(argv, 1, "", "the machine has not begun to boot")
        return subprocess.run(
            [*inside, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )

    def do(self, *argv: str, timeout_s: float = RUN_S) -> str:
        """Run a command inside that has to succeed; its output."""
        ended = self.run(*argv, timeout_s=timeout_s)
        assert ended.returncode == 0, f"{' '.join(argv)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def pids(self, unit: str) -> list[int]:
        """Processes in a unit's control group, as the machine numbers them."""
        path = self.show(unit, "ControlGroup")
        return [int(pid) for pid in self.run("cat", f"/sys/fs/cgroup{path}/cgroup.procs").stdout.split()]

    def put_into(self, path: str, pid: int) -> None:
        """Move a process of ours, whom nobody inside can see or signal, into a control group inside."""
        (self.control_group / "payload" / path.lstrip("/") / "cgroup.procs").write_text(str(pid))

    def until(self, true: Callable[[], object], what: str, patience_s: float = 60.0) -> None:
        """Wait for a condition; when it does not come to hold, say what the journal says."""
        deadline = time.monotonic() + patience_s
        while not true():
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, f"the machine ended:\n{self._console.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"never: {what}\n{self.journal()}"
            time.sleep(0.1)

    def journal(self) -> str:
        """The last lines of the journal."""
        return self.run("journalctl", "--no-pager", "--lines=150", "--output=cat").stdout

    def _inside(self) -> list[str] | None:
        """What a command line begins with that is run inside; None: nobody is there yet."""
        assert self._nspawn is not None
        leaders = psutil.Process(self._nspawn.pid).children()
        if not leaders:
            return None
        bare = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        return ["nsenter", f"--target={leaders[0].pid}", "-m", "-p", "-u", "-i", "-C", *bare]
