"""Figures as people read them. None is unknown and shows as a dash."""

from typing import Final

UNKNOWN: Final = "-"
SHORTEST_LEFT_S: Final = 0.5
"""A remaining time below this is not worth a word."""
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `3m04s`, `2h11m`, `6d02h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 1:
        return f"{whole}s"
    if hours < 1:
        return f"{minutes}m{whole % 60:02}s"
    if days < 1:
        return f"{hours}h{minutes % 60:02}m"
    return f"{days}d{hours % 24:02}h"


def time_in_ms(seconds: float) -> str:
    """`5 ms`, `1.2 s`: how long somebody waits for a token."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(count: float | None) -> str:
    """`512 B`, `1.5 GiB`."""
    if count is None:
        return UNKNOWN
    unit = 0
    while count >= 1024 and unit < len(_BINARY) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {_BINARY[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_BINARY[unit]}"


def percent(ratio: float | None) -> str:
    """`61%`."""
    return UNKNOWN if ratio is None else f"{ratio * 100:.0f}%"


def number(value: float | None, unit: str = "") -> str:
    """`61 C`."""
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def devices(ids: list[str]) -> str:
    """`slot-0`, `GPU-1a2b3c4d,GPU-…`: UUIDs cut to what tells GPUs of one host apart."""
    return ",".join(item[:12] if item.startswith(("GPU-", "MIG-")) else item for item in ids) or UNKNOWN


def short(line: str, longest: int = 160) -> str:
    """A line cut to what can be read at a glance."""
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
