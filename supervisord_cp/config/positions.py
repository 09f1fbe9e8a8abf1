"""Where the keys and values of a TOML document stand.

The parser gives values without positions. This scanner walks over a document that the parser has
accepted, so it may trust the grammar: it follows names and brackets and looks at nothing else.
"""

import contextlib
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import tomli

KeyPath = tuple[str | int, ...]
"""The way to a value: names of tables and keys, and indexes of arrays, counted from 0."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_NAME: Final = re.compile(r"""([A-Za-z0-9_-]++)|"((?:[^"\\\n]++|\\.)*+)"|'([^'\n]*+)'""")
_DOT: Final = re.compile(r"[ \t]*+\.[ \t]*+")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']++|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+'",
    re.DOTALL,
)
_BARE_VALUE: Final = re.compile(r"[^,\]}#\n]++")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text, both counted from 1; columns are characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets at which a key and its value begin. For a table with a header both are its name there."""

    key: int
    value: int


class Positions:
    """The spans of every key, table and array element of a document."""

    def __init__(self, text: str) -> None:
        self.spans = _Scanner(text).document()
        self._line_starts = [0, *(newline.end() for newline in re.finditer("\n", text))]

    def of_key(self, path: KeyPath) -> Position | None:
        """Where the key stands, or the nearest table around it that is written. None: nothing is."""
        span = self._nearest(path)
        return None if span is None else self._position(span.key)

    def of_value(self, path: KeyPath) -> Position | None:
        """Where the value begins; a key that is not written stands for itself, as in `of_key`."""
        span = self.spans.get(path)
        return self.of_key(path) if span is None else self._position(span.value)

    def _nearest(self, path: KeyPath) -> Span | None:
        while path:
            if (span := self.spans.get(path)) is not None:
                return span
            path = path[:-1]
        return None

    def _position(self, offset: int) -> Position:
        line = bisect_right(self._line_starts, offset)
        return Position(line=line, column=offset - self._line_starts[line - 1] + 1)


class _Scanner:
    """One pass over a valid document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._spans: dict[KeyPath, Span] = {}
        self._lengths: dict[KeyPath, int] = {}
        """How many elements the arrays of tables have so far."""

    def document(self) -> dict[KeyPath, Span]:
        with contextlib.suppress(RecursionError):  # hundreds of nested brackets: what came before is known
            self._expressions()
        return self._spans

    def _expressions(self) -> None:
        table: KeyPath = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()

    def _header(self) -> KeyPath:
        """`[a.b]` or `[[a.b]]`; the path of the table that it opens."""
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        names = self._names()
        self._skip_blank()
        self._at += brackets
        path: KeyPath = ()
        for name, offset in names[:-1]:
            path = self._enter((*path, name), offset)
        name, offset = names[-1]
        path = (*path, name)
        if brackets == 2:
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            self._spans.setdefault(path, Span(offset, offset))
            path = (*path, index)
        self._spans[path] = Span(offset, offset)
        return path

    def _enter(self, path: KeyPath, offset: int) -> KeyPath:
        """Through a table on the way to another one; of an array of tables, its latest element."""
        self._spans.setdefault(path, Span(offset, offset))
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _pair(self, table: KeyPath) -> None:
        """`a.b = value` within a table."""
        names = self._names()
        self._skip_blank()
        self._at += 1  # =
        self._skip_blank()
        path = table
        for name, offset in names[:-1]:
            path = (*path, name)
            self._spans.setdefault(path, Span(offset, offset))
        name, offset = names[-1]
        self._value((*path, name), offset)

    def _value(self, path: KeyPath, key: int) -> None:
        self._spans[path] = Span(key, self._at)
        opening = self._text[self._at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            pattern = _STRING if opening in "\"'" else _BARE_VALUE
            self._at = _end(pattern, self._text, self._at)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        self._skip_blank()
        index = 0
        while self._text[self._at] != "]":
            self._value((*path, index), self._at)
            index += 1
            self._skip_comma()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._skip_blank()
        while self._text[self._at] != "}":
            self._pair(path)
            self._skip_comma()
        self._at += 1

    def _names(self) -> list[tuple[str, int]]:
        """A dotted key: each part, unquoted, with its offset."""
        self._skip_blank()
        names: list[tuple[str, int]] = []
        while True:
            match = _NAME.match(self._text, self._at)
            assert match is not None
            names.append((_unquoted(match), self._at))
            dot = _DOT.match(self._text, match.end())
            if dot is None:
                self._at = match.end()
                return names
            self._at = dot.end()

    def _skip_blank(self) -> None:
        self._at = _end(_BLANK, self._text, self._at)

    def _skip_comma(self) -> None:
        self._skip_blank()
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_blank()


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    assert match is not None
    return match.end()


def _unquoted(match: re.Match[str]) -> str:
    bare, quoted, literal = match.groups()
    if quoted is not None and "\\" in quoted:
        return str(tomli.loads(f'k = "{quoted}"')["k"])
    return next(part for part in (bare, quoted, literal) if part is not None)
