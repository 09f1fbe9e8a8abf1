"""The gate that every start passes: devices, memory, a port, and not too many at a time."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from supervisord_cp.core.instances.admission import Occupancy, admission
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode

AGAIN_S: Final = 0.25
"""How often waiting starts are looked at when nothing happens: memory is freed without a word."""


class Applicant(Protocol):
    """An instance that wants to start."""

    @property
    def id(self) -> InstanceId: ...

    @property
    def applied_for(self) -> DesiredInstance: ...

    @property
    def last_port(self) -> int | None:
        """What it listened on before. It gets that again if it can: a router that has not heard of
        the restart then finds it, and not an engine of another model."""
        ...

    @property
    def shunned_port(self) -> int | None:
        """What it could not listen on at its last try, although it seemed free."""
        ...

    def held(self, reason: Reason) -> None:
        """It has to wait."""
        ...

    def admitted(self, port: int) -> None:
        """It may start on this port, which is its own until its tree is gone."""
        ...


class NodeFacts(Protocol):
    """What the gate needs to know; asked anew each time, so that nothing can drift."""

    def occupancy(self) -> Occupancy: ...

    def known_devices(self) -> Iterable[DeviceId] | None: ...

    def gpus(self) -> Mapping[DeviceId, Gpu]: ...

    def ports_in_use(self) -> set[int]: ...

    def ports_kept(self) -> set[int]:
        """Last ports of all instances, running or not."""
        ...


class Gate:
    """Admits starts in the order of their applications, each as soon as it can be."""

    def __init__(
        self,
        facts: NodeFacts,
        *,
        ports: tuple[int, int],
        max_loading: int,
        port_free: Callable[[int], bool],
    ) -> None:
        """`ports` are the first and the last; `port_free` asks the kernel."""
        self._facts = facts
        self._ports = ports
        self._max_loading = max_loading
        self._port_free = port_free
        self._waiting: dict[InstanceId, Applicant] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due: float = 0.0

    def apply(self, applicant: Applicant) -> None:
        """Wait for admission; answers come later, never from within this call."""
        self._waiting[applicant.id] = applicant
        self.look()

    def withdraw(self, instance: InstanceId) -> None:
        """No longer wait."""
        self._waiting.pop(instance, None)

    def wakes(self, sleeper: Applicant, pids: Iterable[int]) -> Reason:
        """Why an instance that sleeps, in these processes, has to wait before it wakes; NO_REASON: it may."""
        return self._admission(sleeper, waking=frozenset(pids))

    def look(self) -> None:
        """Something has changed: look at who waits, soon."""
        if self._waiting:
            self._schedule(0.0)

    def close(self) -> None:
        """Admit nobody any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_later(delay_s, self._round)

    def _round(self) -> None:
        self._timer = None
        for applicant in list(self._waiting.values()):
            reason, port = self._judge(applicant)
            if port is None:
                applicant.held(reason)
            else:
                del self._waiting[applicant.id]
                applicant.admitted(port)
        if self._waiting:
            self._schedule(AGAIN_S)

    def _admission(self, applicant: Applicant, *, waking: frozenset[int] | None = None) -> Reason:
        known = self._facts.known_devices()
        return admission(
            applicant.applied_for,
            occupancy=self._facts.occupancy(),
            known_devices=None if known is None else frozenset(known),
            gpus=self._facts.gpus(),
            max_loading=self._max_loading,
            waking=waking,
        )

    def _judge(self, applicant: Applicant) -> tuple[Reason, int | None]:
        reason = self._admission(applicant)
        if reason != NO_REASON:
            return reason, None
        port = next(filter(self._port_free, self._candidates(applicant)), None)
        if port is None:
            first, last = self._ports
            return Reason(code=ReasonCode.AWAITING_PORT, params={"ports": f"{first}-{last}"}), None
        return NO_REASON, port

    def _candidates(self, applicant: Applicant) -> Iterator[int]:
        """Its own last port, then those of nobody, then those of instances that do not run; what it could
        not listen on comes last of all."""
        first, last = self._ports
        in_use, kept = self._facts.ports_in_use(), self._facts.ports_kept()
        free = [port for port in range(first, last + 1) if port not in in_use]
        own = [port for port in free if port == applicant.last_port]
        others = [port for port in free if port != applicant.last_port]
        if applicant.shunned_port != applicant.last_port:
            yield from own
        yield from (port for port in others if port not in kept)
        yield from (port for port in others if port in kept)
        if applicant.shunned_port == applicant.last_port:
            yield from own
