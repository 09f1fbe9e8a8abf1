"""Every key that the parser finds has a position, and it is where that key stands."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_cp.config.positions import KeyPath, Position, Positions


def leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every table, array and value below a document."""
    if path:
        yield path, value
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from leaves(child, (*path, key))


def name_at(text: str, offset: int) -> str:
    """The key part that begins at an offset, read by the parser itself."""
    for end in range(offset + 1, len(text) + 1):
        if end < len(text) and text[offset] not in "\"'" and text[end] not in " \t.=]":
            continue
        try:
            (name,) = tomli.loads(f"{text[offset:end]} = 1")
        except tomli.TOMLDecodeError:
            continue
        return str(name)
    raise AssertionError(f"no key at {text[offset : offset + 20]!r}")


def value_at(text: str, offset: int) -> object:
    """The value that begins at an offset, read by the parser itself."""
    for end in range(len(text), offset, -1):
        try:
            return tomli.loads(f"k = {text[offset:end]}")["k"]
        except tomli.TOMLDecodeError:
            continue
    raise AssertionError(f"no value at {text[offset : offset + 20]!r}")


def place(text: str, path: KeyPath) -> tuple[int, int]:
    position = Positions(text).of_key(path)
    assert position is not None
    return position.line, position.column


CASES = [
    (
        "dotted key",
        "a.b.c = 1\na.b.d = 2\n",
        {("a",): (1, 1), ("a", "b", "c"): (1, 5), ("a", "b", "d"): (2, 5)},
    ),
    ("spaced dots", "a . b\t. c = 1", {("a", "b", "c"): (1, 9)}),
    ("dotted key in a table", "[t]\nx.y = 1", {("t", "x", "y"): (2, 3)}),
    ("inline table", "p = { x = 1, y.z = 2 }", {("p", "x"): (1, 7), ("p", "y", "z"): (1, 16)}),
    (
        "inline table over lines",
        "p = {\n  x = 1, # one\n  y = 2,\n}",
        {("p", "x"): (2, 3), ("p", "y"): (3, 3)},
    ),
    (
        "array",
        "a = [1, [2, 3],\n  { b = 4 }]",
        {("a", 1, 0): (1, 10), ("a", 2): (2, 3), ("a", 2, "b"): (2, 5)},
    ),
    (
        "arrays of tables",
        "[[s]]\nid = 1\n[[s]]\nid = 2\n[s.sub]\nid = 3\n[[s.sub.list]]\nid = 4\n",
        {
            ("s",): (1, 3),
            ("s", 0, "id"): (2, 1),
            ("s", 1): (3, 3),
            ("s", 1, "id"): (4, 1),
            ("s", 1, "sub", "id"): (6, 1),
            ("s", 1, "sub", "list", 0, "id"): (8, 1),
        },
    ),
    (
        "equal names in several tables",
        "[a]\nport = 1\n[b]\nport = 2\n[b.a]\nport = 3\n",
        {("a", "port"): (2, 1), ("b", "port"): (4, 1), ("b", "a", "port"): (6, 1)},
    ),
    ("super-table after its child", "[a.b]\nx = 1\n[a]\ny = 2\n", {("a",): (3, 2), ("a", "b"): (1, 4)}),
    ("quoted keys", '"a b".\'c.d\' = 1\n"\\u0041\\"" = 2', {("a b", "c.d"): (1, 7), ('A"',): (2, 1)}),
    ("empty key", "'' = 1\n[t.\"\"]\nx = 2", {("",): (1, 1), ("t", "", "x"): (3, 1)}),
    (
        "keys inside strings are none",
        'a = """\nb = 1\n"""\nc = \'\'\'\nd = 2 \'\'\'\ne = "f = 3 # [x]"\ng = 4',
        {("c",): (4, 1), ("e",): (6, 1), ("g",): (7, 1)},
    ),
    ("quotes before the closing quotes", 'a = ["""x""""", \'\'\'\'y\'\'\'\'\', ""]\nb = 1', {("b",): (2, 1)}),
    ("escaped quotes", 'a = ["\\"]", """\\"""\\\n"""]\nb = 1', {("b",): (3, 1)}),
    ("date with a space", "a = 1979-05-27 07:32:00 # c\nb = 1", {("b",): (2, 1)}),
    ("comments and blank lines", "# x = 1\n\n  [ t ] # [u]\n\t k = 1", {("t",): (3, 5), ("t", "k"): (4, 3)}),
    ("windows line ends", "[t]\r\na = 1\r\nb = 2\r\n", {("t", "b"): (3, 1)}),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_keys_stand_where_they_are_written(text: str, expected: dict[KeyPath, tuple[int, int]]) -> None:
    tomli.loads(text)
    assert {path: place(text, path) for path in expected} == expected


def test_a_value_has_a_position_of_its_own() -> None:
    positions = Positions('a.b = [1,\n  "x"]')
    assert positions.of_value(("a", "b")) == Position(line=1, column=7)
    assert positions.of_value(("a", "b", 1)) == Position(line=2, column=3)


def test_what_is_not_written_is_placed_at_the_table_around_it() -> None:
    positions = Positions("[a]\n[a.b]\nx = 1\n")
    assert positions.of_value(("a", "b", "missing", 0)) == Position(line=2, column=4)
    assert positions.of_key(("other",)) is None


def test_deep_nesting_costs_positions_only_inside_it() -> None:
    deep = "{a=" * 300 + "1" + "}" * 300
    positions = Positions(f"first = 1\nsecond = {deep}\n")
    assert positions.of_key(("second",)) == Position(line=2, column=1)


# Documents of every shape: names that need quotes, tables with headers, dotted and inline, arrays of both.

names = st.text(st.sampled_from("ab_-1 .=[]#\"'\\é\t"), max_size=4)
scalars = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(
        ["true", "1.5", "inf", "1979-05-27", "1979-05-27 07:32:00", '""', "''", '""""""', "''''''"]
    ),
    st.text(st.sampled_from("a#=[]{},.\"'\\ "), max_size=6).map(json.dumps),
    st.text(st.sampled_from('a#=[]{},."\\\n '), max_size=6).map(lambda text: f"'''{text}'''"),
    st.text(st.sampled_from("a#=[]{},.'\n "), max_size=6).map(lambda text: f'"""{text}"""'),
)
gaps = st.sampled_from(["", " ", "\n", " # c, ] } =\n\t", "\r\n"])


