"""Marks on the schema's types: how a value is written in the file when its type alone does not say."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated

from msgspec import Meta


class Form(Enum):
    """How a value is written."""

    SIZE = auto()
    """Bytes: a whole number or `64MiB`."""
    HOST = auto()
    """One address or name of a host, without a port."""
    ORIGIN = auto()
    """`http://HOST:PORT` and nothing after it."""
    URL = auto()
    """A web address; "" for none."""
    BESIDE = auto()
    """A name; when it starts with ./ or ../ a path, which is resolved against the file."""
    ONE_OR_MORE = auto()
    """A list, or its only element."""
    BY_NAME = auto()
    """A table of tables: each key is the `name` of an element."""
    IMPLIED = auto()
    """Not a key of the file: whoever reads the file fills it in."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spelled:
    """Text that a pattern describes whole; `says` goes on after "must be"."""

    pattern: str
    says: str


Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Form.SIZE, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Timeout = Annotated[float, Meta(gt=0)]
Cost = Annotated[float, Meta(ge=0)]
Origin = Annotated[str, Form.ORIGIN]
Program = Annotated[str, Form.BESIDE]
DeploymentLabel = Annotated[
    str,
    Spelled(
        r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        "at most 40 lower-case letters, digits and hyphens, with no hyphen at either end",
    ),
]
"""Becomes part of instance ids and unit names."""
InstanceLabel = Annotated[
    str,
    Spelled(
        r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
        "at most 63 letters, digits, dots, underscores and hyphens, with a letter or digit at either end",
    ),
]
NodeLabel = Annotated[
    str,
    Spelled(
        r"([A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)?",
        "a host name: letters, digits, dots, underscores and hyphens",
    ),
]
RoutePath = Annotated[str, Spelled(r"/\S*", 'a path that starts with "/"')]
