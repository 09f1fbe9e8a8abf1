"""Probes static instances: health each second, load from their metrics."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from supervisord_cp.adapters.tokens import read_token
from supervisord_cp.clock import Clock
from supervisord_cp.config.schema import StaticInstanceConfig
from supervisord_cp.engines.base import Engine
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName, Value
from supervisord_cp.model.fleet import FleetPart, RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
TIMEOUT_S: Final = 2.0
FAILURES_TO_DEGRADE: Final = 2
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
_STARTED: Final = re.compile(rb"^process_start_time_seconds\s+([0-9.e+]+)", re.MULTILINE)


class Probe(Value, frozen=True, kw_only=True):
    """What the last probes of an engine found."""

    state: InstanceState = InstanceState.UNKNOWN
    failures: int = 0
    error: str = ""
    load: EngineLoad | None = None
    started: str = ""
    """Start time of the process as its metrics give it: tells a restart."""


def after_success(load: EngineLoad | None, started: str) -> Probe:
    """An engine that answers is ready."""
    return Probe(state=InstanceState.READY, load=load, started=started)


def after_failure(before: Probe, error: str) -> Probe:
    """One failure may be chance; a second one in a row takes an engine out of rotation."""
    failures = before.failures + 1
    degraded = failures >= FAILURES_TO_DEGRADE
    return Probe(
        state=InstanceState.DEGRADED if degraded else before.state,
        failures=failures,
        error=error,
        load=None if degraded else before.load,
        started=before.started,
    )


def routed(config: StaticInstanceConfig, probe: Probe) -> RoutedInstance:
    """The instance for routers. A process that has started anew is another incarnation."""
    incarnation = f"{config.id}.{probe.started}" if probe.started else f"{config.id}.static"
    return RoutedInstance(
        id=InstanceId(config.id),
        deployment=DeploymentName(config.deployment),
        incarnation=Incarnation(incarnation),
        url=config.url.rstrip("/"),
        zone=config.zone,
        state=probe.state,
        static=True,
        weight=config.weight,
        max_concurrency=config.max_concurrency,
        gpus=config.gpus,
        cost_per_gpu_hour=config.cost_per_gpu_hour,
        load=probe.load,
    )


class Prober:
    """One task per static instance; `on_change` is called with the whole part when anything is new."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        on_change: Callable[[FleetPart], None],
        on_state: Callable[[StaticInstanceConfig, Probe], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._on_change = on_change
        self._on_state = on_state
        self._configs: dict[str, StaticInstanceConfig] = {}
        self._probes: dict[str, Probe] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keys: dict[str, str] = {}
        self._said: dict[str, str] = {}
        """What was wrong with the file of a key."""
        self._session: aiohttp.ClientSession | None = None

    def update(self, configs: Sequence[StaticInstanceConfig]) -> None:
        """Probe exactly these from now on."""
        wanted = {config.id: config for config in configs}
        for name in [n for n, c in self._configs.items() if wanted.get(n) != c]:
            self._tasks.pop(name).cancel()
            del self._configs[name], self._probes[name], self._keys[name], self._said[name]
        for name, config in wanted.items():
            if name not in self._configs:
                self._configs[name] = config
                self._probes[name] = Probe()
                self._read_key(config)
                self._tasks[name] = asyncio.create_task(self._watch(config))
        self._tell()

    async def close(self) -> None:
        """Stop probing."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def error(self, name: str) -> str:
        """What the last probe of an instance found wrong, "" when nothing."""
        probe = self._probes.get(name)
        return "" if probe is None else probe.error

    def keys(self) -> dict[Incarnation, str]:
        """API keys by incarnation, as their files have them; one that cannot be read stays as it was."""
        return {
            routed(config, self._probes[name]).incarnation: key
            for name, config in self._configs.items()
            if (key := self._keys.get(name))
        }

    def _read_key(self, config: StaticInstanceConfig) -> bool:
        """Whether the key of an instance is another one now. What is wrong with its file is said once."""
        wrong = ""
        key = before = self._keys.get(config.id, "")
        try:
            key = read_token(config.api_key_file)
        except UsageError as error:
            wrong = str(error)
            if wrong != self._said.get(config.id):
                log.error("the API key of %s cannot be read: %s", config.id, wrong)
        self._said[config.id] = wrong
        self._keys[config.id] = key
        return key != before

    def _tell(self) -> None:
        instances = tuple(routed(c, self._probes[n]) for n, c in self._configs.items())
        self._on_change(FleetPart(node=NodeName(""), instances=instances))

    async def _watch(self, config: StaticInstanceConfig) -> None:
        while True:
            before = self._probes[config.id]
            after = await self._probe(config, before)
            if self._configs.get(config.id) is not config:
                return
            self._probes[config.id] = after
            if after.state is not before.state:
                self._on_state(config, after)
            if self._read_key(config) or after != before:
                self._tell()
            await asyncio.sleep(PERIOD_S)

    async def _probe(self, config: StaticInstanceConfig, before: Probe) -> Probe:
        session = self._open()
        base = config.url.rstrip("/")
        try:
            async with session.get(f"{base}/health") as answer:
                if answer.status != 200:
                    return after_failure(before, f"/health answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return after_failure(before, str(error) or type(error).__name__)
        page = b""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(f"{base}{self._engine.metrics_path}") as answer:
                if answer.status == 200:
                    page = await answer.content.read(MAX_PAGE_BYTES)
        if not page:
            return after_success(None, before.started)
        started = _STARTED.search(page)
        return after_success(
            self._engine.load(page.decode("utf-8", "replace")),
            started.group(1).decode() if started else before.started,
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        return self._session
