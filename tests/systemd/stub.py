"""A `systemctl` that answers as a test says and remembers what it was asked."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """#!/usr/bin/env python3
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/asked", "a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
with open(folder + "/environment", "w") as environment:
    json.dump(dict(os.environ), environment)
with open(folder + "/answers") as answers:
    answers = json.load(answers)
answer = answers.get(next((word for word in sys.argv[1:] if word in answers), ""), {})
time.sleep(answer.get("takes_s", 0))
sys.stdout.write(answer.get("out", ""))
sys.stderr.write(answer.get("err", ""))
sys.exit(answer.get("code", 0))
"""


class Systemctl:
    """Found on PATH before the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        program = folder / "systemctl"
        program.write_text(SCRIPT)
        program.chmod(0o755)
        self.answers()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def answers(self, **by_verb: dict[str, Any]) -> None:
        """What it answers to a verb from now on: `out`, `err`, `code`, `takes_s`."""
        (self._folder / "answers").write_text(json.dumps(by_verb))

    @property
    def asked(self) -> list[list[str]]:
        """The words of each call, without options."""
        path = self._folder / "asked"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [[word for word in words if not word.startswith("--no-")] for words in calls]

    @property
    def environment(self) -> dict[str, str]:
        """What it was run with the last time."""
        found: dict[str, str] = json.loads((self._folder / "environment").read_text())
        return found
