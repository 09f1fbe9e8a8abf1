"""Decisions of scaling with everything that they were made from: stored, and found again."""

import asyncio
import contextlib
from typing import Final, TypeAlias

import msgspec

from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.scaling import ScaleRecord
from supervisord_cp.ports.store import StoreFailed, StorePort

STREAM: Final = "decision/"

At: TypeAlias = tuple[float, ScaleRecord]
"""A record with its time in seconds since 1970."""


class Decisions:
    """A control step decides twice a second, mostly the same: what is stored is each change of the number,
    of what holds or limits it, or of who does not know."""

    def __init__(self, store: StorePort) -> None:
        self._store = store
        self._last: dict[DeploymentName, object] = {}

    def keep(self, record: ScaleRecord) -> None:
        """Store a record unless it says what the one before said."""
        decision = record.decision
        said = (
            decision.wanted,
            decision.reason.code,
            tuple(limit.reason.code for limit in decision.limits),
            tuple(proposal.replicas is None for proposal in decision.proposals),
        )
        if self._last.get(decision.deployment) != said:
            self._last[decision.deployment] = said
            text = msgspec.json.encode(record).decode()
            self._store.append(STREAM + decision.deployment, text, at=record.view.wall_s)

    async def latest(self, deployment: str, limit: int, *, until: float | None = None) -> list[At]:
        """The newest records, oldest first; none after `until` (seconds since 1970) where that is given."""
        with contextlib.suppress(StoreFailed):  # what was stored before can be read all the same
            await self._store.flush()
        rows = await asyncio.to_thread(self._store.recent, STREAM + deployment, limit, until=until)
        found = []
        for at, text in rows:
            with contextlib.suppress(msgspec.ValidationError, msgspec.DecodeError):
                found.append((at, msgspec.json.decode(text, type=ScaleRecord)))
        return found
