"""From a desired instance to a process: what is executed, with which environment, and what is noted."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from supervisord_cp.agent.inputs import inputs_of
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.engines.allow import refusals
from supervisord_cp.engines.base import (
    Capabilities,
    Engine,
    Engines,
    LaunchContext,
    LaunchRefused,
    SleepMode,
)
from supervisord_cp.engines.environment import base_environment, secrets_in
from supervisord_cp.model.base import DeviceId, Incarnation, InstanceId, Value
from supervisord_cp.model.launch import DesiredInstance, program_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.ports.process import ProcessRecord, SpawnRequest

log = logging.getLogger(__name__)

INPUTS_S: Final = 5.0
INTERNAL_FIRST: Final = 20_000
INTERNAL_STRIDE: Final = 16
INTERNAL_BLOCKS: Final = 750
"""Blocks end below 32768, where the kernel's ephemeral ports begin."""


class Refused(Exception):
    """The launch cannot be made now; the reason says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


class RunNotes(Value, frozen=True, kw_only=True):
    """What the agent notes with an incarnation, so that a later agent can take it over."""

    desired: DesiredInstance
    host: str
    port: int
    log_path: str
    api_key: str = ""
    inputs: str = ""
    """See `Launcher.inputs`."""
    sleep_mode: SleepMode | None = None
    """How it is put to sleep; None: it was started without sleep mode."""

    @property
    def url(self) -> str:
        """Where the engine listens."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def notes_of(record: ProcessRecord) -> RunNotes | None:
    """The notes of a record; None when they are not ours or damaged."""
    try:
        return msgspec.json.decode(str(record.meta.get("notes", "")), type=RunNotes)
    except msgspec.MsgspecError:
        return None


class Launcher:
    """Prepares launches on one node."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        engines: Engines,
        loopback: bool,
        device_kind: str,
        device_indexes: Callable[[], Mapping[DeviceId, int]],
        environ: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        """`loopback`: engines are reachable from this machine only, so they need no key. `cwd` is the
        folder that they run in; default: the state directory."""
        self._config = config
        self._engines = engines
        self._loopback = loopback
        self._device_kind = device_kind
        self._device_indexes = device_indexes
        self._environ = base_environment(environ)
        self._cwd = cwd or config.state_dir.absolute()
        self.allow = config.allow
        """Replaced when the configuration is read again."""

    def engine(self, desired: DesiredInstance) -> Engine:
        """The engine of an instance.

        Raises:
            Refused: this agent does not know that kind.
        """
        kind = desired.spec.engine.value
        if kind not in self._engines:
            raise Refused(_refused(f"no engine of kind {kind}"))
        return self._engines[kind]

    async def examine(self, desired: DesiredInstance) -> Capabilities:
        """Whether the node allows the launch and has the program, and what that can do.

        Raises:
            Refused: it does not.
        """
        engine = self.engine(desired)
        if refused := refusals(desired.spec, self.allow):
            raise Refused(_refused("; ".join(refused)))
        program = program_of(desired.spec)
        try:
            return await asyncio.to_thread(engine.probe, program)
        except Exception as error:  # whatever it is, it may be another one at the next look
            if not isinstance(error, LaunchRefused | OSError):
                log.exception("looking at %s", program)
            words = str(error) or type(error).__name__
            params: dict[str, str | int | float] = {"executable": program, "error": words}
            raise Refused(Reason(code=ReasonCode.EXECUTABLE_MISSING, params=params)) from error

    @property
    def secrets(self) -> tuple[str, ...]:
        """What engines inherit and nobody else may see."""
        return secrets_in(self._environ)

    async def inputs(self, desired: DesiredInstance) -> str:
        """A digest of what the launch depends on besides its specification: program, model, node; "" when
        their disk does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INPUTS_S):
                return await asyncio.to_thread(inputs_of, desired.spec, self.allow, self._environ)
        return ""

    def request(
        self, desired: DesiredInstance, *, port: int, found: Capabilities, inputs: str = ""
    ) -> tuple[SpawnRequest, RunNotes]:
        """The process to start: a new incarnation.

        Raises:
            Refused: the specification cannot be launched.
        """
        nonce = secrets.token_hex(16)
        notes = RunNotes(
            desired=desired,
            host=self._config.advertise,
            port=port,
            log_path=str(self.log_path(desired.id)),
            api_key="" if self._loopback else secrets.token_urlsafe(32),
            inputs=inputs,
        )
        indexes = self._device_indexes()
        context = LaunchContext(
            host=notes.host,
            port=port,
            device_kind=self._device_kind,
            devices=desired.devices,
            device_indexes=tuple(indexes[device] for device in desired.devices if device in indexes),
            nonce=nonce,
            instance=desired.id,
            api_key=notes.api_key,
            internal_ports=internal_ports(port),
            dev_mode=self.allow.dev_mode,
        )
        try:
            prepared = self.engine(desired).prepare(desired.spec, context, found)
        except LaunchRefused as error:
            raise Refused(_refused(str(error))) from error
        notes = replace(notes, sleep_mode=prepared.sleep_mode)
        request = SpawnRequest(
            instance=desired.id,
            incarnation=Incarnation(f"{desired.id}.{secrets.token_hex(4)}"),
            nonce=nonce,
            argv=prepared.argv,
            env={**self._environ, **prepared.env},
            cwd=str(self._cwd),
            log_path=notes.log_path,
            log_max_bytes=self._config.log_max_size,
            log_files=self._config.log_files,
            meta={"notes": msgspec.json.encode(notes).decode()},
        )
        return request, notes

    def log_path(self, instance: InstanceId) -> Path:
        """Where an instance logs."""
        return self._config.log_dir.absolute() / f"{instance}.log"


def _refused(what: str) -> Reason:
    return Reason(code=ReasonCode.REFUSED_BY_POLICY, params={"what": what})


def internal_ports(port: int) -> int:
    """A block of ports for an engine's own use, as unlike its neighbours' as the ports themselves are."""
    return INTERNAL_FIRST + port % INTERNAL_BLOCKS * INTERNAL_STRIDE
