"""One machine for all tests here, which `test_booted.py` runs one after the other in a run of their own.

By hand: SUPERVISORD_CP_BOOTED=1 pytest -o addopts= tests/systemd/booted
"""

import os
from collections.abc import Iterator

import pytest

from tests.systemd.booted.fleet import DAEMONS, Fleet
from tests.systemd.booted.image import missing
from tests.systemd.booted.machine import PROGRAM, Machine, leave_the_hosts_network

if "SUPERVISORD_CP_BOOTED" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Booted, with the wheel of this checkout and `install systemd` done."""
    if why := missing():
        pytest.skip(why)
    made = Machine(tmp_path_factory.mktemp("machine"))
    try:
        made.build()
        leave_the_hosts_network()
        made.boot()
        made.do(PROGRAM, "install", "systemd")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def fleet(machine: Machine) -> Iterator[Fleet]:
    """Running; what a test changes it puts back."""
    made = Fleet(machine)
    made.lay_cable()
    made.hand_out_tokens()
    made.configure()
    made.systemctl("start", *DAEMONS)
    made.served()
    yield made
    machine.run("systemctl", "stop", *DAEMONS, "supervisord-cp-engine@*")
