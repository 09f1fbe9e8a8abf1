"""When a roll-out goes back: the new revision does not come up while the old one served."""

from collections.abc import Mapping, Sequence
from typing import Final

from supervisord_cp.model.assignment import Assignment, BadRevision
from supervisord_cp.model.base import InstanceId
from supervisord_cp.model.launch import LaunchSpec

FAILURES: Final = 3


def failed_revision(
    mine: Sequence[Assignment],
    wanted: str,
    failures: Mapping[InstanceId, int],
    proven: frozenset[str],
) -> BadRevision | None:
    """The wanted revision, if a replica of it has failed again and again, none of it was ever ready
    (`proven`), and there is an older one to go back to.

    `failures` are unrequested ends by instance.
    """
    if wanted in proven:
        return None
    broken = [a for a in mine if a.revision == wanted and failures.get(a.id, 0) >= FAILURES]
    older: list[LaunchSpec] = [
        a.spec for a in mine if a.revision != wanted and a.counts and a.spec is not None
    ]
    if not broken or not older:
        return None
    return BadRevision(deployment=broken[0].deployment, revision=wanted, good=older[0])
