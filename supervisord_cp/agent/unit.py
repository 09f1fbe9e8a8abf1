"""Whether the systemd unit that we run in would kill our engines together with us."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from supervisord_cp.errors import UsageError

SPARING: Final = ("process", "none")
ASK_TIMEOUT_S: Final = 5.0


def check_unit(
    environ: Mapping[str, str],
    *,
    pid: int | None = None,
    cgroup: Path = Path("/proc/self/cgroup"),
    kill_mode: Callable[[str], str] | None = None,
) -> None:
    """Refuse the direct back end where it cannot keep its promise.

    Raises:
        UsageError: we are the main process of a unit that ends with everything in it.
    """
    if environ.get("SYSTEMD_EXEC_PID") != str(os.getpid() if pid is None else pid):
        return
    unit = _unit_of(cgroup)
    mode = (kill_mode or _ask_systemd)(unit) if unit else ""
    if mode and mode not in SPARING:
        raise UsageError(
            f'[agent] backend = "direct" in {unit}, which has KillMode={mode}: a restart of the agent would '
            'kill its engines. Use backend = "systemd", or KillMode=process, or --stop-engines'
        )


def _unit_of(cgroup: Path) -> str:
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        for part in reversed(line.split("/")):
            if part.endswith(".service"):
                return part
    return ""


def _ask_systemd(unit: str) -> str:
    try:
        answer = subprocess.run(
            ["systemctl", "show", "--property=KillMode", "--value", "--", unit],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
