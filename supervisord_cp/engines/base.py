"""What differs between engines: argv, environment, capabilities, readiness, metrics, log phases, exits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from supervisord_cp.model.base import DeviceId, Value
from supervisord_cp.model.instance import EngineLoad, ExitCause, Phase
from supervisord_cp.model.launch import LaunchSpec


class Capabilities(Value, frozen=True, kw_only=True):
    """What an installed engine can do, found by looking at it, not by assuming."""

    executable: str
    """Absolute path of the program."""
    version: str = ""
    """"" when it could not be found out."""
    flags: frozenset[str] = frozenset()
    """Flags known to exist (without dashes), among those that we would like to use."""
    switches: frozenset[str] = frozenset()
    """Boolean flags (without dashes) that have no `--no-` form."""


class LaunchContext(Value, frozen=True, kw_only=True):
    """What the agent decides for one incarnation."""

    host: str
    port: int
    device_kind: str
    """`cuda` or `cpu`."""
    devices: tuple[DeviceId, ...]
    device_indexes: tuple[int, ...] = ()
    """NVML indexes of `devices`, in order; empty on cpu."""
    nonce: str
    instance: str
    api_key: str = ""
    """"" on loopback."""
    internal_ports: int = 0
    """Base of a block of ports for the engine's own use; 0 = none."""
    dev_mode: bool = False
    """Whether the node allows vLLM's development routes."""


class EngineCall(Value, frozen=True, kw_only=True):
    """One POST to an engine; it has worked when the answer is a 200."""

    path: str
    body: dict[str, str | int] | None = None
    """JSON; None: no body."""


class SleepMode(Value, frozen=True, kw_only=True):
    """How an incarnation is put to sleep and woken, one call after the other."""

    sleep: tuple[EngineCall, ...]
    wake: tuple[EngineCall, ...]
    state_path: str
    """A GET whose answer is a JSON object with `is_sleeping`."""
    canary: EngineCall
    """A completion whose answer is the same each time, as long as the engine is well."""


class PreparedLaunch(Value, frozen=True, kw_only=True):
    """What is executed."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """Added to the agent's own environment as `environment.base_environment` cleans it; may hold secrets."""
    secrets: frozenset[str] = frozenset()
    """Names in `env` that must never be shown."""
    sleep_mode: SleepMode | None = None
    """None: it cannot sleep."""


class LaunchRefused(Exception):
    """The specification cannot be launched; the text says why and what to do."""


class Engine(Protocol):
    """One kind of engine."""

    @property
    def kind(self) -> str:
        """The name that deployments use."""
        ...

    @property
    def metrics_path(self) -> str:
        """Where its Prometheus metrics are; "" when it has none."""
        ...

    @property
    def rest_paths(self) -> tuple[str, ...]:
        """Paths whose answer is a JSON object with a true value while the engine rests on purpose."""
        ...

    def probe(self, executable: str) -> Capabilities:
        """Find the program (`program_of` says which) and what it can do. Blocking (may run a program);
        the caller uses a thread.

        Raises:
            LaunchRefused: it is not there or cannot be run.
        """
        ...

    def prepare(self, spec: LaunchSpec, context: LaunchContext, found: Capabilities) -> PreparedLaunch:
        """The command line and environment of one incarnation. Pure.

        Raises:
            LaunchRefused: a flag that we own (host, port, api-key) is set by the user, and the like.
        """
        ...

    def ready_path(self, spec: LaunchSpec) -> str:
        """The path that answers 200 when the engine serves."""
        ...

    def pulse(self, spec: LaunchSpec) -> EngineCall | None:
        """The smallest piece of work for an engine that serves; None: it cannot be asked for one."""
        ...

    def load(self, page: str) -> EngineLoad:
        """The figures of a metrics page; what is not on it is None. Quick: pages have 100 kB."""
        ...

    def phase(self, line: str) -> Phase | None:
        """The start-up phase that a log line announces, if any; tolerant of versions."""
        ...

    def classify(self, code: int | None, signal: int | None, log_tail: str, was_ready: bool) -> ExitCause:
        """Why an unrequested exit happened. `log_tail`: the end of this incarnation's log, some 200 lines
        (what matters can be followed by a hundred lines of clean-up). `exits.diagnose` also says which
        line tells."""
        ...


Engines = Mapping[str, Engine]
"""By kind; `engines.registry.all_engines()` makes it."""


def local_model(model: str) -> Path | None:
    """The folder of a model that is a path, None when it is a hub id."""
    path = Path(model)
    return path if path.is_absolute() or model.startswith(("./", "../")) else None
