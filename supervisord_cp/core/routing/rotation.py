"""Which of a deployment's instances may have a request now: those in rotation, new ones up to their share,
and those on trial that nobody tries."""

import math
from collections.abc import Sequence
from typing import Final

from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.core.routing.warmup import most_at_once, share
from supervisord_cp.model.base import InstanceId


class Rotation:
    """Of one deployment. What an instance is told by (`Account.on_trial`, `warm_since`) is kept with it."""

    __slots__ = ("_refreshed", "_warming", "_warmup_s", "routable", "special", "trying", "usable")

    def __init__(self, warmup_s: float) -> None:
        """`warmup_s`: how long a new instance gets less than its share."""
        self.routable: list[Account] = []
        """Those that would get requests if none was ejected."""
        self.usable: list[Account] = []
        """In rotation."""
        self.trying: list[Account] = []
        """On trial."""
        self.special = False
        """Whether any is on trial or new; else all that are usable are offered."""
        self._warming: list[Account] = []
        self._warmup_s: Final = warmup_s
        self._refreshed = False

    def refresh(self, accounts: Sequence[Account], ejections: Ejections, now: float) -> None:
        """Take over the snapshot's accounts and who is ejected."""
        self.routable = [account for account in accounts if account.instance.routable]
        self.usable, self.trying = [], []
        for account in self.routable:
            if account.warm_since is None:  # what is there when we come has been there for long
                account.warm_since = now if self._refreshed else -math.inf
            out = ejections.get(account.incarnation)
            account.on_trial = out is not None and out.on_trial
            if out is None:
                self.usable.append(account)
            elif out.on_trial:
                self.trying.append(account)
        self._refreshed = True
        self._warming = self._still_warming(self.usable, now)
        self.special = bool(self.trying or self._warming)

    def offered(self, now: float, may_try: bool = True) -> list[Account]:
        """Who may have a request. When none is in rotation, those on trial are all there is."""
        if not self.special:
            return self.usable
        if not self.usable:
            return self.trying
        tried = [account for account in self.trying if may_try and not account.is_tried]
        warm = self.warm(now)
        return [*warm, *self._new_with_share(warm, now), *tried]

    def warm(self, now: float) -> list[Account]:
        """Those in rotation that are not new."""
        if self._warming:
            self._warming = self._still_warming(self._warming, now)
            self.special = bool(self.trying or self._warming)
        return [account for account in self.usable if account not in self._warming]

    def shares(self, now: float) -> dict[InstanceId, float]:
        """The new ones, with the share of an old one's work that each may have."""
        return {account.instance.id: self._share(account, now) for account in self._warming}

    def _new_with_share(self, warm: list[Account], now: float) -> list[Account]:
        """The new ones that have less than their share; all of them when there are no others."""
        if not warm:
            return self._warming
        inflight = sum(account.inflight for account in warm)
        weight = sum(account.instance.weight for account in warm)
        return [
            account
            for account in self._warming
            if account.inflight
            < most_at_once(self._share(account, now), account.instance.weight, inflight, weight)
        ]

    def _share(self, account: Account, now: float) -> float:
        return 1.0 if account.warm_since is None else share(now - account.warm_since, self._warmup_s)

    def _still_warming(self, accounts: Sequence[Account], now: float) -> list[Account]:
        return [a for a in accounts if a.warm_since is not None and now - a.warm_since < self._warmup_s]
