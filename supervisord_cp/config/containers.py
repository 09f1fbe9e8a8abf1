"""Kinds of values that hold others: lists, tables whose keys are the user's, values that may be missing."""

from dataclasses import dataclass
from typing import Any

from supervisord_cp.config.kinds import Kind, described
from supervisord_cp.config.sites import ABSENT, Site
from supervisord_cp.config.spelling import Mismatch


def read_at(kind: Kind, raw: object, site: Site) -> Any:
    """The value at a place, `ABSENT` when it cannot be had; what is wrong is recorded there."""
    try:
        return kind.read(raw, site)
    except Mismatch as mismatch:
        site.reject(str(mismatch), mismatch.hint)
        return ABSENT


@dataclass(frozen=True, slots=True)
class Maybe:
    """A value that may be missing; "" says so where text could not mean anything else."""

    kind: Kind
    blank: bool

    @property
    def expects(self) -> str:
        return f'{self.kind.expects}, or ""' if self.blank else self.kind.expects

    def read(self, raw: object, site: Site) -> Any:
        return None if self.blank and raw == "" else self.kind.read(raw, site)

    def write(self, value: Any) -> object:
        if value is None:
            return "" if self.blank else None
        return self.kind.write(value)


@dataclass(frozen=True, slots=True)
class Many:
    """A list; with `single`, its only element may stand alone."""

    item: Kind
    single: bool = False

    @property
    def expects(self) -> str:
        if self.single:
            return f"{self.item.expects}, or a list of these"
        return f"a list, each {self.item.expects}"

    def read(self, raw: object, site: Site) -> Any:
        if isinstance(raw, list):
            values = [read_at(self.item, element, site.at(index)) for index, element in enumerate(raw)]
            return tuple(value for value in values if value is not ABSENT)
        if self.single:
            return (self.item.read(raw, site),)
        hint = "put it in brackets" if isinstance(raw, str) else ""
        raise Mismatch(f"must be a list, not {described(raw, site)}", hint)

    def write(self, value: Any) -> object:
        written = [self.item.write(element) for element in value]
        return written[0] if self.single and len(written) == 1 else written


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are the user's."""

    item: Kind

    @property
    def expects(self) -> str:
        return f"a table, each value {self.item.expects}"

    def read(self, raw: object, site: Site) -> Any:
        if not isinstance(raw, dict):
            raise Mismatch(f"must be a table, not {described(raw, site)}")
        values = {key: read_at(self.item, value, site.at(key)) for key, value in raw.items()}
        return {key: value for key, value in values.items() if value is not ABSENT}

    def write(self, value: Any) -> object:
        return {key: self.item.write(element) for key, element in value.items()}


@dataclass(frozen=True, slots=True)
class Either:
    """A single value or a table."""

    single: Kind
    table: Named

    @property
    def expects(self) -> str:
        return f"{self.single.expects}, or {self.table.expects}"

    def read(self, raw: object, site: Site) -> Any:
        return (self.table if isinstance(raw, dict) else self.single).read(raw, site)

    def write(self, value: Any) -> object:
        return (self.table if isinstance(value, dict) else self.single).write(value)
