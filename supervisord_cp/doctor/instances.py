"""Instances as central tells of them: which end again and again, of what, and where to read more."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from supervisord_cp.doctor.finding import Finding, error, ok, warning
from supervisord_cp.doctor.network import ask
from supervisord_cp.model.instance import ExitCause, InstanceState

Json = Mapping[str, Any]

RECENT_S: Final = 600.0
OFTEN: Final = 3
"""Ends of one that serves again all the same."""
MOST: Final = 10
"""Instances that are named; a fleet fails as a whole as a rule."""
_DOWN: Final = (InstanceState.CRASHED, InstanceState.BACKOFF)
_ON_THE_WAY: Final = (InstanceState.GATED, InstanceState.STARTING, InstanceState.RELEASING)


def instance_findings(url: str, token: str, node: str) -> Iterator[Finding]:
    """Those of one node, or of all for "". Nothing where central does not say."""
    answer = ask(url, "/api/v1/instances", token)
    if answer.status != 200:
        return
    try:
        listed = [one for one in json.loads(answer.text) if node in ("", one["node"])]
    except (ValueError, KeyError, TypeError):
        return
    yield from failing(listed)


def failing(instances: Iterable[Json]) -> Iterator[Finding]:
    """One for each that is down or comes up after an end that nobody asked for, or ends often. Pure."""
    listed = list(instances)
    found = [finding for one in listed if (finding := _look(one)) is not None]
    yield from found[:MOST]
    if len(found) > MOST:
        yield error("instances", f"{len(found) - MOST} more of them fail", "supervisord-cp instances")
    if not found:
        yield ok("instances", f"none of {len(listed)} has ended unasked of late")


def _look(one: Json) -> Finding | None:
    last, state, restarts = one.get("last_exit") or {}, one.get("state"), one.get("restarts") or 0
    of_late = _unasked(last) and last.get("age_s", 0.0) < RECENT_S
    name = one["id"]
    if state in _DOWN or (state in _ON_THE_WAY and of_late):
        told = f"{state} on {one.get('node')}, ended {_times(restarts)}: {_why(one, last)}"
        return error(name, told, _remedy(name))
    if of_late and restarts >= OFTEN:
        return warning(name, f"{state}, but ended {_times(restarts)}: {_why(one, last)}", _remedy(name))
    return None


def _unasked(last: Json) -> bool:
    return bool(last) and last.get("cause") != ExitCause.REQUESTED


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _why(one: Json, last: Json) -> str:
    """The cause, how long ago, and the line of its log that says so."""
    if not _unasked(last):
        return str(one.get("message") or one.get("reason") or "it does not say why")
    detail = f": {last['detail']}" if last.get("detail") else ""
    return f"{last.get('cause')}, {last.get('age_s', 0.0):.0f} s ago{detail}"


def _remedy(name: str) -> str:
    return f"supervisord-cp explain instance {name}; supervisord-cp logs {name} --previous"
