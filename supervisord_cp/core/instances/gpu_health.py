"""How well a GPU is, from what its driver says: (record, sample, now) -> record. Pure.

healthy      takes engines
suspect      works, but something is wrong: new replicas go elsewhere while there is an elsewhere
quarantined  is given to no engine; an engine that serves on it is left alone
lost         the driver does not have it
unknown      was not read lately; nothing is concluded from that

Conditions (a recovery action, failed row remapping, slowing) count as long as they last, events (Xids,
memory errors) at once; either is outlived after an interval without any, twice as long each time.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.instances.xids import meaning_of
from supervisord_cp.model.base import Value
from supervisord_cp.model.gpu import Gpu, GpuHealth, RecoveryAction
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode


class HealthPolicy(Value, frozen=True, kw_only=True):
    """Numbers of the judgement, in seconds."""

    clean_s: float = 600.0
    """Without a bad sign for so long, a GPU is healthy again."""
    longest_clean_s: float = 86_400.0
    """Bound of the interval, which doubles with each quarantine."""
    forgive_s: float = 86_400.0
    """Healthy time after which earlier quarantines do not count any more."""
    slowed_s: float = 30.0
    """Slowed down for so long it is suspect: a moment of heat is nothing."""
    cool_s: float = 60.0
    """The clean interval of one that was only slowed down."""


DEFAULT_POLICY: Final = HealthPolicy()


class Ailment(Value, frozen=True, kw_only=True):
    """What is wrong, and for how long it counts. Monotonic seconds."""

    reason: Reason
    until: float


class GpuRecord(Value, frozen=True, kw_only=True):
    """What is remembered of one GPU from sample to sample. Times are monotonic seconds."""

    health: GpuHealth = GpuHealth.HEALTHY
    reason: Reason = NO_REASON
    since: float
    quarantine: Ailment | None = None
    suspicion: Ailment | None = None
    quarantines: int = 0
    """Not forgiven yet."""
    well_since: float | None = None
    """Since when there is neither; None: there is."""
    slowed_since: float | None = None
    xids: dict[int, int] = {}
    """Counted already."""
    ecc: int | None = None
    """Memory errors counted already."""


class _Finding(Value, frozen=True, kw_only=True):
    """A bad sign in one sample."""

    health: GpuHealth
    """`suspect` or `quarantined`."""
    reason: Reason
    clean_s: float


def judge(record: GpuRecord | None, gpu: Gpu, now: float, policy: HealthPolicy = DEFAULT_POLICY) -> GpuRecord:
    """The record after a sample (the same sample again changes nothing but for the time).

    `gpu.health` is what the calls to the driver themselves said.
    """
    before = record or _first(gpu, now)
    unread = gpu.health is GpuHealth.UNKNOWN
    after = _forgiven(before, now, policy)
    if not unread:
        after = replace(after, slowed_since=_slowed_since(after, gpu, now))
    after = _with_findings(after, tuple(_findings(after, gpu, now, policy)), now, policy)
    if unread or gpu.health is GpuHealth.LOST:
        after = _held_on(after, now, policy)
    after = replace(
        after,
        xids=gpu.signs.xids,
        ecc=gpu.signs.ecc_uncorrected if gpu.signs.ecc_uncorrected is not None else after.ecc,
        quarantine=_unexpired(after.quarantine, now),
        suspicion=_unexpired(after.suspicion, now),
    )
    return _concluded(after, gpu, now)


def _first(gpu: Gpu, now: float) -> GpuRecord:
    """Xids are counted since we look; memory errors from before that are no news."""
    return GpuRecord(since=now, well_since=now, ecc=gpu.signs.ecc_uncorrected)


def resumed(record: GpuRecord, now: float, policy: HealthPolicy = DEFAULT_POLICY) -> GpuRecord:
    """The record that an agent goes on with after another one, on the same boot of the host.

    Counters begin anew, and what was not seen between the two was not clean.
    """
    return _held_on(replace(record, xids={}, slowed_since=None), now, policy)


def _forgiven(record: GpuRecord, now: float, policy: HealthPolicy) -> GpuRecord:
    if record.quarantines and record.well_since is not None and now - record.well_since >= policy.forgive_s:
        return replace(record, quarantines=0)
    return record


def _slowed_since(record: GpuRecord, gpu: Gpu, now: float) -> float | None:
    if not gpu.signs.slowdowns:
        return None
    return now if record.slowed_since is None else record.slowed_since


def _findings(record: GpuRecord, gpu: Gpu, now: float, policy: HealthPolicy) -> Iterator[_Finding]:
    for xid, count in gpu.signs.xids.items():
        meaning = meaning_of(xid)
        if count > record.xids.get(xid, 0) and meaning.health is not GpuHealth.HEALTHY:
            yield _found(meaning.health, ReasonCode.GPU_XID, policy, xid=xid, meaning=meaning.words)
    if gpu.health is GpuHealth.LOST:
        yield _found(GpuHealth.QUARANTINED, ReasonCode.GPU_LOST, policy)
    if gpu.health in (GpuHealth.UNKNOWN, GpuHealth.LOST):
        return  # the other signs are old
    if gpu.health is GpuHealth.QUARANTINED:
        yield _found(GpuHealth.QUARANTINED, ReasonCode.GPU_RESET_REQUIRED, policy)
    yield from _conditions(gpu, policy)
    errors = gpu.signs.ecc_uncorrected
    if errors is not None and record.ecc is not None and errors > record.ecc:
        # NVIDIA's answer to an uncorrectable error is that of the Xid that comes with it.
        yield _found(GpuHealth.SUSPECT, ReasonCode.GPU_ECC, policy, errors=errors)
    if record.slowed_since is not None and now - record.slowed_since >= policy.slowed_s:
        why = ", ".join(slowdown.replace("_", " ") for slowdown in gpu.signs.slowdowns)
        reason = Reason(code=ReasonCode.GPU_SLOWED, params={"why": why})
        yield _Finding(health=GpuHealth.SUSPECT, reason=reason, clean_s=policy.cool_s)


def _conditions(gpu: Gpu, policy: HealthPolicy) -> Iterator[_Finding]:
    signs = gpu.signs
    if signs.recovery not in (None, RecoveryAction.NONE):
        # Peer-to-peer traffic and the NVLink domain of several hosts do not concern an engine on one GPU.
        lesser = signs.recovery in (
            RecoveryAction.DRAIN_P2P,
            RecoveryAction.RECOVER_IMEX,
            RecoveryAction.UNKNOWN,
        )
        health = GpuHealth.SUSPECT if lesser else GpuHealth.QUARANTINED
        action = str(signs.recovery).replace("_", " ")
        yield _found(health, ReasonCode.GPU_RECOVERY_ACTION, policy, action=action)
    if signs.remap_failed:
        yield _found(GpuHealth.QUARANTINED, ReasonCode.GPU_REMAP_FAILED, policy)
    if signs.remap_pending:
        yield _found(GpuHealth.SUSPECT, ReasonCode.GPU_REMAP_PENDING, policy)


def _found(health: GpuHealth, code: ReasonCode, policy: HealthPolicy, **params: str | int) -> _Finding:
    return _Finding(health=health, reason=Reason(code=code, params=dict(params)), clean_s=policy.clean_s)


def _with_findings(
    record: GpuRecord, findings: tuple[_Finding, ...], now: float, policy: HealthPolicy
) -> GpuRecord:
    grave = [finding for finding in findings if finding.health is GpuHealth.QUARANTINED]
    if grave:
        quarantines = record.quarantines + (record.quarantine is None)
        clean_s = min(policy.longest_clean_s, policy.clean_s * 2 ** (quarantines - 1))
        ailment = Ailment(reason=_reason(record.quarantine, grave), until=now + clean_s)
        record = replace(record, quarantine=ailment, quarantines=quarantines)
    slight = [finding for finding in findings if finding.health is GpuHealth.SUSPECT]
    if slight:
        until = now + max(finding.clean_s for finding in slight)
        if record.suspicion is not None:
            until = max(until, record.suspicion.until)
        record = replace(record, suspicion=Ailment(reason=_reason(record.suspicion, slight), until=until))
    return record


def _reason(before: Ailment | None, findings: list[_Finding]) -> Reason:
    """An event is the better explanation of the conditions that follow from it, and stays."""
    first = findings[0].reason
    if before is None or first.code is ReasonCode.GPU_XID:
        return first
    return before.reason


def _held_on(record: GpuRecord, now: float, policy: HealthPolicy) -> GpuRecord:
    """Time in which nothing can be seen is no clean time."""
    quarantine, suspicion = record.quarantine, record.suspicion
    if quarantine is not None:
        quarantine = replace(quarantine, until=max(quarantine.until, now + policy.clean_s))
    if suspicion is not None:
        suspicion = replace(suspicion, until=max(suspicion.until, now + policy.cool_s))
    return replace(record, quarantine=quarantine, suspicion=suspicion)


def _unexpired(ailment: Ailment | None, now: float) -> Ailment | None:
    return ailment if ailment is not None and now < ailment.until else None


def _concluded(record: GpuRecord, gpu: Gpu, now: float) -> GpuRecord:
    ill = record.quarantine or record.suspicion
    if gpu.health is GpuHealth.LOST:
        health, reason = GpuHealth.LOST, ill.reason if ill is not None else NO_REASON
    elif record.quarantine is not None:
        health, reason = GpuHealth.QUARANTINED, record.quarantine.reason
    elif record.suspicion is not None:
        health, reason = GpuHealth.SUSPECT, record.suspicion.reason
    elif gpu.health is GpuHealth.UNKNOWN:
        health, reason = GpuHealth.UNKNOWN, Reason(code=ReasonCode.GPU_NOT_READ)
    else:
        health, reason = GpuHealth.HEALTHY, NO_REASON
    well_since = None if ill is not None else now if record.well_since is None else record.well_since
    since = record.since if health is record.health else now
    return replace(record, health=health, reason=reason, since=since, well_since=well_since)


def judged(gpu: Gpu, record: GpuRecord, now: float) -> Gpu:
    """The sample with what is thought of it."""
    return replace(
        gpu,
        health=record.health,
        health_reason=record.reason,
        health_age_ms=max(0, round((now - record.since) * 1000)),
    )
