"""The agent as a process of its own."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from random import randint
from typing import Any

from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.model.launch import DesiredInstance, EngineKind
from tests.agent.fake_central import FakeCentral
from tests.core.instances_kit import desired
from tests.waiting import PATIENCE_S, until

TINY = Path(__file__).with_name("tiny_engine.py")
MAIN = """
import asyncio, logging, sys
from pathlib import Path
from supervisord_cp.agent.app import run_agent
from supervisord_cp.config.load import load
from supervisord_cp.errors import SupervisordError
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
try:
    sys.exit(asyncio.run(run_agent(load(Path(sys.argv[1])), stop_engines="--stop-engines" in sys.argv)))
except SupervisordError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class AgentHost:
    """A host with an agent, in a folder. Whatever it leaves behind is ended by `clean`."""

    def __init__(self, folder: Path, central: FakeCentral, **settings: Any) -> None:
        self.folder = folder
        self.central = central
        self.state_dir = folder / "state"
        self.log_dir = folder / "log"
        self.config = folder / "config.toml"
        self.process: asyncio.subprocess.Process | None = None
        self.environ: dict[str, str] | None = None
        """The agent's environment; None: the test's own."""
        self.settings = {
            "name": "node-a",
            # An address of its own: agents of other tests have the same ports.
            "advertise": f"127.{randint(1, 254)}.{randint(0, 255)}.{randint(1, 254)}",
            "central": central.url,
            "state_dir": str(self.state_dir),
            "log_dir": str(self.log_dir),
            "listen": "",
            "device": "cpu",
            "slots": 4,
            "max_parallel_starts": 4,
            **settings,
        }
        self.allow = {"executables": [sys.executable]}

    def write_config(self) -> None:
        def toml(value: object) -> str:
            if isinstance(value, list):
                return f"[{', '.join(map(toml, value))}]"
            return f'"{value}"' if isinstance(value, str) else str(value).lower()

        lines = ["[agent]", *(f"{key} = {toml(value)}" for key, value in self.settings.items())]
        lines += ["[agent.allow]", *(f"{key} = {toml(value)}" for key, value in self.allow.items())]
        self.config.write_text("\n".join(lines) + "\n")

    async def start(self, *options: str) -> None:
        """Start an agent; its log goes to `agent.log`."""
        self.write_config()
        with (self.folder / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                MAIN,
                str(self.config),
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                env=self.environ,
                stdout=log,
                stderr=log,
            )

    async def connect(self, *options: str) -> None:
        """Start an agent and wait for its first full report."""
        hellos = len(self.central.hellos)
        await self.start(*options)

        def connected(central: FakeCentral) -> bool:
            assert self.process is not None
            assert self.process.returncode is None, self.log()
            return len(central.hellos) > hellos and bool(central.reports)

        await self.central.sees(connected)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def log(self) -> str:
        """What agents have logged."""
        return (self.folder / "agent.log").read_text()

    def engine(self, name: str, slot: int = 0, **changes: Any) -> DesiredInstance:
        """A tiny engine, steered by files in a folder of its name."""
        self.steer(name)
        command = (sys.executable, "-I", "-S", str(TINY), "{host}", "{port}", str(self.folder / name))
        changes = {"devices": (f"slot-{slot}",), **changes}
        return desired(name, engine=EngineKind.COMMAND, command=command, **changes)

    def steer(self, name: str, *files: str) -> None:
        """Let exactly these files lie in an engine's folder."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.name not in files:
                file.unlink()
        for file in files:
            (folder / file).touch()

    async def clean(self) -> None:
        """End the agent and every engine."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await end_engines(self.state_dir)


async def end_engines(state_dir: Path) -> None:
    """End what an agent that is no more has left running."""
    if not (state_dir / "instances").exists():
        return
    backend = DirectBackend(state_dir)
    try:
        for engine in await backend.find():
            await engine.stop(grace_s=0.0)
            async with asyncio.timeout(PATIENCE_S):
                await engine.gone()
            engine.close()
    finally:
        backend.close()
        await asyncio.sleep(0)


def alive(pid: int | None) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def members(pid: int) -> set[int]:
    """A process and all its descendants."""
    found = {pid}
    parents = {}
    for stat in Path("/proc").glob("[1-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


async def all_gone(pids: set[int], patience_s: float = PATIENCE_S) -> None:
    await until(lambda: not any(map(alive, pids)), f"gone: {pids}", patience_s)
