"""Why an incarnation ended: the verdict, and the capsule with its evidence."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.oom import NO_KILLS, OomKills
from supervisord_cp.agent.capsules import Capsules
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.agent.log_files import tail_text
from supervisord_cp.engines.base import Engine
from supervisord_cp.engines.environment import secrets_in
from supervisord_cp.engines.exits import Diagnosis, diagnose, redact, with_oom_kills, with_xids
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.capsule import Capsule, GpuSample
from supervisord_cp.model.instance import ExitCause, Phase
from supervisord_cp.ports.process import ExitStatus

log = logging.getLogger(__name__)

TAIL: Final = 256 * 1024
"""Bytes at the end of a log that say why an engine ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """An abnormal end, as far as it was seen."""

    incarnation: Incarnation
    notes: RunNotes
    status: ExitStatus
    served: bool
    phase: Phase = Phase.NONE
    fault: ExitCause | None = None
    """Set when the agent ended it for this cause."""
    why: str = ""
    """What the agent said when it did."""
    oom: OomKills = NO_KILLS
    xids: tuple[str, ...] = ()
    """What the driver has reported of its GPUs just before."""
    gpus: tuple[GpuSample, ...] = ()
    stacks: str = ""


class Coroner:
    """Finds causes and keeps the evidence. Blocks on the disk."""

    def __init__(self, capsules: Capsules, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` are texts that engines inherit and that must not be kept."""
        self._capsules = capsules
        self._secrets = secrets

    def examine(self, engine: Engine, end: End) -> Diagnosis:
        """The verdict; its capsule is on disk, unless the disk does not take it. Never fails."""
        secrets = (*self._secrets, *secrets_in(end.notes.desired.spec.env), end.notes.api_key)
        text = redact(_log_tail(end), secrets)
        found = with_xids(self._verdict(engine, end, text), end.xids)
        try:
            self._capsules.add(_capsule(end, found, text, redact(end.stacks, secrets)))
        except OSError as error:
            log.warning("no capsule is kept of %s: %s", end.incarnation, error)
        return found

    def _verdict(self, engine: Engine, end: End, text: str) -> Diagnosis:
        status = end.status
        if end.fault is not None:
            return Diagnosis(cause=end.fault, evidence=end.why)
        if status.keeper_lost:
            return with_oom_kills(Diagnosis(cause=ExitCause.KEEPER_LOST), end.oom.number, end.oom.evidence)
        try:
            cause = engine.classify(status.code, status.signal, text, end.served)
            told = diagnose(status.code, status.signal, text, end.served)
        except Exception:  # a text that the engine's rules choke on must not keep it from restarting
            log.exception("why %s ended", end.incarnation)
            return Diagnosis(cause=ExitCause.UNKNOWN)
        found = Diagnosis(cause=cause, evidence=told.evidence)
        return with_oom_kills(found, end.oom.number, end.oom.evidence)


def _log_tail(end: End) -> str:
    """The end of its log; "" where the disk does not give it: the exit status says something too."""
    try:
        return tail_text(Path(end.notes.log_path), TAIL)
    except OSError as error:
        log.warning("the log of %s cannot be read: %s", end.incarnation, error)
        return ""


def _capsule(end: End, found: Diagnosis, text: str, stacks: str) -> Capsule:
    desired, status = end.notes.desired, end.status
    at = datetime.now(UTC).timestamp() - status.age_s
    return Capsule(
        instance=desired.id,
        deployment=desired.deployment,
        incarnation=end.incarnation,
        revision=desired.revision,
        engine=desired.spec.engine.value,
        model=desired.spec.model,
        devices=desired.devices,
        at=datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        cause=found.cause,
        evidence=found.evidence,
        code=status.code,
        signal=status.signal,
        phase=Phase.READY if end.served else end.phase,
        served=end.served,
        oom_kills=end.oom.number,
        gpus=end.gpus,
        stacks=stacks,
        log_tail=text,
    )
