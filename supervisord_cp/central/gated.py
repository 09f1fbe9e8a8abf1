"""Why replicas that have a place do not serve: what they wait for, and how they failed. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from supervisord_cp.model.instance import ExitCause, InstanceState

Json = dict[str, Any]

DOWN: Final = frozenset({InstanceState.CRASHED, InstanceState.BACKOFF})
_TOLD_OTHERWISE: Final = frozenset({InstanceState.READY, InstanceState.GATED, InstanceState.STARTING})


def gated(instances: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Those that wait to be started, by what they wait for."""
    found: dict[tuple[str | None, str], list[str]] = {}
    for item in instances:
        if item["state"] is InstanceState.GATED:
            found.setdefault((item["reason"], item["message"]), []).append(item["id"])
    return [
        {"reason": reason, "message": message, "instances": names}
        for (reason, message), names in found.items()
    ]


def failing(instances: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Those that crashed and are not tried at this moment: how often, of what, and when they are again."""
    return [
        {
            "instance": item["id"],
            "restarts": item["restarts"],
            "cause": None if item["last_exit"] is None else item["last_exit"]["cause"],
            "retry_s": item["retry_s"],
            "message": _failure(item),
        }
        for item in instances
        if item["state"] in DOWN
    ]


def _failure(item: Mapping[str, Any]) -> str:
    """`chat-0 crashed 3 times, last: model_access (no such folder); next try in 12 s`."""
    times = max(1, item["restarts"] + (item["state"] is InstanceState.CRASHED))
    told = f"{item['id']} crashed {'once' if times == 1 else f'{times} times, last'}"
    if cause := last_end(item):
        told += f": {cause}"
    return f"{told}; {item['message']}" if item["message"] else told


def last_end(item: Mapping[str, Any]) -> str:
    """Cause and evidence of the end that nobody asked for; "" where there was none."""
    last = item["last_exit"]
    if last is None or last["cause"] is ExitCause.REQUESTED:
        return ""
    return f"{last['cause']} ({last['detail']})" if last["detail"] else str(last["cause"])


def why_not_ready(deployment: Mapping[str, Any], instances: Iterable[Mapping[str, Any]]) -> str:
    """What stands between a deployment and the replicas that it wants, in a few words.

    `instances`: all there are. Those that neither serve nor start are told by their state.
    """
    own = [item for item in instances if item["deployment"] == deployment["name"] and not item["static"]]
    waiting = sum(len(one["instances"]) for one in deployment["gated"])
    parts = [f"cannot place: {one['message']}" for one in deployment["cannot_place"][:1]]
    parts += [
        f"{len(one['instances'])} not started: {one['message'] or 'about to be'}"
        for one in deployment["gated"]
    ]
    if starting := deployment["starting"] - waiting:
        parts.append(f"{starting} starting")
    others = Counter(item["state"] for item in own if item["state"] not in _TOLD_OTHERWISE)
    parts += [f"{count} {state}" for state, count in sorted(others.items())]
    return "; ".join(parts) or "nothing is started yet"
