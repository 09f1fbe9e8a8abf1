"""Reading an engine's rotated log: its last lines, and what is added to it.

Full logs are renamed to `PATH.1` (the newest), `PATH.2` …, and the last log of the incarnation before to
`PATH.previous`. A reader recognises files by their inodes, and their order by when they were last written.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK: Final = 64 * 1024


class LogFollower:
    """Reads what is added to a log, over rotations, in pieces of at most `BLOCK` bytes.

    Blocks on the disk only. Not to be shared between threads.
    """

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._file = _open(path)
        self._offset = 0
        if from_end and self._file is not None:
            self._offset = os.fstat(self._file).st_size

    @property
    def start(self) -> tuple[int, int] | None:
        """Inode and offset of what `read` returns next; None: there is no log yet."""
        return None if self._file is None else (os.fstat(self._file).st_ino, self._offset)

    def read(self) -> bytes:
        """The next piece; empty when there is nothing new."""
        while True:
            if self._file is None:
                self._file = _open(self._path)
            if self._file is None:
                return b""
            status = os.fstat(self._file)
            if status.st_size < self._offset:  # emptied in place
                self._offset = 0
            piece = os.pread(self._file, BLOCK, self._offset)
            if piece:
                self._offset += len(piece)
                return piece
            if not self._advance(self._file, status.st_ino):
                return b""

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _advance(self, file: int, inode: int) -> bool:
        """Go to the file after the present one, if that was rotated away and is read to its end."""
        if _inode(self._path) in (inode, None):
            return False
        if os.fstat(file).st_size > self._offset:
            return True  # a last piece came between the read and the rename; nothing follows it
        descriptor = _open(self._after(file, inode))
        if descriptor is None:
            return False
        os.close(file)
        self._file, self._offset = descriptor, 0
        return True

    def _after(self, file: int, inode: int) -> Path:
        """The file that was begun when this one was full, or its incarnation had ended."""
        newer = self._path
        written = os.fstat(file).st_mtime_ns
        for rotated in _rotated(self._path):
            if _inode(rotated) == inode or _written(rotated) < written:
                break
            newer = rotated
        return newer


def last_lines(path: Path, count: int, *, before: tuple[int, int] | None = None) -> bytes:
    """The last `count` lines of an incarnation's log and its rotated files, in order.

    `before` (inode, offset) ends it there: what a follower returns next is not in it.
    """
    pieces: list[bytes] = []
    wanted = count
    sought = before
    for file in _of_one_incarnation(path):
        if wanted <= 0:
            break
        descriptor = _open(file)
        if descriptor is None:
            continue
        try:
            status = os.fstat(descriptor)
            end = status.st_size
            if sought is not None:
                if status.st_ino != sought[0]:
                    continue  # newer than the end that is wanted
                end, sought = min(end, sought[1]), None
            piece = _tail(descriptor, end, wanted)
        finally:
            os.close(descriptor)
        pieces.append(piece)
        wanted -= piece.count(b"\n") + (0 if not piece or piece.endswith(b"\n") else 1)
    return b"".join(reversed(pieces))


def tail_text(path: Path, size: int) -> str:
    """The last `size` bytes of an incarnation's log and its rotated files, from the beginning of a line; ""
    without a log."""
    pieces: list[bytes] = []
    seen: set[int] = set()
    wanted, start = size, 0
    for file in _of_one_incarnation(path):
        if wanted <= 0 or start > 0:
            break
        descriptor = _open(file)
        if descriptor is None:
            continue
        try:
            status = os.fstat(descriptor)
            if status.st_ino in seen:
                continue  # rotated while it was read
            seen.add(status.st_ino)
            start = max(0, status.st_size - wanted)
            pieces.append(os.pread(descriptor, wanted, start))
        finally:
            os.close(descriptor)
        wanted -= len(pieces[-1])
    if start > 0:
        pieces[-1] = pieces[-1].partition(b"\n")[2]
    return b"".join(reversed(pieces)).decode(errors="replace")


def _tail(descriptor: int, end: int, lines: int) -> bytes:
    """The last lines of the first `end` bytes of a file."""
    blocks: list[bytes] = []
    position, breaks = end, 0
    while position > 0 and breaks <= lines:
        size = min(BLOCK, position)
        position -= size
        block = os.pread(descriptor, size, position)
        blocks.append(block)
        breaks += block.count(b"\n")
    whole = b"".join(reversed(blocks))
    start = len(whole)
    for _ in range(lines + whole.endswith(b"\n")):
        start = whole.rfind(b"\n", 0, start)
        if start < 0:
            return whole
    return whole[start + 1 :]


def _of_one_incarnation(path: Path) -> Iterator[Path]:
    """The present file, then the full ones that the same incarnation wrote, the newest first.

    What was written after the last log of the incarnation before is its own.
    """
    yield path
    previous = _written(path.with_name(f"{path.name}.previous"))
    for file in _rotated(path):
        if _written(file) <= previous:
            return
        yield file


def _rotated(path: Path) -> list[Path]:
    """Rotated files, the newest first."""
    found: list[Path] = []
    while (file := path.with_name(f"{path.name}.{len(found) + 1}")).exists():
        found.append(file)
    return found


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _written(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0: it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
