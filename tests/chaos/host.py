"""A host whose agents die when a test wants it, and what a test looks at there."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent.daemon import TINY, AgentHost, alive
from tests.agent.fake_central import FakeCentral
from tests.waiting import until

AGENT = Path(__file__).with_name("dying_agent.py")
FAKE = "chat-0"
"""The only instance with a fake engine."""


@dataclass(frozen=True)
class Bystander:
    """A process of somebody else."""

    process: "subprocess.Popen[bytes]"
    notes: Path

    def unharmed(self) -> bool:
        """Whether it lives and never got a signal."""
        return self.process.poll() is None and not self.notes.read_text()

    def start_ticks(self) -> int:
        """When it was started."""
        return int(Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[19])


class DyingHost(AgentHost):
    """A host with agents that note where they persist something, and die there when told to."""

    def __init__(self, folder: Path, central: FakeCentral, **settings: Any) -> None:
        super().__init__(folder, central, slots=8, **settings)
        self.trace = folder / "trace"

    async def start(self, point: str = "", *_: str) -> None:
        """Start an agent that dies at `point`."""
        self.write_config()
        self.trace.unlink(missing_ok=True)
        words = [str(AGENT), str(self.config), str(self.trace), *([point] if point else [])]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    def dead(self) -> bool:
        """Whether the agent has been killed where it should; it may end in no other way."""
        assert self.process is not None
        status = self.process.returncode
        assert status in (None, -signal.SIGKILL), self.log()
        return status is not None

    async def unless_dead(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition.

        Raises:
            Dead: the agent was killed before it held.
        """
        await until(lambda: self.dead() or condition(), what)
        if self.dead():
            raise Dead

    def points(self) -> list[str]:
        """Points that the agent has passed, each once, in order."""
        return list(dict.fromkeys(self.trace.read_text().splitlines()))

    def engines(self) -> dict[str, list[int]]:
        """Main processes by the instances that their command lines tell of: tiny engines, and a fake one."""
        found: dict[str, list[int]] = {}
        for process in Path("/proc").glob("[1-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_text().split("\0")
                if str(self.settings["advertise"]) not in words or not alive(int(process.name)):
                    continue
                if str(TINY) in words:
                    found.setdefault(Path(words[-2]).name, []).append(int(process.name))
                elif "serve" in words:
                    found.setdefault(FAKE, []).append(int(process.name))
        return found

    def keeper(self, name: str) -> int:
        """The keeper of an instance, as it is recorded now."""
        return int(json.loads(self.record(name).read_text())["keeper_pid"])

    def record(self, name: str) -> Path:
        """The keeper's record of an instance."""
        (found,) = (self.state_dir / "instances" / name).glob("*/record.json")
        return found


class Dead(Exception):
    """The agent was killed."""
