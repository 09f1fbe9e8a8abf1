"""Why replicas that have a place are not started yet, each reason once. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from supervisord_cp.model.instance import InstanceState

Json = dict[str, Any]

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
