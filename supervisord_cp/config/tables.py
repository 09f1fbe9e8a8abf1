"""Tables of the file, each read into the struct that describes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from supervisord_cp.config.containers import read_at
from supervisord_cp.config.kinds import Kind, described
from supervisord_cp.config.sites import ABSENT, Section, Site
from supervisord_cp.config.spelling import Mismatch
from supervisord_cp.model.fleet import PolicyUse

_KEYS_LISTED: Final = 8


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    name: str
    kind: Kind
    required: bool
    default: Any
    """An empty value for a required key: it stands in where the file has none, or a wrong one."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a struct of its own."""

    struct: type[msgspec.Struct]
    keys: Mapping[str, Key]

    @property
    def expects(self) -> str:
        return "a table"

    def read(self, raw: object, site: Site, implied: Mapping[str, object] | None = None) -> Any:
        """As any kind's; `implied` are values of the struct that are no keys."""
        if not isinstance(raw, dict):
            raise Mismatch(f"must be a table, not {described(raw, site)}")
        values: dict[str, object] = dict(implied or {})
        broken: set[str] = set()
        for name, item in raw.items():
            before = len(site.record.findings)
            if (key := self.keys.get(name)) is None:
                broken |= self._unknown(name, "table" if isinstance(item, dict) else "key", site)
            elif (value := read_at(key.kind, item, site.at(name))) is not ABSENT:
                values[name] = value
            if len(site.record.findings) > before:
                broken.add(name)
        for key in self.keys.values():
            if key.required and key.name not in values:
                if key.name not in broken:
                    site.reject(f"has no `{key.name}`", at_key=True)
                broken.add(key.name)
                values[key.name] = key.default
        value = self.struct(**values)
        written = frozenset(raw)
        site.record.sections.append(
            Section(path=site.path, value=value, written=written, broken=frozenset(broken))
        )
        return value

    def write(self, value: Any) -> dict[str, Any]:
        return {key.name: key.kind.write(getattr(value, key.name)) for key in self.keys.values()}

    def _unknown(self, name: str, what: str, site: Site) -> set[str]:
        """Reject an unknown key; the key that was meant, where that can be told."""
        if (alike := name.lower().replace("-", "_")) not in self.keys:
            alike = next(iter(get_close_matches(alike, self.keys, n=1)), "")
        if alike:
            hint = f"did you mean `{alike}`?"
        elif homes := site.record.homes.get(name):
            hint = f"`{name}` belongs in {' or '.join(homes)}"
        else:
            hint = f"known keys: {', '.join(self.keys)}" if len(self.keys) <= _KEYS_LISTED else ""
        site.at(name).reject(f"is an unknown {what}", hint, at_key=True)
        return {alike} if alike else set()


@dataclass(frozen=True, slots=True)
class ByName:
    """A table of tables, whose keys are the names of what they describe."""

    table: Table
    name: Kind

    @property
    def expects(self) -> str:
        return "a table of tables"

    def read(self, raw: object, site: Site) -> Any:
        if not isinstance(raw, dict):
            raise Mismatch(f"must be a table of tables, not {described(raw, site)}")
        values = []
        for name, item in raw.items():
            place = site.at(name)
            try:
                self.name.read(name, place)
            except Mismatch as mismatch:
                place.reject(f"has a bad name: it {mismatch}", mismatch.hint, at_key=True)
            try:
                values.append(self.table.read(item, place, {"name": name}))
            except Mismatch as mismatch:
                place.reject(str(mismatch), mismatch.hint, at_key=True)
        return tuple(value for value in values if value is not ABSENT)

    def write(self, value: Any) -> object:
        return {element.name: self.table.write(element) for element in value}


@dataclass(frozen=True, slots=True)
class Policy:
    """The use of a policy: its name, or a table with parameters."""

    table: Table

    @property
    def expects(self) -> str:
        return "the name of a policy, or a table { use, params, weight }"

    def read(self, raw: object, site: Site) -> Any:
        if isinstance(raw, dict):
            return self.table.read(raw, site)
        if not isinstance(raw, str) or not raw:
            raise Mismatch(f"must be {self.expects}, not {described(raw, site)}")
        use = PolicyUse(use=raw)
        site.record.sections.append(Section(path=site.path, value=use))
        return use

    def write(self, value: Any) -> object:
        if value == PolicyUse(use=value.use):
            return str(value.use)
        unsaid = {name for name, key in self.table.keys.items() if getattr(value, name) == key.default}
        return {name: item for name, item in self.table.write(value).items() if name not in unsaid}
