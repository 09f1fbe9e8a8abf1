"""Folders, files and limits of the host."""

import os
import resource
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.doctor.finding import Finding, error, ok, warning

LOW_SHARE: Final = 0.05
LOW_BYTES: Final = 2 * 2**30
EMPTY_BYTES: Final = 200 * 2**20
FILES: Final = 65536
"""Open files that a router with thousands of streams needs."""


def folder_findings(folders: Iterable[tuple[str, Path]]) -> Iterator[Finding]:
    """Each folder (what it is for, where): is it writable, and is there room?"""
    for what, folder in folders:
        there = nearest(folder)
        if not os.access(there, os.W_OK | os.X_OK):
            yield error(
                what,
                f"{folder} cannot be written by this user",
                f"run this as the daemon's user, or: chown -R supervisord-cp: {folder}",
            )
            continue
        usage = shutil.disk_usage(there)
        yield room(what, folder, usage.free, usage.total)


def room(what: str, folder: Path, free: int, total: int) -> Finding:
    """Whether a disk has room. Pure."""
    text = f"{folder}: {free / 2**30:.1f} of {total / 2**30:.0f} GiB free"
    if free < EMPTY_BYTES:
        return error(what, f"{text}: full", "free space: logs and state cannot be written")
    if free < LOW_BYTES or free < LOW_SHARE * total:
        return warning(what, f"{text}: nearly full", "free space, or lower log_max_size and log_files")
    return ok(what, text)


def secret_findings(files: Iterable[tuple[str, Path | None]]) -> Iterator[Finding]:
    """Each file with secrets (its key, where): is it there, and closed to others?"""
    for what, path in files:
        if path is None:
            continue
        try:
            mode = path.stat().st_mode
        except OSError as problem:
            yield error(what, f"{path}: {problem.strerror}", "make it, or correct its path in the file")
            continue
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield error(
                what, f"{path} is open to others (mode {mode & 0o777:04o})", f"chmod u=rw,g=r,o= {path}"
            )
        elif not os.access(path, os.R_OK):
            yield warning(what, f"{path} cannot be read by this user", "run this as root")
        else:
            yield ok(what, f"{path} is closed to others")


def limit_finding() -> Finding:
    """Open files that processes started from here may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        return warning(
            "open files",
            f"at most {hard}: a router has two for each open stream",
            "the packaged units allow more; elsewhere: ulimit -Hn 65536",
        )
    return ok("open files", "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def nearest(folder: Path) -> Path:
    """The folder itself, or the first one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def build_finding(compiled: bool) -> Finding:
    """Whether the router was compiled when it was installed. Pure."""
    if compiled:
        return ok("router", "compiled")
    return warning(
        "router",
        "interpreted, at about twice the CPU of a compiled one",
        "install a C compiler and Python's headers (apt install gcc libc6-dev python3-dev), then install "
        "supervisord-cp again, not editable",
    )
