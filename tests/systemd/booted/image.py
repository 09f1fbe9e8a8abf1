"""A root file system with Debian's systemd and polkit and what we depend on: made once, kept between runs."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

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
    "iproute2",
)
TEST_PACKAGES: Final = ("aioresponses", "pytest", "pytest-asyncio", "pytest-timeout")
"""For the tests that run inside."""
PYTHON: Final = (3, 11)
"""What the release has."""
HOME: Final = "/opt/supervisord-cp"
WHEELS: Final = "/wheels"
UNUSED_S: Final = 7 * 86400.0
"""How long a root that no run has used is kept: other checkouts may have other dependencies."""
SYS_ADMIN: Final = 1 << 21
CAPABILITIES: Final = "CapEff:"


def missing() -> str:
    """Why there can be no machine here, "" when there can."""
    if os.geteuid() != 0:
        return "needs root"
    if not _capabilities() & SYS_ADMIN:
        return "needs the capability CAP_SYS_ADMIN, which containers do not have by default"
    if sys.version_info[:2] != PYTHON:
        return f"needs Python {'.'.join(map(str, PYTHON))}, which is what {RELEASE} has"
    if control_groups() is None:
        return "needs control groups of version 2 (mount -t cgroup2)"
    absent = [name for name in ("systemd-nspawn", "debootstrap", "nsenter") if shutil.which(name) is None]
    return f"needs {', '.join(absent)} (Debian: systemd-container, debootstrap, util-linux)" if absent else ""


def _capabilities() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(CAPABILITIES)).split()[1], 16)


def control_groups() -> Path | None:
    """Where control groups of version 2 are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)


def prepared_root() -> Path:
    """A root file system with everything but our own wheel; made if it is not there."""
    if named := os.environ.get("SUPERVISORD_CP_SYSTEMD_ROOT"):
        return Path(named)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    key = hashlib.sha256(repr((RELEASE, PACKAGES, TEST_PACKAGES, needed)).encode()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supervisord-cp-systemd"
    caches.mkdir(parents=True, exist_ok=True)
    root = caches / key
    with _locked(caches / "lock"):
        _remove_unused(caches)
        if not root.exists():
            new = caches / "new"
            shutil.rmtree(new, ignore_errors=True)
            _make(new, (*needed, *TEST_PACKAGES))
            new.rename(root)
        os.utime(root)
    return root


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One run makes it, others wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unused(caches: Path) -> None:
    for root in caches.iterdir():
        if root.is_dir() and time.time() - root.stat().st_mtime > UNUSED_S:
            shutil.rmtree(root, ignore_errors=True)


def _make(root: Path, requirements: Sequence[str]) -> None:
    packages = f"--include={','.join(PACKAGES)}"
    execute("debootstrap", "--variant=minbase", packages, RELEASE, str(root))
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    wheels = root / WHEELS.lstrip("/")
    execute(sys.executable, "-m", "pip", "wheel", "-q", "-w", str(wheels), *requirements)
    execute("chroot", str(root), "python3", "-m", "venv", HOME)
    pip = ("chroot", str(root), f"{HOME}/bin/pip", "install", "-q", "--no-index", f"--find-links={WHEELS}")
    execute(*pip, *requirements)
    shutil.rmtree(wheels)


def execute(*argv: str) -> None:
    """Run a command that has to succeed."""
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
