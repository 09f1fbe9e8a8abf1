"""What types cannot say: conditions between keys, and between tables."""

from collections.abc import Callable, Iterator
from typing import Final

from supervisord_cp.config.checks import daemons, deployments, names
from supervisord_cp.config.findings import Finding
from supervisord_cp.config.sites import Record

_CHECKS: Final[tuple[Callable[[Record], Iterator[Finding]], ...]] = (
    *daemons.CHECKS,
    *deployments.CHECKS,
    *names.CHECKS,
)


def check(record: Record) -> list[Finding]:
    """Everything that is wrong or suspicious between the values of a document.

    A condition on a key that is wrong by itself already is left unsaid.
    """
    return [finding for one in _CHECKS for finding in one(record)]
