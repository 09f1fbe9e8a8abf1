"""systemd: are our units installed, enabled and running?"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.doctor.finding import Finding, error, ok, warning

BOOTED: Final = Path("/run/systemd/system")
TIMEOUT_S: Final = 10.0
PROPERTIES: Final = ("LoadState", "UnitFileState", "ActiveState", "SubState", "Result")


def unit_findings(roles: tuple[str, ...]) -> Iterator[Finding]:
    """One for the unit of each role (`agent`, `central`, `router`)."""
    if not BOOTED.is_dir():
        yield ok("systemd", "does not run here")
        return
    for role in roles:
        unit = f"supervisord-cp-{role}.service"
        told = _show(unit)
        if told is None:
            yield warning("systemd", "does not answer", "see `systemctl status`")
            return
        yield unit_finding(unit, told)


def unit_finding(unit: str, told: dict[str, str]) -> Finding:
    """What `systemctl show` says of a unit, judged. Pure."""
    name = unit.removesuffix(".service")
    if told.get("LoadState") == "not-found":
        return warning(unit, "is not installed", "supervisord-cp install systemd")
    if told.get("ActiveState") == "failed":
        why = told.get("Result", "failed")
        return error(unit, f"has failed ({why})", f"journalctl -u {name} -n 50; then systemctl start {name}")
    if told.get("UnitFileState") not in ("enabled", "static", "indirect", "enabled-runtime"):
        state = told.get("ActiveState", "unknown")
        return warning(
            unit, f"{state}, but not enabled: it is not there after a reboot", f"systemctl enable {name}"
        )
    if told.get("ActiveState") != "active":
        state = f"{told.get('ActiveState', 'unknown')} ({told.get('SubState', '')})"
        return warning(unit, state, f"systemctl start {name}")
    return ok(unit, "enabled and active")


def _show(unit: str) -> dict[str, str] | None:
    try:
        told = subprocess.run(
            ["systemctl", "show", unit, f"--property={','.join(PROPERTIES)}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode != 0:
        return None
    pairs = (line.partition("=") for line in told.stdout.splitlines())
    return {name: value for name, _, value in pairs}
