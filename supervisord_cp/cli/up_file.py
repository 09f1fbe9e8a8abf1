"""The configuration file that `up` writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from supervisord_cp.config.toml_text import toml_text

HEADER: Final = (
    "# Written by `supervisord-cp up` at each start. A copy of it is a start for one of your own:\n"
    "# docs/configuration.md says what else there is.\n\n"
)


def write_config(path: Path, tables: Mapping[str, Any]) -> None:
    """Replace the file at once; a reader sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(HEADER + toml_text(tables), encoding="utf-8")
    temporary.replace(path)
