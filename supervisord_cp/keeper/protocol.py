"""What a keeper reads, writes and speaks. All documents are JSON objects; readers ignore unknown fields.

In the incarnation's directory (mode 0700, files 0600):

    launch.json    LaunchDocument, written by the back end, removed once the engine runs
    record.json    RecordDocument, on disk before the keeper answers that the engine is spawned
    failed.json    {"message"}: the engine could not be started, nothing was recorded
    exit.json      ExitDocument, from the end of the main process on
    keeper.lock    locked (flock) by the keeper or the sweeper as long as it lives
    keeper.sock    the socket below
    keeper.err     the keeper's own standard error

On the socket, one document per line. The keeper sends a StatusDocument to a new connection, after each
change, and when asked; the newest one says everything. A client sends RequestDocuments.

On the descriptor `--ready-fd`: one AnswerDocument, then end of file.
"""

from typing import Final, NotRequired, TypedDict

PROTOCOL: Final = 1
"""Raised when an old reader would misunderstand; new fields do not need it."""

NONCE_VARIABLE: Final = "SUPERVISORD_CP_NONCE"

LAUNCH: Final = "launch.json"
RECORD: Final = "record.json"
FAILED: Final = "failed.json"
EXIT: Final = "exit.json"
LOCK: Final = "keeper.lock"
SOCKET: Final = "keeper.sock"

MetaDocument = dict[str, str | int | float | bool | list[str] | None]


class LaunchDocument(TypedDict):
    """What is to be started; see `ports.process.SpawnRequest`."""

    instance: str
    incarnation: str
    nonce: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log_path: str
    log_max_bytes: int
    log_files: int
    meta: MetaDocument


class LogDocument(TypedDict):
    """Where the engine's output goes."""

    path: str
    max_bytes: int
    files: int


class RecordDocument(TypedDict):
    """Who the engine is; see `ports.process.ProcessRecord`."""

    instance: str
    incarnation: str
    nonce: str
    boot_id: str
    pid: int
    start_ticks: int
    keeper_pid: int
    keeper_start_ticks: int
    meta: MetaDocument
    log: LogDocument
    """For the next keeper, should this one be killed."""


class ExitDocument(TypedDict):
    """How the main process ended, and whether anything of its tree is left."""

    code: int | None
    signal: int | None
    requested: bool
    keeper_lost: bool
    boot_id: str
    boottime_s: float
    """CLOCK_BOOTTIME at the end: its age, as long as `boot_id` is the running one."""
    time_s: float
    """The wall clock at the end: its age after a reboot."""
    gone: bool
    log_dropped_bytes: int


class StatusDocument(TypedDict):
    """Everything there is to know of a keeper."""

    protocol: int
    record: RecordDocument | None
    """None: the start was cut short before the record was written."""
    stopping: bool
    exit: ExitDocument | None
    """None while the main process runs."""
    survivors: list[int]
    """Processes that SIGKILL was last sent to; empty while the main process runs, and in the end."""
    gone: bool
    log_dropped_bytes: int
    """Output that could not be written to the log."""


class RequestDocument(TypedDict):
    """`status`; `stop` with `grace_s`; `signal` with `signal` (a number, to the main process)."""

    op: str
    grace_s: NotRequired[float]
    signal: NotRequired[int]


class AnswerDocument(TypedDict):
    """`spawned` or `resumed` with the record, `sweeping`, `busy` (another keeper has the directory), or
    `failed`."""

    answer: str
    record: NotRequired[RecordDocument]
    message: NotRequired[str]
