"""Files that a configuration names, seen from this host. Loading opens none of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from supervisord_cp.config.findings import Finding
from supervisord_cp.config.sites import Record, Section

_MADE_WHEN_NEEDED: Final = frozenset({"state_dir", "log_dir"})


def missing_files(record: Record) -> Iterator[Finding]:
    """Warnings about files and folders that are not here; they may be on the host that they are meant for."""
    for section in record.sections:
        for key in section.written - section.broken - _MADE_WHEN_NEEDED:
            for path in _paths(section, key):
                if why := _missing(path):
                    yield section.warning(key, f"names {path}: {why}")


def _paths(section: Section[Any], key: str) -> list[Path]:
    value = getattr(section.value, key, None)
    items = value if isinstance(value, tuple) else (value,)
    return [item for item in items if isinstance(item, Path)]


def _missing(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
