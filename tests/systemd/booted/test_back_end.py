"""The contract of back ends, kept by the systemd back end with real units: pytest inside the machine."""

import pytest

from tests.systemd.booted.image import HOME
from tests.systemd.booted.machine import SOURCE, Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(400)]

DROP_IN = "etc/systemd/system/supervisord-cp-engine@.service.d/90-tests.conf"
TEST_FOLDERS = """
[Service]
ReadWritePaths=
ReadWritePaths=/srv /var/lib/supervisord-cp/engine /var/log/supervisord-cp
"""


def test_the_back_end_keeps_its_contract(machine: Machine) -> None:
    drop_in = machine.root / DROP_IN
    drop_in.parent.mkdir()
    drop_in.write_text(TEST_FOLDERS)
    machine.do("systemctl", "daemon-reload")
    # Kernel tunables are protected as in the agent's unit: in a container, another boot id is seen then.
    unit = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=ProtectKernelTunables=yes")
    environment = ("--setenv=SUPERVISORD_CP_INSIDE=1", "--setenv=PYTHONDONTWRITEBYTECODE=1")
    pytest_inside = (
        f"{HOME}/bin/python",
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={SOURCE}",
    )
    ended = machine.run(*unit, *environment, *pytest_inside, f"{SOURCE}/tests/systemd/inside", timeout_s=240)
    drop_in.unlink()
    machine.do("systemctl", "daemon-reload")
    assert ended.returncode == 0, f"{ended.stdout[-12000:]}{ended.stderr[-2000:]}"
