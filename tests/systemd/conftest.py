"""One machine for all tests of the real systemd."""

from collections.abc import Iterator

import pytest

from tests.systemd.machine import PROGRAM, Machine, missing


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Booted, with the wheel of this checkout and `install systemd` done."""
    if why := missing():
        pytest.skip(f"a real systemd {why}")
    made = Machine(tmp_path_factory.mktemp("machine"))
    try:
        made.build()
        made.boot()
        made.do(PROGRAM, "install", "systemd")
        yield made
    finally:
        made.close()
