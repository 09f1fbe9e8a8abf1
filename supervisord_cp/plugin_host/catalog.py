"""The policies that there are: built in, in the configured folders, in installed packages. Nothing of a
user's is run to find out."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Final

import supervisord_cp.builtin.placers as placers
import supervisord_cp.builtin.routers as routers
import supervisord_cp.builtin.scalers as scalers
import supervisord_cp.builtin.schedulers as schedulers
from supervisord_cp.builtin.routers.presets import PRESETS
from supervisord_cp.errors import Problem
from supervisord_cp.plugin_host.loading import entry_points
from supervisord_cp.plugin_host.source import Source, read_source
from supervisord_cp.policy.declare import PolicyKind, PolicySpec, declared

LARGEST_FILE: Final = 1024 * 1024
_PACKAGES: Final = (routers, schedulers, scalers, placers)


class Origin(StrEnum):
    """Where a policy comes from."""

    BUILTIN = "built-in"
    FILE = "file"
    PACKAGE = "package"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A policy that can be named, or a file that cannot be used as one."""

    name: str
    """"" for a file that declares none."""
    kind: PolicyKind | None
    """None: not known before it is loaded."""
    origin: Origin
    where: str = ""
    """The file, or the entry point."""
    summary: str = ""
    source: Source | None = None
    """Of a file."""
    problem: Problem | None = None
    """Why it cannot be used."""

    @property
    def digest(self) -> str:
        """What tells one version from another; "" where there is only one."""
        return "" if self.source is None else self.source.digest


def builtin_specs() -> Mapping[str, PolicySpec]:
    """The built-in policies by name, presets left out."""
    return _BUILTIN


def survey(paths: Sequence[Path]) -> list[Offer]:
    """Everything that there is, the built-in ones first. Of two of one name the first has it."""
    taken: dict[str, str] = {}
    offers: list[Offer] = []
    for offer in (*_builtin(), *_in_folders(paths), *_in_packages()):
        before = taken.get(offer.name)
        if offer.name and before is not None:
            message = f'the name "{offer.name}" is taken: {before}'
            problem = Problem(message=message, path=offer.where, hint="give it another name")
            offers.append(_refused(offer, problem))
            continue
        if offer.name:
            taken[offer.name] = offer.where or f"a {offer.origin} policy has it"
        offers.append(offer)
    return offers


def _refused(offer: Offer, problem: Problem) -> Offer:
    return Offer(
        name="", kind=offer.kind, origin=offer.origin, where=offer.where, source=offer.source, problem=problem
    )


def _builtin() -> Iterator[Offer]:
    for spec in builtin_specs().values():
        yield Offer(name=spec.name, kind=spec.kind, origin=Origin.BUILTIN, summary=spec.summary)
    for preset in PRESETS.values():
        yield Offer(name=preset.name, kind=None, origin=Origin.BUILTIN, summary=preset.summary)


def _in_folders(paths: Sequence[Path]) -> Iterator[Offer]:
    for folder in paths:
        try:
            files = sorted(folder.glob("*.py")) if folder.is_dir() else None
            unsafe = _writable_by_all(folder) if files is not None else ""
        except OSError as error:
            files, unsafe = [], f"cannot be read: {error.strerror}"
        if files is None:
            continue
        if unsafe:
            problem = Problem(message=unsafe, path=str(folder))
            yield Offer(name="", kind=None, origin=Origin.FILE, where=str(folder), problem=problem)
            continue
        for path in files:
            if not path.name.startswith(("_", "test_", "conftest")):
                yield _in_file(path)


def _in_file(path: Path) -> Offer:
    where = str(path)
    try:
        unsafe = _writable_by_all(path)
        text = b"" if unsafe else _read(path)
    except OSError as error:
        unsafe, text = f"cannot be read: {error.strerror or error}", b""
    if unsafe:
        problem = Problem(message=unsafe, path=where)
        return Offer(name="", kind=None, origin=Origin.FILE, where=where, problem=problem)
    source = read_source(where, text)
    if source.declaration is None:
        return Offer(
            name="", kind=None, origin=Origin.FILE, where=where, source=source, problem=source.problem
        )
    return Offer(
        name=source.declaration.name,
        kind=source.declaration.kind,
        origin=Origin.FILE,
        where=where,
        summary=source.declaration.summary,
        source=source,
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise OSError(0, f"is larger than {LARGEST_FILE} bytes")
    return text


def _writable_by_all(path: Path) -> str:
    """Whoever may write there may run code in our daemons."""
    mode = os.stat(path).st_mode  # noqa: PTH116  # of what a link leads to
    if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return "may be written by everybody: chmod o-w"
    return ""


def _in_packages() -> Iterator[Offer]:
    for name, point in sorted(entry_points().items()):
        yield Offer(name=name, kind=None, origin=Origin.PACKAGE, where=point.value)


def _declared_in(package: object) -> Iterator[PolicySpec]:
    path, name = getattr(package, "__path__", ()), getattr(package, "__name__", "")
    for module in iter_modules(path, prefix=f"{name}."):
        for value in vars(import_module(module.name)).values():
            spec = declared(value)
            if spec is not None and getattr(value, "__module__", "") == module.name:
                yield spec


# Looked up once: the package's files may be replaced by an upgrade while a daemon still runs from them.
_BUILTIN: Final[Mapping[str, PolicySpec]] = MappingProxyType(
    {spec.name: spec for package in _PACKAGES for spec in _declared_in(package)}
)
