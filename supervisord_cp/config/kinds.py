"""Kinds of single values: what a key expects, how it is read from the file and how it is written back."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Protocol

from supervisord_cp.config.forms import OneOf, Spelled
from supervisord_cp.config.masking import looks_secret
from supervisord_cp.config.sites import Site
from supervisord_cp.config.spelling import (
    Mismatch,
    format_ports,
    format_size,
    parse_host,
    parse_listen,
    parse_origin,
    parse_ports,
    parse_size,
    parse_url,
)

_LONGEST_SHOWN: Final = 40
_LARGEST: Final = 2**63 - 1
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|min|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(Protocol):
    """What a key may hold."""

    @property
    def expects(self) -> str:
        """For people, with an article: "a whole number"."""
        ...

    def read(self, raw: object, site: Site) -> Any:
        """The value of what the parser found, or `ABSENT` when there is none and the site knows why.

        Raises:
            Mismatch: the key cannot have it.
        """
        ...

    def write(self, value: Any) -> object:
        """What the file would have for a value; None: the key is left out."""
        ...


def _as_it_is(value: object) -> object:
    return value


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value."""

    expects: str
    parse: Callable[[object, Path], object | None]
    """The value, None when it is of another type; a relative path is relative to the folder given."""
    to_file: Callable[[Any], object] = _as_it_is
    advise: Callable[[object, str], str] = lambda raw, key: ""
    """A hint for a value of another type, given the key."""

    def read(self, raw: object, site: Site) -> object:
        value = self.parse(raw, site.folder)
        if value is None:
            hint = "" if _hidden(site) else self.advise(raw, site.key)
            raise Mismatch(f"must be {self.expects}, not {described(raw, site)}", hint)
        return value

    def write(self, value: Any) -> object:
        return self.to_file(value)


@dataclass(frozen=True, slots=True)
class Within:
    """A number with bounds."""

    kind: Kind
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    @property
    def expects(self) -> str:
        bounds = ((self.at_least, "at least"), (self.above, "more than"), (self.at_most, "at most"))
        named = [f"{words} {bound:g}" for bound, words in bounds if bound is not None]
        return f"{self.kind.expects}, {' and '.join(named)}" if named else self.kind.expects

    def read(self, raw: object, site: Site) -> object:
        value = self.kind.read(raw, site)
        shown = json.dumps(raw)
        if self.at_least is not None and value < self.at_least:
            raise Mismatch(f"must be at least {self.at_least:g}, not {shown}")
        if self.above is not None and value <= self.above:
            raise Mismatch(f"must be more than {self.above:g}, not {shown}")
        if self.at_most is not None and value > self.at_most:
            raise Mismatch(f"must be at most {self.at_most:g}, not {shown}")
        return value

    def write(self, value: Any) -> object:
        return self.kind.write(value)


def spelled(form: Spelled) -> Scalar:
    """Text that a pattern describes."""
    pattern = re.compile(form.pattern)

    def parse(raw: object, folder: Path) -> object | None:
        if isinstance(raw, str) and not pattern.fullmatch(raw):
            raise Mismatch(f"must be {form.says}, not {_quoted(raw)}")
        return raw if isinstance(raw, str) else None

    return Scalar("a string", parse, advise=_quote_it)


_OTHER_WORDS: Final = {"gpu": "cuda"}
"""What people call it, where another word looks more alike."""


def one_of(form: OneOf) -> Scalar:
    """One of a few words."""
    words = [str(word) for word in form.words]
    quoted = [f'"{word}"' for word in words]
    expects = f"{', '.join(quoted[:-1])} or {quoted[-1]}"

    def parse(raw: object, folder: Path) -> object | None:
        return raw if raw in words else None

    def advise(raw: object, key: str) -> str:
        lower = {word.lower(): word for word in words}
        said = _OTHER_WORDS.get(raw.lower(), raw.lower()) if isinstance(raw, str) else ""
        near = get_close_matches(said, lower, n=1)
        return f'did you mean "{lower[near[0]]}"?' if near else ""

    return Scalar(expects, parse, advise=advise)


def _text(parse: Callable[[str], object]) -> Callable[[object, Path], object | None]:
    """Read strings with `parse`; anything else is of another type."""
    return lambda raw, folder: parse(raw) if isinstance(raw, str) else None


