"""`explain instance` as text. Pure: JSON of the control API in, lines out."""

from collections.abc import Iterator, Mapping
from typing import Any

from supervisord_cp.cli import text
from supervisord_cp.cli.capsule import capsule_lines
from supervisord_cp.cli.sheets import exit_of, place_of, state_of, why_of

Json = Mapping[str, Any]


def instance_lines(value: Json) -> Iterator[str]:
    """What it is and why, what is wanted of it, and its last abnormal end; its events are told beside."""
    one: Json = value["instance"]
    why = why_of({**one, "last_exit": None})
    yield text.short(f"{one['id']}: {state_of(one)}{f', {why}' if why else ''}")
    facts = [*_facts(one), *_wanted(one, value.get("assigned"))]
    width = max(len(label) for label, _ in facts)
    yield from (f"  {label:{width}}  {told}" for label, told in facts)


def end_lines(value: Json) -> Iterator[str]:
    """Its last abnormal end, or why nothing is kept of one."""
    if capsule := value.get("capsule"):
        yield from capsule_lines(capsule)
    elif missing := value.get("capsule_missing"):
        yield f"last abnormal end: {missing}"


def _facts(one: Json) -> Iterator[tuple[str, str]]:
    yield "deployment", f"{one.get('deployment')}, engine {one.get('engine')}"
    yield "place", place_of(one)
    if one.get("pid"):
        yield "process", f"PID {one['pid']} at {one.get('url')}, up {text.duration(one.get('uptime_s'))}"
    if one.get("incarnation"):
        yield "life", f"{one['incarnation']}, revision {one.get('revision', '?')}"
    if one.get("requests_running") is not None:
        running, waiting = one["requests_running"], text.number(one.get("requests_waiting"))
        yield (
            "load",
            f"{running} running, {waiting} waiting, KV cache {text.percent(one.get('kv_cache_usage'))}",
        )
    yield "restarts", str(one.get("restarts", 0))
    if last := one.get("last_exit"):
        detail = f": {last['detail']}" if last.get("detail") else ""
        yield "last exit", f"{exit_of(last)}, {text.duration(last.get('age_s'))} ago{detail}"


def _wanted(one: Json, assigned: Json | None) -> Iterator[tuple[str, str]]:
    """Only what it is not as it is."""
    if assigned is None:
        if not one.get("static"):
            yield "wanted", "no: central has no place for it any more"
        return
    if leaving := assigned.get("leaving"):
        why = f" ({leaving['message']})" if leaving.get("message") else ""
        yield "wanted", f"{leaving.get('to')} once its requests are done{why}"
    elif assigned.get("run") not in (None, "running"):
        yield "wanted", str(assigned["run"])
    if assigned.get("revision") not in (None, one.get("revision")):
        yield "new revision", f"{assigned['revision']} waits to take its place"
