"""What the engine writes, kept in a log that is rotated by size.

The engine is never made to wait for room on the disk: what cannot be written is counted and dropped.
"""

import contextlib
import os
from typing import Final

LONGEST_LINE_BYTES: Final = 1024 * 1024
"""By how much a line may overrun the size of a log before it is torn."""
LOG_MODE: Final = 0o640
NEWLINE: Final = ord("\n")


class RotatedLog:
    """A log: `PATH` is being written, `PATH.1` is the newest full one, up to `PATH.<files>`.

    Each ends at the end of a line. Opening it keeps what was there as `PATH.previous`; full ones of
    earlier incarnations stay and age with the new ones.
    """

    def __init__(self, path: str, *, max_bytes: int, files: int, resume: bool = False) -> None:
        """`resume`: goes on with what was there. Raises OSError when it cannot be opened; later on nothing
        is raised."""
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._size = 0
        self._line_open = False
        self._gap_bytes = 0
        self._gap_cause = ""
        self.dropped_bytes = 0
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        if not resume:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, f"{path}.previous")
        self._file: int | None = self._open()
        if resume:
            self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append all of it, or count what is lost."""
        while data:
            cut = self._cut(data)
            self._append(data[:cut])
            data = data[cut:]
            if data or self._size >= self._max_bytes + LONGEST_LINE_BYTES:
                self._rotate()

    def skip(self, count: int, cause: str) -> None:
        """Count output that never came here; what is written next begins with a note of it."""
        if count:
            self._gap_bytes += count
            self._gap_cause = cause
            self.dropped_bytes += count

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _cut(self, data: bytes) -> int:
        """How many bytes go to the current file before it is rotated."""
        room = max(0, self._max_bytes - self._size)
        if len(data) <= room:
            return len(data)
        cut = data.rfind(b"\n", 0, room) + 1
        if cut == 0 and (self._line_open or self._size == 0):
            cut = data.find(b"\n") + 1 or len(data)  # the line that was begun here ends here
        return cut

    def _append(self, data: bytes) -> None:
        if self._gap_bytes and self._put(self._gap_note()) == 0:
            self._gap_bytes = 0
        lost = len(data) if self._gap_bytes else self._put(data)
        self._gap_bytes += lost
        self.dropped_bytes += lost

    def _put(self, data: bytes) -> int:
        """Write, and say how many bytes could not be written."""
        rest = memoryview(data)
        try:
            if self._file is None:
                self._file = self._open()
            while rest:
                written = os.write(self._file, rest)
                self._size += written
                self._line_open = rest[written - 1] != NEWLINE
                rest = rest[written:]
        except OSError as error:
            self._gap_cause = error.strerror or type(error).__name__
        return len(rest)

    def _gap_note(self) -> bytes:
        start = "\n" if self._line_open else ""
        note = f"{start}[keeper] {self._gap_bytes} bytes of output are missing here: {self._gap_cause}\n"
        return note.encode()

    def _rotate(self) -> None:
        """Never raises: where a file cannot be moved, it is written on."""
        self.close()
        with contextlib.suppress(OSError):
            for number in range(self._files - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            if self._files:
                os.rename(self._path, f"{self._path}.1")
            else:
                os.truncate(self._path, 0)
        self._size = 0
        self._line_open = False
        # There always is one: the next incarnation keeps it as `previous`, and what is older is not its own.
        with contextlib.suppress(OSError):
            self._file = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, LOG_MODE)
