"""The tools that read the code find nothing: formatter, linter, types, import layers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shape.sources import ROOT


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--quiet", "."),
        ("ruff", "format", "--check", "--quiet", "."),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=" ".join,
)
def test_tool_has_no_complaint(command: tuple[str, ...]) -> None:
    program = Path(sys.executable).parent / command[0]
    ended = subprocess.run(
        [str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"
