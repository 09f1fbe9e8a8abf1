"""A stand-in for the NVIDIA driver: a small libnvidia-ml.so.1 that unmodified nvidia-ml-py loads."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[1] / "gpu" / "stub" / "nvml_stub.c"
Fields = dict[str, str | int]


def build_library(folder: Path) -> Path:
    """Compile the library into `folder`, which then goes on LD_LIBRARY_PATH.

    Raises:
        FileNotFoundError: there is no gcc.
    """
    if (gcc := shutil.which("gcc")) is None:
        raise FileNotFoundError("gcc")
    flags = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run([gcc, *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)], check=True)
    return folder


class StubDriver:
    """What the library says, kept in the file that it reads at each call (format: see its source)."""

    def __init__(self, library: Path, state: Path) -> None:
        self._library = library
        self._state = state
        self._lines: list[tuple[str, Fields]] = []
        self.write()

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which a process sees these GPUs."""
        library = {"LD_LIBRARY_PATH": str(self._library), "NVML_STUB_STATE": str(self._state)}
        return {**os.environ, **library}

    def add(self, kind: str, **fields: str | int) -> None:
        """One more line."""
        self._lines.append((kind, fields))
        self.write()

    def change(self, kind: str, where: Fields, **fields: str | int) -> None:
        """Set fields of the lines of that kind in which all of `where` holds."""
        for _, line in self._matching(kind, where):
            line.update(fields)
        self.write()

    def remove(self, kind: str, **where: str | int) -> None:
        """Take out the lines of that kind in which all of `where` holds."""
        gone = self._matching(kind, where)
        self._lines = [line for line in self._lines if line not in gone]
        self.write()

    def write(self) -> None:
        """Replace the file at once, so that no call sees half of it."""
        lines = ("\t".join((kind, *(f"{k}={v}" for k, v in fields.items()))) for kind, fields in self._lines)
        beside = self._state.with_suffix(".new")
        beside.write_text("".join(f"{line}\n" for line in lines))
        beside.replace(self._state)

    def _matching(self, kind: str, where: Fields) -> list[tuple[str, Fields]]:
        return [line for line in self._lines if line[0] == kind and where.items() <= line[1].items()]
