"""The shape of the code: sizes, names, docstrings, no state in modules, no words foreign to it."""

import ast
import re
from typing import Final

import pytest

from tests.shape.module_state import complaints
from tests.shape.sources import ROOT, modules, texts

LONGEST_MODULE: Final = 400
LONGEST_FUNCTION: Final = 80
VAGUE_NAMES: Final = frozenset({"utils", "util", "helpers", "helper", "manager", "misc", "common"})
# How the project came about is not part of it. (Written so that this file does not match itself.)
STRANGE_WORDS: Final = re.compile(
    r"\bsub[-]?agents?\b|\b[C]EO\b|before-[s]top|\bthis[ ]session\b|DEVELOPERS[.]md|[/]work/|\bwork[p]lace\b"
    r"|\bthe[ ]brief\b|\bhelper[ ]session",
    re.IGNORECASE,
)


def test_modules_are_short() -> None:
    lengths = {module.name: module.text.count("\n") for module in modules()}
    assert {name: n for name, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{module.name}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_modules_say_what_they_are_for() -> None:
    silent = [
        module.name for module in modules() if module.text.strip() and not ast.get_docstring(module.tree)
    ]
    assert not silent, "\n".join(silent)


def test_modules_have_names_that_say_something() -> None:
    assert [module.name for module in modules() if module.path.stem in VAGUE_NAMES] == []


def test_modules_carry_no_state() -> None:
    found = [
        f"{module.name}:{line}: {text}" for module in modules() for line, text in complaints(module.tree)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "x = {}",
        "x: dict[str, int] = {}",
        "X = Thing()",
        "_decoder = Decoder()",
        "x = y = 0",
        "try:\n    x = 1\nexcept E:\n    pass",
        "for x in range(3):\n    pass",
        "x: Final = {}\ndef f(): x['a'] = 1",
        "x: Final = []\ndef f(): x.append(1)",
        "x: Final = {}\ndef f():\n    del x['a']",
        "def f():\n    global x",
    ],
)
def test_state_in_a_module_is_found(source: str) -> None:
    assert list(complaints(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "x: Final = {}",
        "x: Final[dict[str, int]] = {}",
        "log = logging.getLogger(__name__)",
        "__all__ = ['a']",
        "T = TypeVar('T')\nName = NewType('Name', str)",
        "Alias = int | list[str] | None",
        "Alias = Callable[[int], str]",
        "def f():\n    x = []\n    x.append(1)",
        "class A:\n    x = 1",
    ],
)
def test_constants_and_aliases_are_no_state(source: str) -> None:
    assert list(complaints(ast.parse(source))) == []


def test_folders_of_tests_are_packages() -> None:
    """Otherwise two test files of one name cannot be collected together."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()
    ] == []


def test_no_file_speaks_of_how_it_came_about() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if STRANGE_WORDS.search(line)
    ]
    assert not found, "\n".join(found)
