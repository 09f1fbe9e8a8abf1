"""Starting a keeper as a child that nothing ties to the agent."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from supervisord_cp.adapters.keeper_directory import ERRORS, AnswerDocument, IncarnationDirectory
from supervisord_cp.ports.process import SpawnFailed

KEEPER: Final = Path(__file__).resolve().parent.parent / "keeper" / "__main__.py"
KEEPER_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""What a Python may need to start. Nothing else of the agent's environment is the keeper's business."""
ANSWER_WAIT_S: Final = 60.0


def start_keeper(
    directory: IncarnationDirectory, python: str, options: Sequence[str], hand_over: Callable[[int], None]
) -> AnswerDocument | None:
    """Start one and wait for its answer; None: it died without one, or hung and was killed. Blocking.

    `hand_over` gets a pidfd of the keeper, which is a child of this process and has to be reaped.

    Raises:
        SpawnFailed: no process can be started.
    """
    read_fd, write_fd = os.pipe()
    with (
        os.fdopen(read_fd, "rb", buffering=0) as read_end,
        os.fdopen(write_fd, "wb", buffering=0) as write_end,
    ):
        try:
            pidfd = _start(directory, python, options, write_end.fileno())
        except OSError as error:
            raise SpawnFailed(f"cannot start a keeper: {error}") from error
        write_end.close()  # the keeper's is the only one now, so that its death is an end of file
        try:
            answer = _read_answer(read_end.fileno())
            if answer is None:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return answer
        finally:
            hand_over(pidfd)


def _start(directory: IncarnationDirectory, python: str, options: Sequence[str], ready: int) -> int:
    argv = [python, "-I", "-S", str(KEEPER), str(directory.path), "--ready-fd", str(ready), *options]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    errors = os.open(directory.path / ERRORS, flags, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env={name: os.environ[name] for name in KEEPER_VARIABLES if name in os.environ},
            pass_fds=(ready,),
            start_new_session=True,
        )
    finally:
        os.close(errors)
    child.returncode = 0  # disowned: it is reaped through its pidfd, and may outlive this process
    return os.pidfd_open(child.pid)


def _read_answer(read_end: int) -> AnswerDocument | None:
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    deadline = time.monotonic() + ANSWER_WAIT_S
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        piece = os.read(read_end, 65536)
        if not piece:
            return None
        data += piece
    try:
        return msgspec.json.decode(data, type=AnswerDocument)
    except msgspec.MsgspecError:
        return None
