"""A crash capsule as text."""

from collections.abc import Iterator
from typing import Any, Final

from supervisord_cp.cli import text

LINES: Final = 40
"""Of the log's end; `-o json` has all that is kept."""
SAMPLES: Final = 10
"""Of each GPU, spread over the minute."""


def capsule_lines(capsule: dict[str, Any]) -> Iterator[str]:
    """What is kept of the last abnormal end, line by line."""
    yield f"last abnormal end: {capsule.get('cause', 'unknown')} at {capsule.get('at', '?')}"
    for label, value in _facts(capsule):
        yield f"  {label}: {value}"
    if samples := capsule.get("gpus"):
        yield "  its GPUs before:"
        yield from (f"    {line}" for line in _timeline(samples))
    if stacks := capsule.get("stacks"):
        yield "  what its processes were doing:"
        yield from (f"    {line}" for line in _printable(stacks))
    lines = list(_printable(capsule.get("log_tail", "")))
    shown = lines[-LINES:]
    if shown:
        more = f" (the last {len(shown)} of {len(lines)} lines; -o json has all)" if shown != lines else ""
        yield f"  its log{more}:"
        yield from (f"    {line}" for line in shown)


def _facts(capsule: dict[str, Any]) -> Iterator[tuple[str, object]]:
    if capsule.get("evidence"):
        yield "evidence", capsule["evidence"]
    if capsule.get("signal") is not None:
        yield "signal", capsule["signal"]
    if capsule.get("code") is not None:
        yield "exit code", capsule["code"]
    yield "incarnation", f"{capsule.get('incarnation', '?')}, revision {capsule.get('revision', '?')}"
    yield "had come to", "ready" if capsule.get("served") else capsule.get("phase") or "nothing"
    if capsule.get("devices"):
        yield "devices", text.devices(capsule["devices"])
    if capsule.get("oom_kills"):
        yield "OOM kills just before", capsule["oom_kills"]


def _timeline(samples: list[dict[str, Any]]) -> Iterator[str]:
    by_gpu: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        by_gpu.setdefault(sample["uuid"], []).append(sample)
    for uuid, own in by_gpu.items():
        step = -(-len(own) // SAMPLES)
        for sample in own[::-1][::step][::-1]:
            figures = (
                text.size(sample.get("memory_used")),
                text.percent(sample.get("utilization")),
                text.number(sample.get("temperature_c"), " C"),
                text.number(sample.get("power_w"), " W"),
                sample.get("health", "unknown"),
            )
            yield f"{text.devices([uuid])} {text.duration(sample['before_s'])} before: {', '.join(figures)}"


def _printable(block: str) -> Iterator[str]:
    """Lines without what a terminal would take for a command."""
    for line in block.splitlines():
        yield "".join(char if char.isprintable() or char == "\t" else "�" for char in line)
