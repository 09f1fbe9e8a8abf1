"""TOML text of a document of dicts, lists and single values."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_WIDTH: Final = 100


def toml_text(document: Mapping[str, object]) -> str:
    """A text that parses to the document. Small tables go on one line, others get a header."""
    return "\n".join(_table(document, ())).strip() + "\n"


def inline(value: object) -> str:
    """A value on one line.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(inline(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(name)} = {inline(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no value for {type(value).__name__}")


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table below its header: its own keys first, then the tables in it."""
    headed = {name for name, value in table.items() if _wants_header(name, value, path)}
    for name, value in table.items():
        if name not in headed:
            yield from _pair(name, value)
    for name in table:
        if name not in headed:
            continue
        value, inner = table[name], (*path, name)
        heading = ".".join(_key(part) for part in inner)
        if isinstance(value, Mapping):
            if not value or not all(_wants_header(key, item, inner) for key, item in value.items()):
                yield from ("", f"[{heading}]")
            yield from _table(value, inner)
        elif isinstance(value, list):
            for item in value:
                yield from ("", f"[[{heading}]]")
                yield from _table(item, inner)


def _wants_header(name: str, value: object, path: tuple[str, ...]) -> bool:
    if isinstance(value, list):
        return not path and bool(value) and all(isinstance(item, Mapping) for item in value)
    if not isinstance(value, Mapping):
        return False
    nested = any(isinstance(item, Mapping) and item for item in value.values())
    return not path or nested or len(name) + len(inline(value)) > _WIDTH


def _pair(name: str, value: object) -> Iterator[str]:
    line = f"{_key(name)} = {inline(value)}"
    if len(line) <= _WIDTH or not isinstance(value, list):
        yield line
        return
    yield f"{_key(name)} = ["
    for item in value:
        yield f"  {inline(item)},"
    yield "]"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else inline(name)
