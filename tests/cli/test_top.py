"""`top`: the screen as text, and the program in a terminal of its own."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from supervisord_cp.central.page.state import page_state
from supervisord_cp.cli.top import Feed
from supervisord_cp.cli.top_screen import screen, spark
from tests.central.fleet import World, deployment
from tests.cli.stub import stub_central
from tests.waiting import PATIENCE_S

CURVES: dict = {"requests_per_s": [0.0, 1.0, None, 4.0], "queued": [2.0]}


@pytest.fixture
def state() -> dict:
    world = World(deployment(replicas=3))
    world.agent(slots=4)
    world.run()
    return json.loads(json.dumps(page_state(world.controller)))


def shown(state: dict, *, height: int = 40, scroll: int = 0, note: str = "") -> str:
    console = Console(width=120, height=height, file=io.StringIO(), color_system=None)
    console.print(screen(state, CURVES, width=120, height=height, scroll=scroll, note=note))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_screen_has_it_all(state: dict) -> None:
    text = shown(state)
    assert "supervisord-cp  1 to look at   1 node   3 serving, 1 free" in text
    assert "! no router is connected" in text
    assert "requests/s 4" in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("chat ")] == [
        ["chat", "3", "3"]
    ]
    assert "slot-0 chat-0" in text
    assert "slot-3 free" in text


def rows(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("chat-")]


def test_trouble_comes_first_and_what_has_no_room_is_counted(state: dict) -> None:
    state["instances"]["chat-2"]["state"] = "crashed"
    assert rows(shown(state)) == ["chat-2", "chat-0", "chat-1"]
    assert "2 more below" in shown(state, height=13)
    assert rows(shown(state, scroll=1)) == ["chat-0", "chat-1"]


def test_a_lost_connection_is_said(state: dict) -> None:
    assert "not connected" in shown(state, note="not connected")
    assert "waiting for central" in shown({})


def test_curves() -> None:
    assert spark([0.0, 1.0, None, 4.0]) == "▁▃ █"
    assert spark([]) == ""


def test_the_feed_folds_what_central_streams() -> None:
    feed = Feed(None)  # type: ignore[arg-type]
    feed.take({"state": {"a": {"x": 1}}, "curves": {"queued": [1.0]}})
    feed.take({"patch": {"a": {"y": 2}}, "figures": {"queued": 3.0, "ttft_s": 0.5}})
    assert feed.state == {"a": {"x": 1, "y": 2}}
    assert feed.curves == {"queued": [1.0, 3.0], "ttft_s": [0.5]}


@pytest.mark.process
def test_in_a_terminal(state: dict) -> None:
    first = {"state": state, "curves": CURVES, "access": {}, "tick_s": 1.0}
    with stub_central() as central:
        central.says("status", {})
        central.says("page/stream", b"event: state\ndata: " + json.dumps(first).encode() + b"\n\n")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisord_cp", "top", "--address", central.url],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )
        os.close(theirs)
        try:
            assert "chat-2" in _until(ours, "chat-2")
            os.write(ours, b"q")
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def _until(terminal: int, wanted: str) -> str:
    """What the terminal shows, until that is there."""
    seen, deadline = "", time.monotonic() + PATIENCE_S
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_it_needs_a_terminal() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "supervisord_cp", "top"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, "needs a terminal" in ended.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_a_shell(shell: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "supervisord_cp", "completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0
    assert "_SUPERVISORD_CP_COMPLETE" in ended.stdout


def test_bash_completes_commands() -> None:
    environ = {**os.environ, "_SUPERVISORD_CP_COMPLETE": "bash_complete", "COMP_WORDS": "supervisord-cp do"}
    ended = subprocess.run(
        [sys.executable, "-m", "supervisord_cp"],
        capture_output=True,
        text=True,
        env={**environ, "COMP_CWORD": "1"},
        timeout=60,
        check=False,
    )
    assert "plain,doctor" in ended.stdout
