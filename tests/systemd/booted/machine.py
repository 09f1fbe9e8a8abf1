"""A Debian with a real systemd, booted in systemd-nspawn: made once and kept, copied for each run.

It shares the host's network, so what listens on 127.0.0.1 inside is reachable from the tests.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.shape.sources import ROOT

RELEASE: Final = "bookworm"
PACKAGES: Final = (
    "systemd",
    "systemd-sysv",
    "libpam-systemd",  # what polkitd needs by another name, which debootstrap does not look up
    "dbus",
    "polkitd",
    "python3",
    "python3-venv",
    "procps",
)
TEST_PACKAGES: Final = ("aioresponses", "pytest", "pytest-asyncio", "pytest-timeout")
"""For the tests that run inside."""
PYTHON: Final = (3, 11)
"""What the release has."""
HOME: Final = "/opt/supervisord-cp"
PROGRAM: Final = f"{HOME}/bin/supervisord-cp"
SOURCE: Final = "/src"
WHEELS: Final = "/wheels"
NSPAWN: Final = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot")
UP: Final = ("running", "degraded")
"""What `systemctl is-system-running` says when the boot is over."""
BOOT_S: Final = 60.0
RUN_S: Final = 120.0


def missing() -> str:
    """Why there can be no machine here, "" when there can."""
    if os.geteuid() != 0:
        return "needs root"
    if sys.version_info[:2] != PYTHON:
        return f"needs Python {'.'.join(map(str, PYTHON))}, which is what {RELEASE} has"
    absent = [name for name in ("systemd-nspawn", "debootstrap", "nsenter") if shutil.which(name) is None]
    return f"needs {', '.join(absent)} (Debian: systemd-container, debootstrap, util-linux)" if absent else ""


def prepared_root() -> Path:
    """A root file system with everything but our own wheel; made if it is not there."""
    if named := os.environ.get("SUPERVISORD_CP_SYSTEMD_ROOT"):
        return Path(named)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    key = hashlib.sha256(repr((RELEASE, PACKAGES, TEST_PACKAGES, needed)).encode()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supervisord-cp-systemd"
    root = caches / key
    if not root.exists():
        shutil.rmtree(caches, ignore_errors=True)  # of other dependencies
        new = caches / f"{key}.{os.getpid()}"
        new.parent.mkdir(parents=True)
        try:
            _make(new, (*needed, *TEST_PACKAGES))
            new.rename(root)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def _make(root: Path, requirements: Sequence[str]) -> None:
    packages = f"--include={','.join(PACKAGES)}"
    _run("debootstrap", "--variant=minbase", packages, RELEASE, str(root))
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    wheels = root / WHEELS.lstrip("/")
    _run(sys.executable, "-m", "pip", "wheel", "-q", "-w", str(wheels), *requirements)
    _run("chroot", str(root), "python3", "-m", "venv", HOME)
    pip = ("chroot", str(root), f"{HOME}/bin/pip", "install", "-q", "--no-index", f"--find-links={WHEELS}")
    _run(*pip, *requirements)
    shutil.rmtree(wheels)


def _run(*argv: str) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_"))}
    chrooted = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    ended = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=chrooted if argv[0] == "chroot" else bare,
    )
    assert ended.returncode == 0, f"{' '.join(argv)}:\n{ended.stdout[-4000:]}"


class Machine:
    """One copy of the root, which may be booted again and again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._console = folder / "console"
        self._name = f"scp-{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        """Make the copy, with the wheel of this checkout installed."""
        _run("cp", "-a", "--reflink=auto", str(prepared_root()), str(self.root))
        wheels = self.root / WHEELS.lstrip("/")
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT))
        [wheel] = [path.name for path in wheels.iterdir()]
        pip = ("chroot", str(self.root), f"{HOME}/bin/pip")
        _run(*pip, "install", "-q", "--no-index", "--no-deps", f"{WHEELS}/{wheel}")

    def boot(self) -> None:
        """Boot it and wait until it is up."""
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
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
        if self._nspawn is not None:
            processes = psutil.Process(self._nspawn.pid).children(recursive=True)
            self._nspawn.kill()
            self._nspawn.wait()
            self._nspawn = None
            for process in processes:  # with the first of them the kernel ends all
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=BOOT_S)
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
