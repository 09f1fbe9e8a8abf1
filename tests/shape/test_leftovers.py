"""A test that leaves a process behind is found out, whatever that process is called."""

import signal
import subprocess
import sys

import pytest

from tests import leftovers

TITLED = """
import time
from setproctitle import setproctitle
setproctitle("x")
print(flush=True)
time.sleep(600)
"""


@pytest.mark.process
def test_what_is_left_is_told_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [sys.executable, "-c", TITLED]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True, cwd="/") as left:
        assert left.stdout is not None
        left.stdout.readline()
        monkeypatch.setattr(leftovers, "ENDING_S", 0.0)
        assert leftovers.end() == ["x in /"]
        assert left.wait(60) == -signal.SIGKILL


@pytest.mark.process
def test_what_is_about_to_end_is_waited_for() -> None:
    with subprocess.Popen(["sleep", "600"]) as ending:
        ending.terminate()
        assert leftovers.end() == []
        assert ending.wait(60) == -signal.SIGTERM
