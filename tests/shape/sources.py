"""The files that the shape tests look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TOP: Final = ("supervisord_cp", "plugins", "tests", "packaging", "docs", "benchmarks", ".ci")
TEXT: Final = frozenset(
    {
        ".py",
        ".md",
        ".toml",
        ".sh",
        ".c",
        ".h",
        ".service",
        ".json",
        ".yml",
        ".yaml",
        ".html",
        ".js",
        ".css",
        "",
    }
)


@dataclass(frozen=True)
class Module:
    """A module of the package."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def modules() -> list[Module]:
    """Every module of the package."""
    return [Module(path) for path in sorted((ROOT / "supervisord_cp").rglob("*.py"))]


def texts() -> Iterator[tuple[str, str]]:
    """Path and content of every text file of the project."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in TOP:
        paths += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    for path in sorted(paths):
        if path.suffix in TEXT and not {"__pycache__", ".build"} & set(path.parts):
            yield str(path.relative_to(ROOT)), path.read_text(errors="replace")
