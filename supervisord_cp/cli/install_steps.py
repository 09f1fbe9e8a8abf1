"""What an installation does, one step after the other: each can be told before it is done."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import click

from supervisord_cp.errors import SupervisordError, UsageError
from supervisord_cp.model.base import Value

RUN_S: Final = 120.0


class Put(Value, frozen=True, kw_only=True):
    """A file with this content."""

    path: Path
    text: str
    mode: int = 0o644
    group: str = ""
    """Who it belongs to besides root; "": root."""
    keep: bool = False
    """One that is there already stays as it is."""

    @property
    def told(self) -> str:
        """The step in a line, as things are now."""
        if self.path.exists():
            if self.keep:
                return f"keep   {self.path}"
            if self.path.read_text(encoding="utf-8") == self.text:
                return f"same   {self.path}"
        return f"write  {self.path}"

    def do(self) -> None:
        """Write it, unless it is there; replaced as a whole, so that nobody reads half of it."""
        if self.path.exists() and self.keep:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(self.text, encoding="utf-8")
        new.chmod(self.mode)
        if self.group:
            shutil.chown(new, group=self.group)
        new.replace(self.path)


class Remove(Value, frozen=True, kw_only=True):
    """A file that is not wanted any more."""

    path: Path

    @property
    def told(self) -> str:
        """The step in a line."""
        return f"remove {self.path}"

    def do(self) -> None:
        """Remove it, if it is there."""
        self.path.unlink(missing_ok=True)


class Run(Value, frozen=True, kw_only=True):
    """A command."""

    argv: tuple[str, ...]

    @property
    def told(self) -> str:
        """The step in a line."""
        return f"run    {shlex.join(self.argv)}"

    def do(self) -> None:
        """Run it.

        Raises:
            SupervisordError: it cannot be run, or fails.
        """
        try:
            ended = subprocess.run(
                self.argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=RUN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SupervisordError(f"{self.argv[0]}: {error}") from error
        if ended.returncode != 0:
            said = ended.stderr.strip() or f"exit status {ended.returncode}"
            raise SupervisordError(f"{shlex.join(self.argv)}: {said}")


Step = Put | Remove | Run


def perform(steps: tuple[Step, ...], *, dry_run: bool) -> None:
    """Tell each step and do it; with `dry_run` only tell.

    Raises:
        SupervisordError: a step failed.
    """
    for step in steps:
        click.echo(step.told)
        if not dry_run:
            try:
                step.do()
            except OSError as error:
                raise UsageError(f"{error.filename}: {error.strerror}") from error
