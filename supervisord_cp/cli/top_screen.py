"""The screen of `top`, from the tree that central streams. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from supervisord_cp.cli import text
from supervisord_cp.cli.sheets import BAD, GOOD, WARM, state_of

Json = Mapping[str, Any]
Curves = Mapping[str, list[float | None]]

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
CURVE: Final = 40
"""Columns of a curve: the latest seconds."""
PROBLEMS: Final = 5
BAR: Final = 8
USES: Final = {
    "free": "bright_black",
    "starting": "blue",
    "serving": "green",
    "draining": "yellow",
    "foreign": "magenta",
    "cordoned": "yellow",
    "backoff": "red",
}
KEYS: Final = "q quit   ↑ ↓ scroll   Home first"


def screen(state: Json, curves: Curves, *, width: int, height: int, scroll: int, note: str) -> RenderableType:
    """The whole screen. `scroll`: instances left out at the top; `note`: what to say of the connection."""
    if not state:
        return Text(note or "waiting for central")
    above: list[RenderableType] = [_headline(state, note), *_problems(state), _curves(curves), Text()]
    deployments = _deployments(state)
    devices = list(_devices(state, width))
    used = 3 + len(above) + len(state["deployments"]) + len(devices)
    room = max(1, height - used - 3)
    return Group(*above, deployments, *devices, Text(), *_instances(state, scroll, room))


def instance_count(state: Json) -> int:
    """How many rows there are to scroll through."""
    return len(state.get("instances") or {})


def spark(curve: Iterable[float | None], columns: int = CURVE) -> str:
    """The end of a curve in blocks; a gap where nothing was known."""
    values = list(curve)[-columns:]
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(" " if value is None else BLOCKS[1 + round(7 * value / most)] for value in values)


def _headline(state: Json, note: str) -> Text:
    line = Text("supervisord-cp  ", style="bold")
    if note:
        line.append(note, style="bold red")
    elif state["healthy"]:
        line.append("healthy", style="bold green")
    else:
        line.append(f"{len(state['problems'])} to look at", style="bold red")
    nodes = state["nodes"].values()
    uses = Counter(device["use"] for node in nodes for device in (node.get("devices") or {}).values())
    counted = ", ".join(f"{count} {use}" for use, count in uses.most_common())
    return line.append(f"   {text.count(len(nodes), 'node')}   {counted}", style="not bold")


def _problems(state: Json) -> Iterator[Text]:
    problems = state["problems"]
    for problem in problems[:PROBLEMS]:
        yield Text(f"! {problem}", style="red", no_wrap=True, overflow="ellipsis")
    if len(problems) > PROBLEMS:
        yield Text(f"  and {len(problems) - PROBLEMS} more", style="red")


def _curves(curves: Curves) -> Text:
    parts = []
    for label, name in (
        ("requests/s", "requests_per_s"),
        ("waiting", "queued"),
        ("TTFT", "ttft_s"),
        ("tokens/s", "tokens_per_s"),
    ):
        curve = curves.get(name) or []
        last = curve[-1] if curve else None
        value = text.UNKNOWN if last is None else text.time_in_ms(last) if name == "ttft_s" else f"{last:.3g}"
        parts.append(f"{label} {value} {spark(curve, 12)}")
    return Text("   ".join(parts), style="cyan", no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", expand=True)
    for column in columns:
        table.add_column(
            column, no_wrap=True, overflow="ellipsis", ratio=1 if column == columns[-1] else None
        )
    return table


def _deployments(state: Json) -> Table:
    table = _table("DEPLOYMENT", "READY", "WANTED", "REQ/S", "WAIT", "TOK/S", "WHY")
    for name, one in sorted(state["deployments"].items()):
        ready = one["ready"] + one["static_ready"]
        figures = one.get("figures") or {}
        style = "green" if ready >= one["wanted"] else "blue" if one["starting"] else "red"
        more = [why for key in ("cannot_place", "gated", "failing") for why in one.get(key) or ()]
        table.add_row(
            name,
            Text(str(ready), style=style),
            str(one["wanted"]),
            _figure(figures.get("requests_per_s")),
            _figure(figures.get("queued")),
            _figure(figures.get("tokens_per_s")),
            "; ".join([one["message"], *more]),
        )
    return table


def _figure(value: float | None) -> str:
    return text.UNKNOWN if value is None else f"{value:.3g}"


def _devices(state: Json, width: int) -> Iterator[Text]:
    for name, node in sorted(state["nodes"].items()):
        line = Text(f"\n{name:14} ", style="bold")
        devices = sorted((node.get("devices") or {}).items(), key=lambda item: item[1].get("index") or 0)
        for identity, device in devices:
            cell = _device(identity, device)
            if line.cell_len + cell.cell_len > width and line.cell_len > 15:
                yield line
                line = Text(" " * 15)
            line.append_text(cell)
        yield line


def _device(identity: str, device: Json) -> Text:
    sick = device.get("health") not in (None, "healthy")
    style = "red" if sick else USES.get(device["use"], "")
    index = device.get("index")
    out = Text(f"{identity if index is None else index} ", style="bold not bold")
    total, used = device.get("memory_total"), device.get("memory_used")
    if total:
        full = round(BAR * (used or 0) / total)
        out.append("█" * full + "░" * (BAR - full), style=style)
        out.append(" ")
    word = device.get("instance") or (device["health"] if sick else device["use"])
    return out.append(f"{word}   ", style=style)


def _instances(state: Json, scroll: int, room: int) -> Iterator[RenderableType]:
    table = _table("INSTANCE", "STATE", "NODE", "RUN", "WAIT", "KV", "RESTARTS", "WHY")
    ordered = sorted(state["instances"].items(), key=lambda item: (_rank(item[1]["state"]), item[0]))
    for name, one in ordered[scroll : scroll + room]:
        table.add_row(
            name,
            Text(state_of(one), style=_style(one["state"])),
            one["node"],
            text.number(one.get("requests_running")),
            text.number(one.get("requests_waiting")),
            text.percent(one.get("kv_cache_usage")),
            str(one["restarts"]),
            _why(one),
        )
    yield table
    left = len(ordered) - scroll - room
    yield Text(f"{KEYS}{f'   {left} more below' if left > 0 else ''}", style="bright_black")


def _why(one: Json) -> str:
    phase = one.get("phase") if one["state"] == "starting" else ""
    left = one.get("eta_s") or 0.0
    eta = f"about {text.duration(left)} left" if left >= text.SHORTEST_LEFT_S else ""
    last = one.get("last_exit")
    crash = f"last end: {last['cause']}" if last and last.get("cause") != "requested" else ""
    return ", ".join(part for part in (phase, eta, one.get("message"), crash) if part)


def _rank(state: str) -> int:
    """What needs a look comes first."""
    return 0 if state in BAD else 2 if state in GOOD else 1


def _style(state: str) -> str:
    return "green" if state in GOOD else "yellow" if state in WARM else "red" if state in BAD else ""
