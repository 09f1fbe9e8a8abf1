"""The unit of an engine, through `systemctl`. What is here blocks; the deadlines say how long at most."""

import contextlib
import errno
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from supervisord_cp.ports.process import SpawnFailed

LINKS: Final = Path("/run/supervisord-cp/engines")
"""The template's command line names the link of an instance, which leads to its incarnation's directory."""
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
SLICE: Final = "supervisord-cp-engines.slice"
"""The template's, unless a drop-in names another."""
NAME: Final = re.compile(r"[A-Za-z0-9:_.-]+")
"""What a unit's name takes as it is, and the polkit rule allows."""
OVER: Final = ("inactive", "failed")
OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What systemd has told the agent alone: `systemctl` would answer to it too."""

ASK_S: Final = 10.0
START_S: Final = 90.0
"""Until the keeper runs and has told what became of its start."""
STOP_S: Final = 90.0
"""The template's TimeoutStopSec, and some more."""


def unit_of(instance: str) -> str:
    """The name of an instance's unit."""
    return f"supervisord-cp-engine@{instance}.service"


class EngineUnit:
    """The unit of one instance, whichever incarnation it runs."""

    def __init__(self, instance: str, links: Path = LINKS, *, control_groups: Path = CONTROL_GROUPS) -> None:
        """Raises SpawnFailed when the instance's name cannot be that of a unit."""
        if not NAME.fullmatch(instance):
            raise SpawnFailed(f"{instance!r} cannot be part of the name of a unit")
        self.name = unit_of(instance)
        self._link = links / instance
        self._control_groups = control_groups
        self._slice = SLICE

    def point_to(self, directory: Path) -> None:
        """Let the unit's next start be that of this incarnation.

        Raises:
            OSError: the link cannot be made.
        """
        new = self._link.with_name(f".{self._link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(directory)
        new.replace(self._link)

    def forget(self) -> None:
        """Remove the link."""
        with contextlib.suppress(OSError):
            self._link.unlink()

    def start(self) -> str:
        """Start it and wait until it is up, or has failed; what systemd says then, "" when it is up."""
        try:
            answer = systemctl("start", self.name, timeout_s=START_S)
        except OSError as error:
            return str(error)
        said = answer.stderr.strip().partition("\n")[0]
        return "" if answer.returncode == 0 else said or f"systemctl start ended with {answer.returncode}"

    def stop(self) -> None:
        """End it as its template says, and wait for that.

        Raises:
            OSError: it cannot be ended.
        """
        _do("stop", self.name, timeout_s=STOP_S)

    def kill(self) -> None:
        """SIGKILL to every process of its control group, the keeper among them.

        Raises:
            OSError: systemd does not do it.
        """
        _do("kill", "--signal=SIGKILL", self.name, timeout_s=ASK_S)

    def is_over(self) -> bool:
        """Whether nothing of it is left, what it runs at its end included.

        systemd gives a unit up whose processes outlive SIGKILL (state D), so the kernel is asked too.

        Raises:
            OSError: systemd does not say.
        """
        found = show(self.name, "ActiveState", "Slice")
        self._slice = found["Slice"] or SLICE
        return found["ActiveState"] in OVER and not is_populated(self._control_group())

    def members(self) -> list[int]:
        """The processes in its control group."""
        return members(self._control_group())

    def _control_group(self) -> Path:
        return self._control_groups / slice_path(self._slice) / self.name

    def runs(self, directory: Path) -> bool:
        """Whether it runs this incarnation, or ends it just now.

        Raises:
            OSError: systemd does not say.
        """
        try:
            leads_to = self._link.readlink()
        except FileNotFoundError:
            return False  # since the last boot nothing was started
        return leads_to == directory and not self.is_over()


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit; of one that is not loaded, what its file says.

    Raises:
        OSError: systemd does not say.
    """
    words = [f"--property={name}" for name in properties]
    answer = _do("show", *words, unit, timeout_s=ASK_S)
    found = dict(line.partition("=")[::2] for line in answer.splitlines())
    if missing := [name for name in properties if name not in found]:
        raise OSError(f"systemctl show {unit}: no {', '.join(missing)}")
    return found


def systemctl(*words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run it; nobody is asked for a password.

    Raises:
        OSError: it cannot be run, or takes too long.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    try:
        return subprocess.run(
            ["systemctl", "--no-ask-password", "--no-pager", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment | {"LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"systemctl {words[0]} took more than {timeout_s:g} s") from error


def slice_path(name: str) -> Path:
    """Where the control groups of a slice are: each dash in its name is a step down."""
    words = name.removesuffix(".slice").split("-")
    return Path(*("-".join(words[:count]) + ".slice" for count in range(1, len(words) + 1)))


def is_populated(control_group: Path) -> bool:
    """Whether a process is in it or below; without control groups of version 2, False."""
    try:
        return "populated 1" in (control_group / "cgroup.events").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ENODEV:  # it was removed meanwhile
            return False
        raise


def members(control_group: Path) -> list[int]:
    """Its processes that can be seen from here; nobody when it is gone."""
    try:
        pids = (control_group / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(pid) for pid in pids if pid != "0"]


def _do(*words: str, timeout_s: float) -> str:
    """Run `systemctl`; its output.

    Raises:
        OSError: it failed.
    """
    answer = systemctl(*words, timeout_s=timeout_s)
    if answer.returncode != 0:
        said = answer.stderr.strip() or f"it ended with {answer.returncode}"
        raise OSError(f"systemctl {words[0]}: {said}")
    return answer.stdout
