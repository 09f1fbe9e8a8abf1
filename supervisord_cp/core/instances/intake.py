"""Taking over a desired state: what an agent believes, and what it refuses to believe."""

import re
from typing import Final

from msgspec.structs import replace

from supervisord_cp.model.base import InstanceId, Value
from supervisord_cp.model.launch import DesiredInstance, DesiredNode, Generation

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Ids become names of files and units: central cannot make us write elsewhere."""


class Book(Value, frozen=True, kw_only=True):
    """What the agent has last been told. Kept on disk: it is what a rebooted node starts."""

    generation: Generation | None = None
    """None: nothing yet."""
    instances: tuple[DesiredInstance, ...] = ()
    """Everything that is known, listed or not, in the order of arrival."""
    unlisted: tuple[InstanceId, ...] = ()
    """Known, and not mentioned by the latest desired state."""
    removing: tuple[InstanceId, ...] = ()
    """Named as a removal, and not gone yet."""


class Intake(Value, frozen=True, kw_only=True):
    """What became of a desired state."""

    book: Book
    refused: str = ""
    """Why nothing of it was taken over."""
    kept: tuple[InstanceId, ...] = ()
    """Removals that were refused."""
    invalid: tuple[str, ...] = ()
    """Instances that were ignored because their ids cannot be used."""
    unknown: tuple[InstanceId, ...] = ()
    """Removals of instances that do not exist here: they are gone already."""


def take_over(book: Book, desired: DesiredNode, *, node: str, inventory: int | None) -> Intake:
    """The book after a desired state has arrived.

    What it does not mention is kept and marked as unlisted. `inventory` is the sequence number of the
    first full report of the present connection, None before there is one: removals by somebody who
    has not seen it are refused, so that a central with an empty disk cannot clear a node.
    """
    if desired.node != node:
        return Intake(book=book, refused=f"it is meant for node {desired.node!r}")
    known = book.generation
    generation = desired.generation
    if known is not None and known.epoch == generation.epoch and generation.counter < known.counter:
        return Intake(
            book=book, refused=f"it is older ({generation.counter}) than what is known ({known.counter})"
        )
    instances = {instance.id: instance for instance in book.instances}
    mentioned = {one.id: one for one in desired.instances if _PLAIN.fullmatch(one.id)}
    named = [name for name in desired.removals if name not in mentioned]
    acknowledged = inventory is not None and desired.acknowledged >= inventory
    unknown = tuple(name for name in named if name not in instances)
    doubtful = () if acknowledged else tuple(name for name in named if name not in unknown)
    removing = [name for name in book.removing if name not in mentioned]
    if acknowledged:
        removing += [name for name in named if name in instances and name not in removing]
    instances |= mentioned
    after = Book(
        generation=generation,
        instances=tuple(instances.values()),
        unlisted=tuple(name for name in instances if name not in mentioned and name not in removing),
        removing=tuple(removing),
    )
    invalid = tuple(one.id for one in desired.instances if one.id not in mentioned)
    return Intake(book=after, kept=doubtful, unknown=unknown, invalid=invalid)


def without(book: Book, instance: InstanceId) -> Book:
    """The book after a removed instance is gone."""
    return replace(
        book,
        instances=tuple(known for known in book.instances if known.id != instance),
        unlisted=tuple(name for name in book.unlisted if name != instance),
        removing=tuple(name for name in book.removing if name != instance),
    )


def with_found(book: Book, desired: DesiredInstance) -> Book:
    """The book with an engine that was found running and of which nothing had been written down."""
    if any(known.id == desired.id for known in book.instances):
        return book
    return replace(book, instances=(*book.instances, desired), unlisted=(*book.unlisted, desired.id))
