"""What is asked of each supervisor."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from supervisors.observe import MARK

GRACE_S = 3
"""Between SIGTERM and SIGKILL, for all."""
STALL_S = 5
"""For whoever can be told how long an engine may stand still."""
FAKE = (sys.executable, "-m", "supervisord_cp.engines.fake")


@dataclass(frozen=True)
class Engine:
    """A fake engine, the same under every supervisor."""

    name: str
    mark: str
    port: int
    """Where the others run it; ours picks one, this being the first of its range."""
    knobs: dict[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        """The command line."""
        words = [*FAKE, "serve", self.name, "--host", "127.0.0.1", "--port", str(self.port)]
        for name, value in self.knobs.items():
            words += [f"--fake-{name}"] if value is True else [f"--fake-{name}", str(value)]
        return words

    @property
    def env(self) -> dict[str, str]:
        """What is added to the environment: the mark, and leave to switch faults on."""
        return {MARK: self.mark, "FAKE_VLLM_CONTROL": "1"}


@dataclass(frozen=True)
class View:
    """What a supervisor says of an engine when it is asked."""

    up: bool
    """Whether it counts as running, or ready where that is told apart."""
    pid: int | None
    state: str


class Supervisor(Protocol):
    """A supervisor with its engines, in a folder of its own."""

    name: str
    version: str

    def __init__(self, folder: Path, engines: list[Engine]) -> None: ...

    def start(self) -> None:
        """Start it; engines come up by and by."""
        ...

    def look(self, engine: Engine) -> View: ...

    def url(self, engine: Engine) -> str:
        """Where the engine is to be found."""
        ...

    def stop_engine(self, engine: Engine) -> None:
        """Have an operator stop it; does not wait."""
        ...

    def told(self, engine: Engine) -> str:
        """What it says of the engine's last end, in its listing or its own log; "" is nothing."""
        ...

    def ends_told(self, engine: Engine) -> int:
        """How often its own log says that the engine has ended or is ill."""
        ...

    def upgrade(self) -> None:
        """End it as its service unit would, and start it again."""
        ...

    def kill(self, *, everything: bool) -> None:
        """SIGKILL; `everything`: each process that is its own, too."""
        ...

    def close(self) -> None:
        """End it, however."""
        ...


class Daemon:
    """A process in the foreground, with a log."""

    def __init__(self, argv: list[str], folder: Path, log: str) -> None:
        self._argv, self._folder = argv, folder
        self.log = folder / log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environ = {**os.environ, "SPT_NOENV": "1"}  # titles must not wipe the mark
            self.process = subprocess.Popen(
                self._argv, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )

    def terminate(self) -> None:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def count(self, pattern: str) -> int:
        """Lines of its log in which this is found."""
        return sum(bool(re.search(pattern, line)) for line in self.lines())

    def lines(self) -> list[str]:
        """Its log."""
        return self.log.read_text(errors="replace").splitlines()
