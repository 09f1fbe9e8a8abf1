"""Ports of this host: whether one can be listened on, and who has it."""

import errno
import socket
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Final

import psutil

LONGEST: Final = 120
"""Characters of a command line that are shown."""


def bind_error(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None when it is free. The socket is closed again."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def in_use(error: OSError) -> bool:
    """Whether somebody else listens there, as opposed to an address that this host does not have."""
    return error.errno == errno.EADDRINUSE


def listener_of(port: int) -> str:
    """Who listens on a port, as `PID 4711 (command)`; "" when that cannot be seen (another user's process).

    Of processes that have inherited the listener it is the one they have it from."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return ""
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            pid = _eldest(one.pid, port)
            return f"PID {pid} ({_command(pid)})"
    return ""


def listens(pids: Iterable[int], port: int) -> bool | None:
    """Whether one of these processes listens on the port; None when that cannot be seen (another user's)."""
    unseen = False
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.AccessDenied:
            unseen = True
        except psutil.NoSuchProcess:
            continue
        else:
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                return True
    return None if unseen else False


def _eldest(pid: int, port: int) -> int:
    """The process itself, or the ancestor from which it has its listener."""
    try:
        while (parent := psutil.Process(pid).ppid()) > 1 and listens([parent], port):
            pid = parent
    except psutil.Error:
        pass
    return pid


def _command(pid: int) -> str:
    """The first words of its command line: long options may be followed by secrets."""
    try:
        program, *words = psutil.Process(pid).cmdline() or [psutil.Process(pid).name()]
    except psutil.Error:
        return "?"
    shown = takewhile(lambda word: not word.startswith("--"), words[:4])
    line = " ".join(" ".join([Path(program).name, *shown]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
