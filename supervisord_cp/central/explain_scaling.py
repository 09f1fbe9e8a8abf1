"""One decision of scaling as JSON: what it was made from, what limited it, what would change it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from supervisord_cp.core.scaling.otherwise import otherwise
from supervisord_cp.core.scaling.thresholds import thresholds
from supervisord_cp.model.explanation import Otherwise, Threshold
from supervisord_cp.model.reason import code_of, render
from supervisord_cp.model.scaling import ScaleRecord
from supervisord_cp.model.signal import ReplicaPhase, Signal
from supervisord_cp.policy import PolicySpec

Json = dict[str, Any]


def summary(at: float, record: ScaleRecord) -> Json:
    """A decision in one line; `at` in seconds since 1970."""
    decision = record.decision
    return {
        "at": round(at, 3),
        "wanted": decision.wanted,
        "current": decision.current,
        "held": decision.held,
        "reason": code_of(decision.reason),
        "message": render(decision.reason),
    }


def explained(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> Json:
    """A decision with everything that it was made from. Some 0.1 s of work: not for an event loop."""
    view, decision = record.view, record.decision
    failed = sum(replica.phase is ReplicaPhase.FAILED for replica in view.replicas)
    return {
        "decision": summary(view.wall_s or 0.0, record),
        "replicas": {
            "ready": view.ready,
            "starting": view.starting - failed,
            "failed": failed,
            "draining": view.draining,
            "min": view.bounds.min,
            "max": None if record.limits.behavior is None else view.bounds.max,
            "start_s": view.start_s,
        },
        "inputs": list(_inputs(record)),
        "proposals": [
            {
                "policy": proposal.policy,
                "params": call.params,
                "replicas": proposal.replicas,
                "at_least": proposal.at_least,
                "at_most": proposal.at_most,
                "reason": code_of(proposal.reason),
                "message": render(proposal.reason),
            }
            for proposal, call in zip(decision.proposals, record.calls, strict=True)
        ],
        "limits": [
            {
                "reason": code_of(limit.reason),
                "message": render(limit.reason),
                "before": limit.before,
                "after": limit.after,
            }
            for limit in decision.limits
        ],
        "otherwise": [_otherwise(one) for one in otherwise(record, known)],
        "thresholds": [_threshold(one) for one in thresholds(record, known)],
    }


def _inputs(record: ScaleRecord) -> Iterator[Json]:
    for kind, signals in (("signal", record.view.signals), ("query", record.view.queries)):
        for name, signal in signals.items():
            yield {"name": str(name), "kind": kind, **_signal(signal)}


def _signal(signal: Signal) -> Json:
    return {
        "state": signal.state,
        "value": signal.value if signal.known else None,
        "age_s": round(signal.age_s, 1),
        "window_s": round(signal.window_s, 1),
        "source": signal.source,
        "detail": signal.detail,
    }


def _otherwise(one: Otherwise) -> Json:
    return {
        "reason": one.change.code,
        "if": render(one.change),
        "then": one.wanted,
        "because": render(one.because),
        "in_s": None if one.in_s is None else round(one.in_s, 1),
    }


def _threshold(one: Threshold) -> Json:
    return {
        "policy": one.policy,
        "signal": one.signal or None,
        "value": one.value,
        "more_above": one.more_above,
        "more": one.more,
        "less_below": one.less_below,
        "less": one.less,
    }