def _parse_number(raw: object, folder: Path) -> object | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    if not math.isfinite(raw):
        raise Mismatch(f"must be a finite number, not {raw}")
    return float(raw)


def _parse_whole(raw: object, folder: Path) -> object | None:
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None
    if abs(raw) > _LARGEST:
        raise Mismatch("must fit in 64 bits")
    return raw


def _parse_size(raw: object, folder: Path) -> object | None:
    return parse_size(raw) if isinstance(raw, str) else _parse_whole(raw, folder)


def _parse_path(raw: object, folder: Path) -> object | None:
    if raw == "":
        raise Mismatch("must be a path, not an empty string")
    return folder / Path(raw).expanduser() if isinstance(raw, str) else None


def _parse_program(raw: object, folder: Path) -> object | None:
    """Names stay names: whether `vllm` is on a node's PATH is the node's business."""
    if isinstance(raw, str) and raw.startswith(("./", "../", "~/")):
        return str(folder / Path(raw).expanduser())
    return raw if isinstance(raw, str) else None


def _parse_argument(raw: object, folder: Path) -> object | None:
    if isinstance(raw, list):
        return raw if all(_parse_flag(item) for item in raw) else None
    return raw if _parse_flag(raw) else None


def _parse_flag(raw: object) -> bool:
    if isinstance(raw, int):
        return abs(raw) <= _LARGEST
    return isinstance(raw, str) or (isinstance(raw, float) and math.isfinite(raw))


def _parse_parameters(raw: object, folder: Path) -> object | None:
    return raw if isinstance(raw, dict) else None


def _unquote_it(raw: object, key: str) -> str:
    if not isinstance(raw, str):
        return ""
    text = raw.strip().lower()
    if re.fullmatch(r"true|false|-?\d+(\.\d+)?", text):
        return f"write it without quotes: {text}"
    if key.endswith("_s") and (match := _DURATION.fullmatch(text)):
        return f"write seconds: {float(match[1]) * _SECONDS[match[2]]:g}"
    return ""


def _quote_it(raw: object, key: str) -> str:
    if isinstance(raw, bool | int | float):
        return f'write it in quotes: "{json.dumps(raw)}"'
    return ""


def described(raw: object, site: Site) -> str:
    """What the file has, for a message; secrets by their type only."""
    if isinstance(raw, str):
        return "a string" if _hidden(site) else f"the string {_quoted(raw)}"
    if isinstance(raw, bool | int | float):
        return "a number" if _hidden(site) else json.dumps(raw)
    if isinstance(raw, dict | list):
        return "a table" if isinstance(raw, dict) else "a list"
    return "a date or time"


def _hidden(site: Site) -> bool:
    return any(isinstance(part, str) and looks_secret(part) for part in site.path)


def _quoted(text: str) -> str:
    short = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return json.dumps(short, ensure_ascii=False)


STRING: Final = Scalar("a string", _text(str), advise=_quote_it)
SWITCH: Final = Scalar(
    "true or false", lambda raw, folder: raw if isinstance(raw, bool) else None, advise=_unquote_it
)
WHOLE: Final = Scalar("a whole number", _parse_whole, advise=_unquote_it)
NUMBER: Final = Scalar("a number", _parse_number, advise=_unquote_it)
SIZE: Final = Scalar('a size in bytes, such as "64MiB"', _parse_size, format_size)
PATH: Final = Scalar("a path", _parse_path, str, _quote_it)
PROGRAM: Final = Scalar("a string", _parse_program, advise=_quote_it)
HOST: Final = Scalar("an address of this host", _text(parse_host))
LISTEN: Final = Scalar(
    "a string HOST:PORT",
    _text(parse_listen),
    str,
    lambda raw, key: f'write "127.0.0.1:{raw}"' if isinstance(raw, int) else "",
)
PORTS: Final = Scalar('a range of ports, such as "8000-8099"', _text(parse_ports), format_ports, _quote_it)
URL: Final = Scalar("a web address", _text(lambda text: text and parse_url(text)))
ORIGIN: Final = Scalar('an address, such as "http://127.0.0.1:9001"', _text(parse_origin))
ARGUMENT: Final = Scalar("a string, a number, true, false or a list of these", _parse_argument)
PARAMETERS: Final = Scalar("a table", _parse_parameters)
