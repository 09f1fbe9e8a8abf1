"""What is found wrong with a configuration, by the place in it; lines and columns come last."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from supervisord_cp.config.positions import KeyPath, Position, Positions
from supervisord_cp.errors import Problem

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class Level(Enum):
    """How bad."""

    ERROR = auto()
    WARNING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong, or suspicious, at a key."""

    where: KeyPath
    message: str
    hint: str = ""
    level: Level = Level.ERROR
    at_key: bool = False
    """Point at the key, not at its value."""


def dotted(path: KeyPath) -> str:
    """A path as people write it: `deployments.chat.router[0].use`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def problems(findings: Iterable[Finding], text: str, path: str) -> tuple[Problem, ...]:
    """Findings with their lines and columns in the document, in its order."""
    positions = Positions(text)
    found = (_problem(finding, positions, path) for finding in findings)
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


def _problem(finding: Finding, positions: Positions, path: str) -> Problem:
    find = positions.of_key if finding.at_key else positions.of_value
    position = find(finding.where) or Position(line=0, column=0)
    return Problem(
        message=finding.message,
        path=path,
        line=position.line,
        column=position.column,
        hint=finding.hint,
    )
