"""The error taxonomy: what a user can mend, and what a client of the API may see."""

from dataclasses import dataclass


class SupervisordError(Exception):
    """Root of all errors that this package raises on purpose. Its text is for the user."""

    exit_code = 1


class UsageError(SupervisordError):
    """The command line or the configuration asks for something that cannot be."""

    exit_code = 2


class Unreachable(SupervisordError):
    """Central does not answer."""

    exit_code = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration: where, what, and what to do."""

    message: str
    path: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.path, self.line, self.column) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}  ({self.hint})" if self.hint else text


class ConfigErrors(UsageError):
    """Every problem of a configuration at once, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.path, p.line, p.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
