"""What the TARGET of a command means. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from supervisord_cp.errors import SupervisordError, UsageError

ALL: Final = "all"
KINDS: Final = ("deployment", "instance", "node")


class UnknownTarget(SupervisordError):
    """There is no such thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing to act on."""

    kind: str
    """`deployment`, `instance` or `node`."""
    id: str
    gpu: str = ""
    """UUID of the GPU (name of the slot) when only that part of the node is meant."""

    @property
    def collection(self) -> str:
        return f"{self.kind}s"

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" + (f", {self.gpu}" if self.gpu else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What there is to be named."""

    deployments: tuple[str, ...]
    instances: tuple[str, ...]
    nodes: Mapping[str, Sequence[Mapping[str, Any]]]
    """Devices by node: `{uuid, index}` of GPUs, `{id}` of slots."""

    def of(self, kind: str) -> tuple[str, ...]:
        return {"deployment": self.deployments, "instance": self.instances, "node": tuple(self.nodes)}[kind]


def resolve(text: str, names: Names) -> tuple[Target, ...]:
    """What `text` means: `all`, a name, `NODE:GPU`, or `KIND/NAME` where a name is used twice.

    Raises:
        UnknownTarget: nothing has this name; the text lists names that are near.
        UsageError: several kinds of things have it.
    """
    if text == ALL:
        return tuple(Target(kind="deployment", id=name) for name in names.deployments)
    kind, slash, name = text.partition("/")
    if slash and kind in KINDS:
        if name in names.of(kind):
            return (Target(kind=kind, id=name),)
        raise _unknown(text, names)
    found = [kind for kind in KINDS if text in names.of(kind)]
    if len(found) > 1:
        choices = " or ".join(f"{kind}/{text}" for kind in found)
        raise UsageError(f"{text} is the name of several things: write {choices}")
    if found:
        return (Target(kind=found[0], id=text),)
    if text.partition(":")[0] not in names.nodes:
        raise _unknown(text, names)
    return (resolve_node(text, names),)


def resolve_node(text: str, names: Names) -> Target:
    """What `NODE` or `NODE:GPU` means.

    Raises:
        UnknownTarget: no such node, or no such device on it.
    """
    if text in names.nodes:
        return Target(kind="node", id=text)
    node, _, device = text.partition(":")
    if node not in names.nodes or not device:
        raise _unknown_node(text, names)
    for number, item in enumerate(names.nodes[node]):
        identity = str(item.get("uuid") or item.get("id"))
        if device in (identity, str(item.get("index", number))):  # slots are counted
            return Target(kind="node", id=node, gpu=identity)
    devices = ", ".join(str(item.get("index", item.get("id"))) for item in names.nodes[node])
    raise UnknownTarget(f"{node} has no device {device!r}; it has {devices or 'none'}")


def _unknown_node(text: str, names: Names) -> UnknownTarget:
    near = get_close_matches(text.partition(":")[0], names.nodes, n=5, cutoff=0.5)
    if near:
        return UnknownTarget(f"no node is named {text!r}; did you mean {', '.join(near)}?")
    return UnknownTarget(f"no node is named {text!r}; nodes are {', '.join(names.nodes) or 'none'}")


def _unknown(text: str, names: Names) -> UnknownTarget:
    known = [*names.deployments, *names.instances, *names.nodes]
    near = get_close_matches(text.partition("/")[2] or text, known, n=5, cutoff=0.5)
    if near:
        return UnknownTarget(f"nothing is named {text!r}; did you mean {', '.join(near)}?")
    listed = (
        f"deployments are {', '.join(names.deployments)}" if names.deployments else "there are no deployments"
    )
    return UnknownTarget(f"nothing is named {text!r}; {listed}")
