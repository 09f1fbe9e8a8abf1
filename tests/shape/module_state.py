"""Finds module-level state: what a module binds and anybody could change."""

import ast
from collections.abc import Iterator
from typing import Final

FREE_NAMES: Final = frozenset({"log", "__all__"})
ALIAS_CALLS: Final = frozenset({"TypeVar", "ParamSpec", "NewType", "TypeVarTuple"})
CHANGING: Final = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove"}
    | {"setdefault", "update"}
)


def complaints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a module that makes it carry state."""
    bound: set[str] = set()
    for statement in _module_level(tree.body):
        for name in _bound_names(statement):
            bound.add(name)
            if name not in FREE_NAMES and not _constant(statement):
                yield statement.lineno, f"{name} is no Final"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"
        elif (name := _changed_name(node)) in bound:
            yield node.lineno, f"{name} is changed"


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, outside of functions and classes."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _module_level(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _module_level(handler.body)


def _bound_names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Assign(targets=targets):
            pass
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.For(target=target):
            targets = [target]
        case _:
            return []
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _constant(statement: ast.stmt) -> bool:
    match statement:
        case ast.AnnAssign(annotation=annotation):
            return ast.unparse(annotation).split("[")[0].rpartition(".")[2] in ("Final", "TypeAlias")
        case ast.Assign(value=value):
            return _alias(value)
        case _:
            return False


def _alias(value: ast.expr) -> bool:
    """Whether it is the right side of a type alias or of a type variable."""
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name in ALIAS_CALLS
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _alias(left) and _alias(right)
        case ast.Subscript(value=ast.Name() | ast.Attribute()) | ast.Name() | ast.Attribute():
            return True
        case ast.Constant(value=None):
            return True
        case _:
            return False


def _changed_name(node: ast.AST) -> str | None:
    """The name whose object a node changes in place, if it is seen to."""
    match node:
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if attribute in CHANGING:
            return name
        case _:
            return None