@st.composite
def keys(draw: st.DrawFn) -> str:
    name = draw(names)
    if name and all(character in "ab_-1" for character in name) and draw(st.booleans()):
        return name
    if "'" not in name and draw(st.booleans()):
        return f"'{name}'"
    return json.dumps(name, ensure_ascii=draw(st.booleans()))


dotted_keys = st.lists(keys(), min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", " . "]).map(lambda dot: dot.join(parts))
)


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    return f"[{draw(gaps)}{f'{draw(gaps)},{draw(gaps)}'.join(draw(st.lists(items, max_size=3)))}{draw(gaps)}]"


@st.composite
def inline_tables(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    pairs = [f"{draw(dotted_keys)} = {item}" for item in draw(st.lists(items, max_size=3))]
    comma = "," if pairs and draw(st.booleans()) else ""
    return f"{{{draw(gaps)}{f',{draw(gaps)}'.join(pairs)}{draw(gaps)}{comma}{draw(gaps)}}}"


values = st.recursive(scalars, lambda items: arrays(items) | inline_tables(items), max_leaves=6)
pairs = st.builds("{} = {}{}".format, dotted_keys, values, st.sampled_from(["", " # c = 1", "\t"]))
headers = st.builds(str.format, st.sampled_from(["[{}]", "[[{}]]", " [ {} ] # [x]"]), dotted_keys)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Lines, each kept only when the document is still valid with it."""
    text = ""
    for line in draw(st.lists(headers | pairs | st.just("# k = 1"), max_size=12)):
        longer = f"{text}{line}{draw(st.sampled_from(chr(10) + chr(13)))}".replace("\r", "\r\n")
        try:
            tomli.loads(longer)
        except tomli.TOMLDecodeError:
            continue
        text = longer
    return text


@settings(max_examples=150, deadline=None)
@given(documents())
def test_every_path_of_a_document_has_its_position(text: str) -> None:
    positions = Positions(text)
    found = dict(leaves(tomli.loads(text)))
    assert set(positions.spans) == set(found)
    for path, value in found.items():
        span = positions.spans[path]
        if isinstance(path[-1], str):
            assert name_at(text, span.key) == path[-1]
        if span.value != span.key and not isinstance(value, dict | list):
            assert repr(value_at(text, span.value)) == repr(value)
