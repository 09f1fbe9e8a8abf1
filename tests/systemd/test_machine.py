"""A real systemd: the contract of back ends inside, then the daemons as an operator runs them."""


import pytest

from tests.systemd.machine import HOME, SOURCE, Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

DROP_IN = "/etc/systemd/system/supervisord-cp-engine@.service.d/90-tests.conf"


def test_the_back_end_keeps_its_contract(machine: Machine) -> None:
    drop_in = machine.root / DROP_IN.lstrip("/")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nReadWritePaths=/srv\n")
    machine.do("systemctl", "daemon-reload")
    ended = machine.run(
        "env",
        "SUPERVISORD_CP_INSIDE=1",
        "PYTHONDONTWRITEBYTECODE=1",
        f"{HOME}/bin/python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={SOURCE}",
        f"{SOURCE}/tests/systemd/inside",
        timeout_s=240,
    )
    drop_in.unlink()
    machine.do("systemctl", "daemon-reload")
    print(ended.stdout)
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}{ended.stderr[-2000:]}"
