"""The base of every value."""

from typing import NewType

from msgspec import Struct

NodeName = NewType("NodeName", str)
DeploymentName = NewType("DeploymentName", str)
InstanceId = NewType("InstanceId", str)
"""`<deployment>-<ordinal>`: one place for an engine, stable over restarts."""
Incarnation = NewType("Incarnation", str)
"""One spawn of an instance. Leases, breakers and prefix entries belong to an incarnation."""
DeviceId = NewType("DeviceId", str)
"""The UUID of a GPU (`GPU-…`, `MIG-…`) or the name of a CPU slot (`slot-0`)."""


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An immutable value. Unknown fields are ignored when decoding, so that neighbours one release
    apart understand each other; a field added later has a default.

    The garbage collector does not look at values: they hold what was there before them, so that no cycle
    leads through one, and a view of a large fleet is a hundred thousand of them. One that holds code of
    others says `gc=True`."""
