"""From the types of the schema to kinds of values: the schema is the only description of the file."""

import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from supervisord_cp.config import kinds
from supervisord_cp.config.containers import Either, Many, Maybe, Named
from supervisord_cp.config.forms import Form, OneOf, Spelled
from supervisord_cp.config.kinds import Kind, Within
from supervisord_cp.config.schema import Config, Listen
from supervisord_cp.config.tables import ByName, Key, Policy, Table
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import ArgValue

_PLAIN: Final[Mapping[Any, Kind]] = {
    str: kinds.STRING,
    bool: kinds.SWITCH,
    int: kinds.WHOLE,
    float: kinds.NUMBER,
    Path: kinds.PATH,
    Listen: kinds.LISTEN,
    tuple[int, int]: kinds.PORTS,
    ArgValue: kinds.ARGUMENT,
    dict[str, object]: kinds.PARAMETERS,
}
_FORMS: Final[Mapping[Form, Kind]] = {
    Form.SIZE: kinds.SIZE,
    Form.ORIGIN: kinds.ORIGIN,
    Form.URL: kinds.URL,
    Form.BESIDE: kinds.PROGRAM,
    Form.HOST: kinds.HOST,
}


@cache
def table_of(struct: type[msgspec.Struct]) -> Table:
    """The table that a struct describes."""
    hints = get_type_hints(struct, include_extras=True)
    keys = {}
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if Form.IMPLIED in _marks(hint):
            continue
        default = _plain_type(hint)() if field.required else _default(field)
        keys[field.name] = Key(name=field.name, kind=kind_of(hint), required=field.required, default=default)
    return Table(struct=struct, keys=keys)


def kind_of(hint: Any) -> Kind:
    """The kind of a type of the schema.

    Raises:
        TypeError: the schema has a type that nobody taught this module.
    """
    if get_origin(hint) is Annotated:
        return _annotated(hint)
    if (plain := _PLAIN.get(hint)) is not None:
        return plain
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple and arguments[1:] == (...,):
        return Many(kind_of(arguments[0]))
    if origin is dict and arguments[0] is str:
        return Named(kind_of(arguments[1]))
    if hint is PolicyUse:
        return Policy(table_of(PolicyUse))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return table_of(hint)
    raise TypeError(f"no kind of configuration value for {hint}")


def _annotated(hint: Any) -> Kind:
    inner, *marks = get_args(hint)
    if Form.BY_NAME in marks:
        struct = get_args(inner)[0]
        return ByName(table_of(struct), kind_of(get_type_hints(struct, include_extras=True)["name"]))
    if Form.ONE_OR_MORE in marks:
        return Many(kind_of(get_args(inner)[0]), single=True)
    kind = kind_of(inner)
    for mark in marks:
        if isinstance(mark, Form):
            kind = _FORMS.get(mark, kind)
        elif isinstance(mark, OneOf):
            kind = kinds.one_of(mark)
        elif isinstance(mark, Spelled):
            kind = kinds.spelled(mark)
        elif isinstance(mark, msgspec.Meta):
            kind = Within(kind, at_least=mark.ge, above=mark.gt, at_most=mark.le)
    return kind


def _union(members: tuple[Any, ...]) -> Kind:
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        kind = kind_of(others[0])
    else:
        single, table = (kind_of(member) for member in others)
        assert isinstance(table, Named)
        kind = Either(single, table)
    return Maybe(kind, blank=kind in (kinds.PATH, kinds.LISTEN)) if len(others) < len(members) else kind


def _plain_type(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _marks(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    assert field.default_factory is not msgspec.NODEFAULT
    return field.default_factory()


@cache
def layout() -> Mapping[str, Table]:
    """Every table of the file by its heading, such as `[deployments.NAME.autoscale]`, in the file's order."""
    return dict(_headings(table_of(Config), ""))


@cache
def homes() -> Mapping[str, tuple[str, ...]]:
    """For each key, the tables that have it."""
    found: dict[str, tuple[str, ...]] = {}
    for heading, table in layout().items():
        for name in table.keys:
            found[name] = (*found.get(name, ()), heading)
    return found


def _headings(table: Table, prefix: str) -> Iterator[tuple[str, Table]]:
    for key in table.keys.values():
        path = f"{prefix}.{key.name}" if prefix else key.name
        kind = key.kind.kind if isinstance(key.kind, Maybe) else key.kind
        if isinstance(kind, ByName):
            path, kind = f"{path}.NAME", kind.table
        repeated = isinstance(kind, Many) and not kind.single
        if isinstance(kind, Many):
            kind = kind.item
        if isinstance(kind, Table):
            yield (f"[[{path}]]" if repeated else f"[{path}]"), kind
            yield from _headings(kind, path)
