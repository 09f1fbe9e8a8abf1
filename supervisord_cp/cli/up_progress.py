"""What `up` says while engines load and change. Pure: JSON of the control API in, lines out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisord_cp.cli import text
from supervisord_cp.cli.sheets import ENDED, exit_of, state_of, why_of

Json = Mapping[str, Any]

ETA_STEP_S: Final = 15.0
"""A remaining time is news when it has moved into another step of so many seconds."""
LASTING_S: Final = 10.0
"""A problem that lasts this long is said."""


class Progress:
    """Remembers what was said, so that only news is said."""

    def __init__(self) -> None:
        self._said: dict[str, object] = {}
        self._lives: dict[str, tuple[str, int]] = {}
        """State and restarts of each instance when it was last looked at."""
        self._problems: dict[str, float] = {}
        """Problems by the time they were first seen; infinite once they are said."""

    def complaints(self, problems: Sequence[str], now: float) -> list[str]:
        """Problems of the fleet that last, each said once; `now` in monotonic seconds."""
        self._problems = {problem: self._problems.get(problem, now) for problem in problems}
        lasting = [p for p, since in self._problems.items() if now - since >= LASTING_S]
        self._problems.update(dict.fromkeys(lasting, math.inf))
        return [f"! {problem}" for problem in lasting]

    def news(self, instances: Sequence[Json], deployments: Sequence[Json]) -> list[str]:
        """Lines for what has changed since the last call."""
        ends = [line for item in instances if (line := self._end_missed(item))]
        self._lives = {str(item["id"]): _life(item) for item in instances}
        current: dict[str, tuple[object, str]] = {}
        for item in deployments:
            if problems := _unplaced(item):
                name = str(item["name"])
                current[f"deployment {name}"] = (problems, f"{name}: cannot place a replica: {problems}")
        for item in instances:
            if item.get("state") == "gated" and not item.get("reason"):
                continue  # it is about to start
            current[str(item["id"])] = (_essence(item), instance_line(item))
        lines = [line for what, (essence, line) in current.items() if self._said.get(what) != essence]
        self._said = {what: essence for what, (essence, _) in current.items()}
        return ends + lines

    def _end_missed(self, item: Json) -> str:
        """What to say of a life that ended, and was followed by another, between two looks."""
        state, restarts = self._lives.get(str(item["id"]), ("", 0))
        last = item.get("last_exit")
        if not last or last.get("cause") == "requested" or state in ("", *ENDED):
            return ""
        if item.get("state") in ENDED or item.get("restarts", 0) <= restarts:
            return ""
        detail = f": {last['detail']}" if last.get("detail") else ""
        return f"{item['id']}: ended, {exit_of(last)}{detail}"


def _life(item: Json) -> tuple[str, int]:
    return str(item.get("state")), int(item.get("restarts", 0))


def _unplaced(deployment: Json) -> str:
    """Why replicas cannot be placed, each reason once; that the one agent is still starting is no reason."""
    reasons = (one for one in deployment.get("cannot_place") or () if one.get("reason") != "no_nodes")
    return "; ".join(dict.fromkeys(str(one.get("message")) for one in reasons))


def instance_line(item: Json) -> str:
    """`chat-0: starting, loading weights, about 40s left`."""
    state = item.get("state")
    shown = {**item, "phase": _phase(item)}
    if state == "starting":
        shown["last_exit"] = None  # how the last life ended was said when it ended
    why = "" if state == "ready" else why_of(shown)
    return f"{item['id']}: " + ", ".join(part for part in (state_of(item), why) if part)


def _essence(item: Json) -> object:
    """What must change to be worth a line; figures that run by themselves are left out."""
    eta = item.get("eta_s")
    step = 0 if eta is None or item.get("state") != "starting" else int(eta // ETA_STEP_S)
    life = item.get("incarnation") if item.get("ready") else ""
    return item.get("state"), _phase(item), item.get("reason"), life, step


def _phase(item: Json) -> object:
    """The phase, but that it was spawned is all that `starting` says."""
    return "" if item.get("phase") == "spawned" else item.get("phase")


def first_ready(instances: Sequence[Json]) -> Json | None:
    """An instance that serves."""
    return next((item for item in instances if item.get("ready")), None)


def all_ready(status: Json) -> bool:
    """Whether every deployment has what it wants, whatever else is wrong on the host."""
    deployments = status.get("deployments") or ()
    return bool(deployments) and all(
        item.get("ready", 0) >= item.get("wanted", 0) and not item.get("cannot_place") for item in deployments
    )


def routed(status: Json) -> bool:
    """Whether a router has the current view of the fleet."""
    version = (status.get("central") or {}).get("snapshot_version", 0)
    return any(
        router.get("connected") and router.get("version", 0) >= version
        for router in status.get("routers") or ()
    )


def ready_line(status: Json) -> str:
    """`2 of 2 engines ready.`"""
    deployments = status.get("deployments") or ()
    ready = sum(item.get("ready", 0) for item in deployments)
    wanted = sum(item.get("wanted", 0) for item in deployments)
    return f"{ready} of {text.count(wanted, 'engine')} ready." if wanted else "Ready."
