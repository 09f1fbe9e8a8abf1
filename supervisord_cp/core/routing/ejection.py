"""Incarnations that this router has found dead by itself, before anyone told it."""

from collections.abc import Collection
from typing import Final

from supervisord_cp.model.base import Incarnation

FIRST_PROBE_S: Final = 0.1
PROBE_EVERY_S: Final = 1.0


class Ejections:
    """Who is out, and when each is tried again. A new incarnation is never out."""

    def __init__(self) -> None:
        self._next_probe: dict[Incarnation, float] = {}
        self._revived: set[Incarnation] = set()

    def __contains__(self, incarnation: object) -> bool:
        return incarnation in self._next_probe

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        """All that are out."""
        return tuple(self._next_probe)

    def eject(self, incarnation: Incarnation, now: float) -> bool:
        """Take it out at once. False when it was out already."""
        if incarnation in self._next_probe:
            return False
        self._next_probe[incarnation] = now + FIRST_PROBE_S
        return True

    def restore(self, incarnation: Incarnation) -> bool:
        """It answers again. False when it was not out."""
        if self._next_probe.pop(incarnation, None) is None:
            return False
        self._revived.add(incarnation)
        return True

    def revived(self, incarnation: Incarnation) -> bool:
        """Whether it has been taken for dead before, wrongly."""
        return incarnation in self._revived

    def keep(self, present: Collection[Incarnation]) -> None:
        """Forget incarnations that the fleet no longer has."""
        self._next_probe = {i: at for i, at in self._next_probe.items() if i in present}
        self._revived.intersection_update(present)

    def due(self, now: float) -> list[Incarnation]:
        """Those to be probed now; each is due again after `PROBE_EVERY_S`."""
        due = [incarnation for incarnation, at in self._next_probe.items() if at <= now]
        for incarnation in due:
            self._next_probe[incarnation] = now + PROBE_EVERY_S
        return due
