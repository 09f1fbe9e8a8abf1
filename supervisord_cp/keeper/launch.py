"""From a launch document to a running engine."""

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from supervisord_cp.keeper.pipe import OutputPipe
from supervisord_cp.keeper.protocol import NONCE_VARIABLE, MetaDocument

ENGINE_UMASK: Final = 0o022


class Launch(NamedTuple):
    """A launch document that was checked."""

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


class StartFailed(Exception):
    """The engine was not started; the text says why, for people."""


def check_launch(document: Any) -> Launch:
    """Check a launch document a second time: it is what a process is made of.

    Raises:
        StartFailed: it is not one, or it cannot be executed.
    """
    if not isinstance(document, Mapping):
        raise StartFailed("there is no launch document")
    for name, fine in CHECKS.items():
        if not fine(document.get(name)):
            raise StartFailed(f"the launch document is wrong in {name}")
    return Launch(**{name: document[name] for name in CHECKS})


def start_engine(launch: Launch, output: OutputPipe) -> int:
    """Run it in a session of its own, with nothing of ours open but both ends of its output. Its pid.

    The caller reaps it.

    Raises:
        StartFailed: the system refuses.
    """
    # With SPT_NOENV setproctitle leaves the environment alone, and with it the nonce readable.
    environment = {**launch.env, NONCE_VARIABLE: launch.nonce, "SPT_NOENV": "1"}
    try:
        process = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=output.write_end,
            stderr=output.write_end,
            pass_fds=(output.read_end,),
            cwd=launch.cwd,
            env=environment,
            umask=ENGINE_UMASK,
            start_new_session=True,
        )
    except OSError as error:
        raise StartFailed(_explain(error, launch)) from error
    process.returncode = 0  # disowned: Popen must neither wait for it nor warn that nobody does
    return process.pid


def _explain(error: OSError, launch: Launch) -> str:
    words = error.strerror or str(error)
    if error.filename == launch.cwd:
        return f"cannot enter the directory {launch.cwd}: {words}"
    program = launch.argv[0]
    if isinstance(error, FileNotFoundError) and os.path.isabs(program) and os.path.exists(program):
        return f"cannot run {program}: the interpreter that it names is missing"
    return f"cannot run {program}: {words}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_word(value: object) -> bool:
    return _is_text(value) and value != ""


def _is_absolute(value: object) -> bool:
    return isinstance(value, str) and _is_text(value) and os.path.isabs(value)


def _is_argv(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and any(value[:1])


def _is_environment(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_word(name) and "=" not in name and _is_text(content) for name, content in value.items()
    )


CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "instance": _is_word,
    "incarnation": _is_word,
    "nonce": _is_word,
    "argv": _is_argv,
    "env": _is_environment,
    "cwd": _is_absolute,
    "log_path": _is_absolute,
    "log_max_bytes": lambda value: isinstance(value, int) and value > 0,
    "log_files": lambda value: isinstance(value, int) and value >= 0,
    "meta": lambda value: isinstance(value, dict),
}
