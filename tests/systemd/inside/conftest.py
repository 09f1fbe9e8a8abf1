"""Tests that run inside the machine, as root, against its systemd; `booted/test_back_end.py` runs them.

The back end is the agent's; the units are the installed ones, with a drop-in that lets them write to the
folders of the tests.
"""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from supervisord_cp.adapters.systemd import SystemdBackend
from supervisord_cp.adapters.systemd_unit import OVER, show, unit_of
from supervisord_cp.ports.process import ProcessBackend, ProcessRecord
from tests.keeper import test_adoption
from tests.keeper.host import Host, ends
from tests.waiting import until

if "SUPERVISORD_CP_INSIDE" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

FOLDERS: Final = Path("/srv/tests")
"""Named in the drop-in."""
GROUP: Final = "supervisord-cp-engine"


def systemd(state_dir: Path) -> ProcessBackend:
    return SystemdBackend(state_dir, report_wait_s=0.05, overdue_s=0.5)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that the users of agent and engines may use, as `/var/lib/supervisord-cp/instances` is."""
    FOLDERS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=FOLDERS))
    shutil.chown(folder, group=GROUP)
    folder.chmod(stat.S_ISGID | 0o775)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # an engine that is being killed may write on


@pytest.fixture(autouse=True)
def ended_with_its_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that kill a keeper and then its engine find that systemd was quicker."""

    async def end_for_good(record: ProcessRecord) -> None:
        await ends(record.pid)
        await until(lambda: show(unit_of(record.instance), "ActiveState")["ActiveState"] in OVER)

    monkeypatch.setattr(test_adoption, "end_for_good", end_for_good)


@pytest.fixture
def cleaned(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, systemd)
    yield host
    host.kill_all()


@pytest_asyncio.fixture
async def host(cleaned: Host) -> AsyncIterator[Host]:
    """Closed on the loop that it was used on, then cleaned."""
    yield cleaned
    cleaned.close()
    await asyncio.sleep(0)
