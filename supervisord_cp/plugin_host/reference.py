"""What policies are given, field by field, generated from the values themselves:
`python -m supervisord_cp.plugin_host.reference > docs/policies/values.md`."""

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from typing import Final

from supervisord_cp import policy

_INTRODUCTION: Final = """\
# What policies are given

Every value, field by field; all of them are imported from `supervisord_cp.policy`, and none can be changed.
Where something is unknown it is `None` or a [Signal](#signal) that is not `known`, never zero.
[Policies](../policies.md) tells how to write one.
"""
_GROUPS: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    (
        "Filters, scorers, pickers",
        (
            policy.RoutingRequest,
            policy.RequestPriority,
            policy.Candidate,
            policy.RoutedInstance,
            policy.InstanceState,
            policy.EngineLoad,
            policy.Context,
            policy.Pace,
            policy.Outcome,
            policy.Affinity,
        ),
    ),
    ("Schedulers", (policy.WaitingRequest, policy.QueueContext)),
    (
        "Scalers",
        (
            policy.ScaleView,
            policy.ScaleBounds,
            policy.Tolerance,
            policy.ReplicaView,
            policy.ReplicaPhase,
            policy.ScaleProposal,
            policy.Reason,
        ),
    ),
    ("Signals", (policy.Signal, policy.SignalState, policy.SignalName)),
    ("Placers", (policy.PlaceView, policy.NodeRoom)),
)


def reference() -> str:
    """The whole page, in Markdown."""
    lines = [_INTRODUCTION]
    for heading, values in _GROUPS:
        lines.append(f"## {heading}\n")
        for value in values:
            lines.extend(_section(value))
    return "\n".join(lines)


def _section(value: type) -> Iterator[str]:
    (tree,) = ast.parse(inspect.getsource(value)).body
    assert isinstance(tree, ast.ClassDef)
    yield f"### {value.__name__}\n"
    yield f"{_plain(inspect.getdoc(value))}\n"
    ours = [base for base in value.__bases__ if base.__name__ in policy.__all__ and base is not policy.Value]
    if ours:
        yield f"Has what {_link(ours[0])} has, and:\n"
    if issubclass(value, Enum):
        yield from _members(tree)
    else:
        yield from _fields(tree)


def _members(tree: ast.ClassDef) -> Iterator[str]:
    for node, after in _with_next(tree.body):
        if isinstance(node, ast.Assign):
            (target,) = node.targets
            text = _text(after)
            name, written = ast.unparse(target), ast.unparse(node.value).replace("'", '"')
            yield f"* `{name}` = `{written}`{f': {text}' if text else ''}"
    yield ""


def _fields(tree: ast.ClassDef) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for node, after in _with_next(tree.body):
        if isinstance(node, ast.AnnAssign):
            yield _row(ast.unparse(node.target), ast.unparse(node.annotation), _text(after))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            written = "" if _is_property(node) else f"({_parameters(node)})"
            returns = "" if node.returns is None else ast.unparse(node.returns)
            yield _row(f"{node.name}{written}", returns, _plain(ast.get_docstring(node)))
    yield ""


def _row(name: str, kind: str, text: str) -> str:
    cells = (f"`{name}`", f"`{kind.strip(chr(39))}`", text)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)


def _parameters(node: ast.FunctionDef) -> str:
    arguments = node.args.args[1:]
    required = len(arguments) - len(node.args.defaults)
    return ", ".join(
        one.arg if place < required else f"{one.arg}={ast.unparse(node.args.defaults[place - required])}"
        for place, one in enumerate(arguments)
    )


def _with_next(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """Each statement with the one after it, which may be its text."""
    return pairwise([*body, ast.Pass()])


def _text(node: ast.stmt) -> str:
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return _plain(node.value.value)
    return ""


def _plain(text: str | None) -> str:
    """On one line."""
    return " ".join((text or "").split())


def _link(value: type) -> str:
    return f"[{value.__name__}](#{value.__name__.lower()})"


if __name__ == "__main__":
    sys.stdout.write(reference())
