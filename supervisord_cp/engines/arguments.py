"""Flags of an engine from a table of names and values, so that nothing but flags can come of it."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from supervisord_cp.engines.base import LaunchRefused
from supervisord_cp.model.launch import ArgValue

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\+?")


def by_flag(args: Mapping[str, ArgValue]) -> dict[str, ArgValue]:
    """The table with the flags' own spelling: dashes instead of underscores up to the first dot
    (`kv_transfer_config.kv_role` is `kv-transfer-config.kv_role`).

    Raises:
        LaunchRefused: no name of a flag, or one flag twice.
    """
    flags: dict[str, ArgValue] = {}
    for name, value in args.items():
        if not _NAME.fullmatch(name):
            raise LaunchRefused(f"args: {name!r} is no flag; write it without leading dashes")
        head, dot, rest = name.partition(".")
        flag = head.replace("_", "-") + dot + rest
        if flag in flags:
            raise LaunchRefused(f"args: {flag!r} is set twice")
        flags[flag] = value
    return flags


def command_line(flags: Mapping[str, ArgValue], switches: frozenset[str] = frozenset()) -> list[str]:
    """The flags as arguments, in the order of the table.

    `True` is `--flag`; `False` is `--no-flag`, or nothing for one of the `switches`, which have no such
    form; a list is `--flag` and its values. A text that begins with a dash goes as `--flag=text`.

    Raises:
        LaunchRefused: a value that cannot be passed.
    """
    argv: list[str] = []
    for flag, value in flags.items():
        if value is True:
            argv.append(f"--{flag}")
        elif value is False:
            argv += [] if flag in switches else [f"--no-{flag}"]
        elif isinstance(value, list):
            argv += [f"--{flag}", *_listed(flag, value)] if value else []
        elif (text := plain(f"args: {flag}", str(value))).startswith("-"):
            argv.append(f"--{flag}={text}")
        else:
            argv += [f"--{flag}", text]
    return argv


def plain(what: str, text: str) -> str:
    """The text, if it can be an argument of a program.

    Raises:
        LaunchRefused: it holds a NUL.
    """
    if "\0" in text:
        raise LaunchRefused(f"{what}: a NUL character cannot be passed to a program")
    return text


def not_a_flag(what: str, text: str) -> str:
    """The text, if it cannot be taken for a flag.

    Raises:
        LaunchRefused: it is empty, begins with a dash or holds a NUL.
    """
    if not text or text.startswith("-"):
        raise LaunchRefused(f"{what}: {text!r} is empty or begins with a dash")
    return plain(what, text)


def _listed(flag: str, values: list[bool | int | float | str]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield not_a_flag(f"args: {flag}", value)
        else:
            yield str(value)
