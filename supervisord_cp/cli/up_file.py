"""The configuration file that `up` writes: the tables of its plan as TOML."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

HEADER: Final = (
    "# Written by `supervisord-cp up` at each start. A copy of it is a start for one of your own:\n"
    "# docs/configuration.md says what else there is.\n"
)


def write_config(path: Path, tables: Mapping[str, Any]) -> None:
    """Replace the file at once; a reader sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(HEADER + toml_text(tables), encoding="utf-8")
    temporary.replace(path)


def toml_text(tables: Mapping[str, Any]) -> str:
    """Tables of tables and plain values as TOML."""
    return "".join(_table((), tables)).lstrip("\n")


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"\n[{'.'.join(map(_key, path))}]\n"] if values else []
    lines += [f"{_key(key)} = {_value(value)}\n" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _table((*path, key), value)
    return lines


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    """A string, number, truth value or list of them."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's strings are TOML's basic strings but for the one control character that JSON lets pass.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
