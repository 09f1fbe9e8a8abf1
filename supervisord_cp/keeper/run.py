"""What a keeper does from its first to its last moment, in its two modes."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from supervisord_cp.keeper import host
from supervisord_cp.keeper.directory import exists, hold_lock, read_document, remove, write_document
from supervisord_cp.keeper.keeper import Keeper, exit_document
from supervisord_cp.keeper.launch import Launch, StartFailed, check_launch, start_engine
from supervisord_cp.keeper.output import RotatedLog
from supervisord_cp.keeper.pipe import OutputPipe, read_end_of
from supervisord_cp.keeper.proctree import Identity, Tree, contradicts, read_process
from supervisord_cp.keeper.protocol import (
    EXIT,
    FAILED,
    LAUNCH,
    RECORD,
    AnswerDocument,
    ExitDocument,
    LogDocument,
    RecordDocument,
)

KEEPER_UMASK: Final = 0o027
UNDO_S: Final = 5.0

USAGE: Final = "usage: python -I -S keeper/__main__.py DIRECTORY [--ready-fd N] [--sweep | --resume]"


def main(arguments: list[str]) -> int:
    """Keep the engine that the directory's launch document asks for; with `--resume`, one that runs on
    although its keeper was killed; with `--sweep`, end what is left of one whose keeper is dead. Returns
    when nothing of it is left."""
    directory, ready, begin = _parse(arguments)
    os.chdir(directory)
    os.umask(KEEPER_UMASK)
    host.restore_signals()
    if hold_lock() is None:
        _answer(ready, AnswerDocument(answer="busy"))
        return 1
    try:
        keeper, answer = begin()
    except (StartFailed, OSError) as error:
        _answer(ready, AnswerDocument(answer="failed", message=str(error)))
        return 1
    _answer(ready, answer)
    keeper.run()
    return 0


def _starter() -> tuple[Keeper, AnswerDocument]:
    if any(map(exists, (RECORD, EXIT, FAILED))):
        raise StartFailed("this incarnation was started before")
    try:
        keeper, record = _start(check_launch(read_document(LAUNCH)))
    except (StartFailed, OSError) as error:
        write_document(FAILED, {"message": str(error)})
        raise
    finally:
        remove(LAUNCH)  # it holds the environment, and with it secrets
    return keeper, AnswerDocument(answer="spawned", record=record)


def _start(launch: Launch) -> tuple[Keeper, RecordDocument]:
    host.become_subreaper()
    host.raise_oom_score()
    try:
        log = RotatedLog(launch.log_path, max_bytes=launch.log_max_bytes, files=launch.log_files)
    except OSError as error:
        raise StartFailed(f"cannot open the log {launch.log_path}: {error.strerror}") from error
    output = OutputPipe(log)
    pid = start_engine(launch, output)
    output.started()
    host.lower_oom_score()
    record = _record(launch, pid)
    tree = Tree(nonce=launch.nonce, main=Identity(pid, record["start_ticks"]))
    try:
        keeper = Keeper(tree=tree, record=record, output=output)
        write_document(RECORD, record)
    except OSError as error:
        _undo(tree)
        raise StartFailed(f"cannot record the engine: {error}") from error
    return keeper, record


def _sweeper() -> tuple[Keeper, AnswerDocument]:
    """A keeper of what was left without one. The environment's nonce is enough to find it."""
    record: RecordDocument | None = read_document(RECORD)
    known = record or read_document(LAUNCH)
    if not known or not known["nonce"]:
        raise StartFailed("nothing is known of an engine here")
    main = None
    if record is not None and record["boot_id"] == host.boot_id():
        main = Identity(record["pid"], record["start_ticks"])
        if contradicts(main.pid, record["nonce"]):
            main = None
    ended: ExitDocument | None = read_document(EXIT)
    if ended is None:
        ended = exit_document(None, requested=False)
    keeper = Keeper(tree=Tree(nonce=known["nonce"], main=main), record=record, ended=ended)
    return keeper, AnswerDocument(answer="sweeping")


def _resumer() -> tuple[Keeper, AnswerDocument]:
    """The next keeper of an engine whose keeper was killed. It is not its parent: how the engine ends is
    asked of its pidfd, and orphans of it are found by nonce and session."""
    record: RecordDocument | None = read_document(RECORD)
    if record is None or exists(EXIT) or "log" not in record:
        raise StartFailed("nothing is known of an engine that could be kept")
    main = Identity(record["pid"], record["start_ticks"])
    pidfd = _open_main(main, record)
    log, read_end = record["log"], read_end_of(main.pid)
    output = None
    if read_end is not None:
        rotated = RotatedLog(log["path"], max_bytes=log["max_bytes"], files=log["files"], resume=True)
        output = OutputPipe(rotated, read_end)
    record["keeper_pid"], record["keeper_start_ticks"] = os.getpid(), _start_ticks(os.getpid())
    host.become_subreaper()
    host.lower_oom_score()
    tree = Tree(nonce=record["nonce"], main=main)
    keeper = Keeper(tree=tree, record=record, output=output, main_pidfd=pidfd)
    write_document(RECORD, record)
    return keeper, AnswerDocument(answer="resumed", record=record)


def _open_main(main: Identity, record: RecordDocument) -> int:
    """A pidfd of the recorded main process, and of no later owner of its pid."""
    if record["boot_id"] != host.boot_id():
        raise StartFailed("the engine ended with its boot")
    pidfd = os.pidfd_open(main.pid)
    now = read_process(main.pid)
    if now is None or not now.alive or now.identity != main or contradicts(main.pid, record["nonce"]):
        raise StartFailed("the engine has ended")
    return pidfd


def _record(launch: Launch, pid: int) -> RecordDocument:
    return RecordDocument(
        instance=launch.instance,
        incarnation=launch.incarnation,
        nonce=launch.nonce,
        boot_id=host.boot_id(),
        pid=pid,
        start_ticks=_start_ticks(pid),
        keeper_pid=os.getpid(),
        keeper_start_ticks=_start_ticks(os.getpid()),
        meta=launch.meta,
        log=LogDocument(path=launch.log_path, max_bytes=launch.log_max_bytes, files=launch.log_files),
    )


def _start_ticks(pid: int) -> int:
    process = read_process(pid)
    if process is None:
        raise StartFailed("cannot read /proc")
    return process.start_ticks


def _undo(tree: Tree) -> None:
    """End an engine that could not be recorded; the answer tells of the failure in any case."""
    deadline = time.monotonic() + UNDO_S
    while tree.kill() and time.monotonic() < deadline:
        time.sleep(0.01)


Begin = Callable[[], tuple[Keeper, AnswerDocument]]


def _parse(arguments: list[str]) -> tuple[str, int | None, Begin]:
    match arguments:
        case [*rest, "--sweep"]:
            begin: Begin = _sweeper
        case [*rest, "--resume"]:
            begin = _resumer
        case rest:
            begin = _starter
    match rest:
        case [directory]:
            return directory, None, begin
        case [directory, "--ready-fd", number] if number.isdigit():
            return directory, int(number), begin
        case _:
            sys.exit(USAGE)


def _answer(ready: int | None, answer: AnswerDocument) -> None:
    """Tell who started us, who may have died meanwhile."""
    if ready is None:
        return
    try:
        os.write(ready, json.dumps(answer).encode() + b"\n")
    except OSError:
        pass
    finally:
        os.close(ready)
