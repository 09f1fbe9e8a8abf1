"""What is compiled: its declarations fit its source, and what the compiler makes of that source."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.shape.sources import ROOT

DECLARATIONS = sorted((ROOT / "supervisord_cp").rglob("*.pxd"))
SOURCE = '''
class Line(
    Generic[Item],
    Sized,
):
    """Of items."""

    def put(self) -> None: ...


class Other(Protocol):
    """Is not declared."""


class Last(Other):
    """Of another."""
'''


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_router", ROOT / "packaging" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", DECLARATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_declared_class_is_in_the_module(path: Path) -> None:
    tree = ast.parse(path.with_suffix(".py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes.issuperset(re.findall(r"^cdef class (\w+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DECLARATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_declarations_say_nothing_that_could_read_what_is_not_there(path: Path) -> None:
    unsafe = re.compile(r"\*\s*\w|\[:|\bnogil\b|\bnonecheck\b|\bboundscheck\b|\bextern\b|\bunsafe\b")
    assert unsafe.findall(path.read_text()) == []


def test_what_is_declared_is_what_is_compiled(build: ModuleType) -> None:
    assert {ROOT / path.with_suffix(".pxd") for path in build.modules(ROOT)} == set(DECLARATIONS)


def test_a_class_has_the_bases_of_its_declaration_and_lines_keep_their_numbers(build: ModuleType) -> None:
    made = build.prepare(SOURCE, "cdef class Line:\n    pass\n\ncdef class Last(Line):\n    pass\n")
    assert made.splitlines()[:6] == ["", "class Line:", "", "", "", '    """Of items."""']
    for line in ("    def put(self) -> None: ...", "class Other(Protocol):"):
        assert made.splitlines().index(line) == SOURCE.splitlines().index(line)
    names: dict[str, type] = {"Protocol": object}
    exec(made, names)
    assert names["Line"][int] is names["Line"]  # type: ignore[index]
    assert names["Last"].__bases__ == (names["Line"],)


@pytest.mark.parametrize(
    ("environment", "hidden", "said"),
    [
        ({"CC": "", "PATH": "/nonexistent"}, "", "a C compiler is missing"),
        ({"CC": "/nonexistent/cc -pipe"}, "", "the C compiler /nonexistent/cc ($CC) is missing"),
        ({"CC": sys.executable}, "include", "Python.h is missing"),
        ({}, "Cython", "Cython is missing"),
    ],
)
def test_what_is_missing_is_said(
    build: ModuleType,
    environment: dict[str, str],
    hidden: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "Cython", None if hidden == "Cython" else ModuleType("Cython"))
    if hidden == "include":
        monkeypatch.setattr(build.sysconfig, "get_path", lambda name: str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(build.Impossible, match=re.escape(said)):
        build.compiler()
