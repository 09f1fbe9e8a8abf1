"""A place in the document while it is read, and what reading leaves behind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from supervisord_cp.config.findings import Finding, Level, dotted
from supervisord_cp.config.positions import KeyPath

ABSENT: Final = object()
"""No value: it could not be made, and a finding says why."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Generic[T]):
    """A table that was read: its value, and what the file says about it."""

    path: KeyPath
    value: T
    written: frozenset[str] = frozenset()
    """Keys that the file has."""
    broken: frozenset[str] = frozenset()
    """Keys whose value is a default because what the file has is wrong."""

    def sound(self, *keys: str) -> bool:
        """Whether none of these keys is wrong already: then a second message about it would be noise."""
        return self.broken.isdisjoint(keys)

    def error(self, key: str | tuple[str, ...], message: str, hint: str = "") -> Finding:
        """A finding at the value of one key, or further in; the message goes on after its name."""
        where = (*self.path, *((key,) if isinstance(key, str) else key))
        return Finding(where=where, message=f"{dotted(where)} {message}", hint=hint)

    def warning(self, key: str | tuple[str, ...], message: str, hint: str = "") -> Finding:
        """As `error`, but the configuration can be used."""
        return replace(self.error(key, message, hint), level=Level.WARNING)

    def bad_name(self, key: str | tuple[str, ...], message: str, hint: str = "") -> Finding:
        """As `error`, at the key itself."""
        return replace(self.error(key, message, hint), at_key=True)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that reading finds, in the order of reading."""

    findings: list[Finding]
    sections: list[Section[Any]]
    homes: Mapping[str, tuple[str, ...]]
    """The tables that have a key of some name, for hints."""

    def of(self, kind: type[T]) -> Iterator[Section[T]]:
        """The tables of one kind."""
        return (cast("Section[T]", section) for section in self.sections if type(section.value) is kind)

    def one(self, kind: type[T], *path: str) -> Section[T]:
        """The only table of a kind; with its defaults when the file has none."""
        return next(self.of(kind), Section(path=path, value=kind()))


@dataclass(frozen=True, slots=True)
class Site:
    """Where something is read."""

    path: KeyPath
    folder: Path
    """Relative paths resolve against it."""
    record: Record

    @property
    def key(self) -> str:
        """The nearest name: of an element of a list, the list's."""
        return next((part for part in reversed(self.path) if isinstance(part, str)), "")

    def at(self, part: str | int) -> "Site":
        """A place further in."""
        return Site((*self.path, part), self.folder, self.record)

    def reject(self, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Say what is wrong here; the message goes on after the name of the place."""
        text = f"{dotted(self.path)} {message}" if self.path else message
        self.record.findings.append(Finding(where=self.path, message=text, hint=hint, at_key=at_key))
