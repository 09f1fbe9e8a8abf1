"""The daemons that `up` runs as its children."""

import signal
import sys
from pathlib import Path

import pytest

from supervisord_cp.cli.up_children import USAGE_EXIT, Child, restart_delay
from tests.cli.saying import Said


def test_restarts_are_delayed_longer_each_time_up_to_a_limit() -> None:
    delays = [restart_delay(failures) for failures in range(1, 12)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
    assert restart_delay(10_000) == 30.0


def started(child: Child, now: float) -> Child:
    child.start(now)
    assert child._process is not None
    child._process.wait()
    return child


def test_a_child_that_ends_is_started_again_when_it_is_time(tmp_path: Path) -> None:
    said = Said()
    child = started(Child("no-such-daemon", [], tmp_path / "log", 0), 100.0)
    assert child.watch(100.0, said) == USAGE_EXIT
    assert child.watch(100.09, said) is None
    assert child.starts == 1
    assert child.watch(100.1, said) is None
    assert child.starts == 2
    assert child._process is not None
    child._process.wait()
    assert "no-such-daemon" in child.last_words()


def test_the_end_of_a_child_is_told(tmp_path: Path) -> None:
    said = Said()
    child = Child("router", ["-c", "/nowhere"], tmp_path / "router.log", 0)
    child.start(0.0)
    child.signal(signal.SIGKILL)
    assert child._process is not None
    child._process.wait()
    assert child.watch(0.0, said) == -signal.SIGKILL
    assert said == [f"router ended with signal 9; next start in 0.1 s; see {tmp_path / 'router.log'}"]
    assert not child.running


def test_a_failure_is_told_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    said = Said()
    child = Child("router", [], tmp_path / "router.log", 0)
    child._argv = [sys.executable, "-c", "print('first'); raise SystemExit('no such thing')"]
    started(child, 0.0)
    assert child.watch(0.0, said) == 1
    assert said[0].startswith("router ended with status 1: no such thing; next start in 0.1 s;")


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_cp.cli.up_children.LOG_KEEP_BYTES", 3)
    (tmp_path / "log").write_text("earlier")
    child = started(Child("no-such-daemon", [], tmp_path / "log", 0), 0.0)
    assert "earlier" not in child.last_words()
    assert (tmp_path / "log.1").read_text() == "earlier"
