"""The reference of all keys, generated from the schema: `python -m supervisord_cp.config.reference`."""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from supervisord_cp.config.derive import layout, table_of
from supervisord_cp.config.plan import EFFECTS, Effect, effect_of
from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.config.tables import Key, Table
from supervisord_cp.config.toml_text import inline
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import LaunchSpec

_INTRODUCTION: Final = """\
# Configuration

One TOML file holds the configuration of every daemon; each daemon reads its own tables, so that one file can
go to all hosts. [`config.example.toml`](../config.example.toml) has every key. `supervisord-cp config check`
shows every mistake at once, `config show` what is in effect, `config plan` what a reload would do.

* Unknown keys are errors. Syntax: the first error; everything else: all errors, with line and column.
* Keys that end in `_s` are seconds, in `_ms` milliseconds.
* Sizes are bytes, or a number with a unit: `"64MiB"` (binary), `"64MB"` (decimal).
* Relative paths resolve against the folder of the file. In `model`, `executable`, `command` and `executables`
  only text that begins with `./`, `../` or `~/` is a path.
* `""` stands for a file or listener that there is none of.
* Secrets do not belong here: keys and tokens are in files that the configuration names, and variables such as
  `HF_TOKEN` in the agent's own environment. `config show` masks what looks like one.

`SIGHUP` has central read the file again: a valid one is applied, an invalid one is refused and the errors are
logged. Each table says whether a change of its keys applies at once or after a restart of its daemon. Keys
that decide how a deployment's engines are started have its replicas replaced without losing a request when
they change; its other keys apply at once. Those keys are:
{launch_keys}.
"""
_POLICY_HEADING: Final = "A policy's use"
_POLICY_TEXT: Final = """\
Where a policy is named, its name alone (`"fifo"`) or a table:
"""
_EFFECTS: Final[Mapping[Effect, str]] = {
    Effect.LIVE: "A change applies at once.",
    Effect.RESTART: "A change applies after a restart of the daemon.",
}


def reference() -> str:
    """The whole document, in Markdown."""
    parts = [_INTRODUCTION.format(launch_keys=", ".join(f"`{key}`" for key in _launch_keys()))]
    for headings, table in _grouped():
        parts.append("\n".join(_section(headings, table)))
    policy = [f"## {_POLICY_HEADING}", "", _POLICY_TEXT, *_rows(table_of(PolicyUse), ())]
    parts.append("\n".join(policy) + "\n")
    return "\n".join(parts)


def _grouped() -> Iterator[tuple[list[str], Table]]:
    """Tables with all headings under which they may stand."""
    headings: dict[type[msgspec.Struct], list[str]] = {}
    for heading, table in layout().items():
        headings.setdefault(table.struct, []).append(heading)
    for struct, names in headings.items():
        yield names, table_of(struct)


def _section(headings: list[str], table: Table) -> Iterator[str]:
    yield f"## {', '.join(f'`{heading}`' for heading in headings)}"
    yield ""
    path = tuple(headings[0].strip("[]").split("."))
    if about := _about(table.struct):
        yield about
        yield ""
    if path[:1] in EFFECTS:
        yield _EFFECTS[effect_of(path)]
        yield ""
    yield from _rows(table, path)
    yield ""


def _rows(table: Table, path: tuple[str, ...]) -> Iterator[str]:
    texts = field_texts(table.struct)
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for key in table.keys.values():
        meaning = texts[key.name]
        if path[:1] in EFFECTS and effect_of((*path, key.name)) is not effect_of(path):
            meaning += f" {_EFFECTS[effect_of((*path, key.name))]}"
        cells = (f"`{key.name}`", _without_article(key.kind.expects), _default(key), meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: Key) -> str:
    if key.required:
        return "required"
    written = None if key.default is None else key.kind.write(key.default)
    if written is None or isinstance(key.kind, Table):
        return "none" if key.default is None else ""
    return f"`{inline(written)}`"


def _without_article(text: str) -> str:
    return text.removeprefix("a ").removeprefix("an ")


def _about(struct: type[msgspec.Struct]) -> str:
    """What the docstring says beyond the heading."""
    text = " ".join((struct.__doc__ or "").split()).partition(": ")[2]
    return text[:1].upper() + text[1:]


def field_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings of a struct's fields, by name."""
    (tree,) = ast.parse(inspect.getsource(struct)).body
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return texts


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _launch_keys() -> Iterator[str]:
    """Keys of a deployment that are part of its launch specification."""
    launched = {"served_name", "aliases", *(field.name for field in msgspec.structs.fields(LaunchSpec))}
    return (key for key in table_of(DeploymentConfig).keys if key in launched)


if __name__ == "__main__":
    sys.stdout.write(reference())
