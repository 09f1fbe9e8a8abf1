"""One `up` per state directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_cp.cli import up_lock
from tests.cli.saying import Said


def test_a_second_lock_names_the_holder(tmp_path: Path) -> None:
    lock = up_lock.acquire(tmp_path, say=Said())
    lock.write({"pid": os.getpid(), "api": "http://a", "control": "http://c"})
    with pytest.raises(up_lock.AlreadyRunning, match=f"pid {os.getpid()}, API http://a, control http://c"):
        up_lock.acquire(tmp_path, say=Said())
    lock.release()
    assert not list(tmp_path.iterdir())
    up_lock.acquire(tmp_path, say=Said()).release()


def test_a_file_without_a_holder_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text('{"pid": 1}')
    up_lock.acquire(tmp_path, say=Said()).release()


def test_what_a_killed_up_left_behind_is_waited_for(tmp_path: Path) -> None:
    """A child that has inherited the descriptor holds the lock; the owner's pid is nobody's by now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = up_lock.acquire(tmp_path, say=Said())
    lock.write({"pid": ended.pid})
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
    os.close(lock.descriptor)

    def end_child(line: str) -> None:
        said.append(line)
        child.communicate()

    said = Said()
    up_lock.acquire(tmp_path, say=end_child).release()
    assert said == [f"the `up` with pid {ended.pid} was killed; waiting for its engines to be stopped"]


def test_patience_with_leftovers_ends(tmp_path: Path) -> None:
    lock = up_lock.acquire(tmp_path, say=Said())
    try:
        with pytest.raises(up_lock.AlreadyRunning):
            up_lock.acquire(tmp_path, say=Said(), ending_s=0.0)
    finally:
        lock.release()


def test_the_configuration_of_the_one_that_runs_is_known(tmp_path: Path) -> None:
    assert up_lock.running_config(tmp_path) is None
    lock = up_lock.acquire(tmp_path, say=Said())
    lock.write({"pid": os.getpid(), "config": "/x/up.toml"})
    assert up_lock.running_config(tmp_path) == Path("/x/up.toml")
    lock.release()
    assert up_lock.running_config(tmp_path) is None
