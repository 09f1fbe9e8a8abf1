"""What a policy file declares, read off its text: nothing of it is run."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from supervisord_cp.errors import Problem
from supervisord_cp.policy.declare import PolicyKind, summary_of

_PUBLIC: Final = "supervisord_cp.policy"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_KINDS: Final = {kind.value: kind for kind in PolicyKind}
_GENERAL: Final = "policy"
"""The decorator that is told the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The one policy of a file."""

    name: str
    kind: PolicyKind
    line: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as it was read."""

    path: str
    text: bytes
    declaration: Declaration | None
    problem: Problem | None = None
    """Why there is no declaration."""

    @property
    def digest(self) -> str:
        """Of its content."""
        return sha256(self.text).hexdigest()


def read_source(path: str, text: bytes) -> Source:
    """A file's declaration, or what is wrong with it."""
    try:
        tree = ast.parse(text, filename=path)
    except SyntaxError as error:
        problem = Problem(
            message=f"not Python: {error.msg}", path=path, line=error.lineno or 0, column=error.offset or 0
        )
        return Source(path=path, text=text, declaration=None, problem=problem)
    except (ValueError, RecursionError, MemoryError) as error:
        problem = Problem(message=f"not Python: {error}", path=path)
        return Source(path=path, text=text, declaration=None, problem=problem)
    found = list(_declarations(tree, path))
    if wrong := _verdict(found, path):
        return Source(path=path, text=text, declaration=None, problem=wrong)
    only = found[0]
    assert isinstance(only, Declaration)
    return Source(path=path, text=text, declaration=only)


def _verdict(found: list[Declaration | Problem], path: str) -> Problem | None:
    if not found:
        message = "declares no policy"
        return Problem(
            message=message, path=path, line=1, hint='decorate one function, as with @scorer("name")'
        )
    wrong = next((item for item in found if isinstance(item, Problem)), None)
    if wrong is not None:
        return wrong
    if len(found) > 1:
        first, second = found[0], found[1]
        assert isinstance(first, Declaration)
        assert isinstance(second, Declaration)
        message = f'declares a second policy, "{second.name}"; the first is in line {first.line}'
        return Problem(message=message, path=path, line=second.line, hint="one file has one policy")
    return None


def _declarations(tree: ast.Module, path: str) -> Iterator[Declaration | Problem]:
    decorators, modules = _imported(tree)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            word = _word(decorator, decorators, modules)
            if word is None:
                continue
            if isinstance(node, ast.AsyncFunctionDef):
                yield Problem(message="a policy is not async", path=path, line=node.lineno)
            elif not isinstance(decorator, ast.Call):
                message = f"@{word} needs the policy's name"
                yield Problem(message=message, path=path, line=decorator.lineno, hint=f'@{word}("my-policy")')
            else:
                yield _declaration(node, decorator, word, path)


def _declaration(
    node: ast.FunctionDef | ast.ClassDef, decorator: ast.Call, word: str, path: str
) -> Declaration | Problem:
    given = list(decorator.args)
    kind = _KINDS.get(word)
    if word == _GENERAL:
        kind = _kind_of(given.pop(0)) if given else None
        if kind is None:
            return Problem(
                message="the kind must be written out", path=path, line=decorator.lineno, hint="@scorer(…)"
            )
    assert kind is not None
    named = next((keyword.value for keyword in decorator.keywords if keyword.arg == "name"), None)
    name = given[0] if given else named
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        message = f"the name of the {kind} must be written out as a string"
        return Problem(message=message, path=path, line=decorator.lineno)
    if not _NAME.fullmatch(name.value):
        message = f'"{name.value}" cannot be a policy\'s name'
        hint = "lower-case letters, digits, - and _, beginning with a letter, 64 at most"
        return Problem(message=message, path=path, line=name.lineno, column=name.col_offset + 1, hint=hint)
    summary = summary_of(ast.get_docstring(node))
    return Declaration(name=name.value, kind=kind, line=node.lineno, summary=summary)


def _imported(tree: ast.Module) -> tuple[dict[str, str], set[str]]:
    """The decorators of ours under the names that the file gives them, and the names of our module."""
    decorators: dict[str, str] = {}
    modules = {_PUBLIC}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == _PUBLIC:
            for alias in node.names:
                if alias.name in _KINDS or alias.name == _GENERAL:
                    decorators[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module == _PUBLIC.partition(".")[0]:
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == _GENERAL}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == _PUBLIC and alias.asname}
    return decorators, modules


def _word(decorator: ast.expr, decorators: dict[str, str], modules: set[str]) -> str | None:
    """Which decorator of ours this is."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(target, ast.Name):
        return decorators.get(target.id)
    if isinstance(target, ast.Attribute) and ast.unparse(target.value) in modules:
        return target.attr if target.attr in _KINDS or target.attr == _GENERAL else None
    return None


def _kind_of(node: ast.expr) -> PolicyKind | None:
    """Of `PolicyKind.SCORER` or `"scorer"`."""
    if isinstance(node, ast.Attribute):
        return _KINDS.get(node.attr.lower())
    return _KINDS.get(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
