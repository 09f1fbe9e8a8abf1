"""Work in flight, as a set of leases per incarnation: counts are read off it, never kept by hand."""

from collections.abc import Iterable
from typing import Final

from supervisord_cp.core.routing.pressure import Ceiling
from supervisord_cp.core.routing.sharing import Entries, Entry
from supervisord_cp.core.routing.vitals import Vitals
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.request import Candidate

_UNLIMITED: Final = 1 << 60


class Lease:
    """One request's claim on one incarnation, in tokens. Closing it twice is closing it once."""

    __slots__ = ("account", "decode", "prefill")

    def __init__(self, account: "Account", prefill: int, decode: int) -> None:
        self.account: Account | None = account
        """None once it is closed."""
        self.prefill = prefill
        """Prompt tokens whose first answer byte has not come yet."""
        self.decode = decode
        """Tokens still expected."""

    def first_byte(self) -> None:
        """The prompt has been worked through."""
        if self.account is not None and self.prefill:
            self.account._booked_prefill -= self.prefill
            self.account._candidate = None
            self.prefill = 0

    def close(self) -> bool:
        """Give the claim back. False when that was done before."""
        account = self.account
        if account is None:
            return False
        self.account = None
        account._leases.discard(self)
        account._booked_prefill -= self.prefill
        account._booked_decode -= self.decode
        account._candidate = None
        if account.entry is not None:
            account.entry.tell(len(account._leases))
        return True


class Account:
    """One incarnation, with the leases that this router holds on it."""

    __slots__ = (
        "_booked_decode",
        "_booked_prefill",
        "_candidate",
        "_earlier_peak",
        "_leases",
        "_peak",
        "ceiling",
        "entry",
        "foreign",
        "instance",
        "limit",
        "on_trial",
        "siblings",
        "trial",
        "vitals",
        "warm_since",
    )

    def __init__(self, instance: RoutedInstance, limit: int, entry: Entry | None = None) -> None:
        """`entry`: what the other processes of this router have there; None: there are none."""
        self.instance = instance
        self.entry: Final = entry
        self.siblings = 0 if entry is None else entry.elsewhere()
        """Requests of this router's other processes, as last looked up."""
        self.limit = min(limit or _UNLIMITED, _UNLIMITED)
        """Requests at once; enormous when there is no limit."""
        self.ceiling: Ceiling | None = None
        """What it has refused lately, as a limit of its own."""
        self.foreign = 0
        """Requests that the engine reports and this router did not send."""
        self.vitals: Final = Vitals()
        self.warm_since: float | None = None
        """When it began to get requests; None before. What was there when we came began long ago."""
        self.on_trial = False
        """Whether requests are to show that it is well again."""
        self.trial: Lease | None = None
        """The one that does so now, or did last."""
        self._leases: set[Lease] = set()
        self._booked_prefill = 0
        self._booked_decode = 0
        self._candidate: Candidate | None = None
        self._peak = 0
        self._earlier_peak = 0
        self._fold_load(instance)

    @property
    def incarnation(self) -> Incarnation:
        return self.instance.incarnation

    @property
    def inflight(self) -> int:
        return len(self._leases)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.limit < _UNLIMITED

    @property
    def tokens(self) -> int:
        """Booked work."""
        return self._booked_prefill + self._booked_decode

    @property
    def candidate(self) -> Candidate:
        """The account as policies see it; made again only after a change."""
        if self._candidate is None:
            self._candidate = Candidate(
                instance=self.instance,
                inflight=len(self._leases),
                booked_prefill=self._booked_prefill,
                booked_decode=self._booked_decode,
                foreign=self.foreign + self.siblings,
                limit=self.limit if self.limited else 0,
            )
        return self._candidate

    @property
    def is_tried(self) -> bool:
        """Whether a request is under way that shows how it is."""
        return self.trial is not None and self.trial.account is not None

    def has_room(self, now: float) -> bool:
        """Whether one more request is within its limit and what it has refused lately."""
        if self.entry is not None and self.limited:
            self.look()
        taken = len(self._leases) + self.foreign + self.siblings
        if taken >= self.limit:
            return False
        return self.ceiling is None or len(self._leases) < self.ceiling.limit(now)

    def offer(self, now: float) -> Candidate | None:
        """The account as policies see it, if it has room."""
        return (self._candidate or self.candidate) if self.has_room(now) else None

    def slots(self, now: float) -> int:
        """Requests of ours that it may have at once, as far as is known: never below what it has now."""
        most = self.limit - self.foreign - self.siblings
        if self.ceiling is not None:
            most = min(most, self.ceiling.limit(now))
        return max(len(self._leases), most if most < _UNLIMITED // 2 else 0)

    def refused(self, now: float) -> None:
        """The engine said that it is full (the refused request holds no lease any more)."""
        self.ceiling = Ceiling(base=len(self._leases), at=now)

    def accepted(self, now: float) -> None:
        """The engine took a request: what it refused before binds less, and in the end not at all."""
        if self.ceiling is not None:
            self.ceiling = self.ceiling.after_success(now)

    def open(self, prefill: int, decode: int) -> Lease:
        """Book a request at dispatch."""
        lease = Lease(self, prefill, decode)
        self._leases.add(lease)
        self._booked_prefill += prefill
        self._booked_decode += decode
        self._candidate = None
        ours = len(self._leases) + self.siblings
        if ours > self._peak:
            self._peak = ours
        if self.entry is not None:
            self.entry.tell(len(self._leases))
        if self.on_trial:
            self.trial = lease
        return lease

    def look(self) -> None:
        """See what the other processes have there."""
        if self.entry is not None and (siblings := self.entry.elsewhere()) != self.siblings:
            self.siblings = siblings
            self._candidate = None
            self._peak = max(self._peak, len(self._leases) + siblings)

    def renew(self, instance: RoutedInstance, limit: int) -> None:
        """Take over what a newer snapshot says of the same incarnation."""
        fresh_load = instance.load != self.instance.load
        self.instance = instance
        self.limit = min(limit or _UNLIMITED, _UNLIMITED)
        self._candidate = None
        if fresh_load:
            self._fold_load(instance)

    def _fold_load(self, instance: RoutedInstance) -> None:
        """What the engine reports beyond the most that this router had open since the report before the last.

        The report is older than our ledger: comparing it with what is open now would take our own
        requests that have ended meanwhile for somebody else's.
        """
        load = instance.load
        ours = max(self._peak, self._earlier_peak)
        self._earlier_peak, self._peak = self._peak, len(self._leases) + self.siblings
        reported = 0 if load is None else (load.running or 0) + (load.waiting or 0)
        self.foreign = min(_UNLIMITED, max(0, reported - ours))


class Ledger:
    """The accounts of all incarnations that are in the snapshot or still have work open."""

    def __init__(self, entries: Entries | None = None) -> None:
        """`entries`: what the other processes of this router have; None: there are none."""
        self._accounts: dict[Incarnation, Account] = {}
        self._entries: Final = entries

    def accounts(self) -> tuple[Account, ...]:
        """All of them."""
        return tuple(self._accounts.values())

    def get(self, incarnation: Incarnation) -> Account | None:
        """The account of an incarnation, if it is known."""
        return self._accounts.get(incarnation)

    def sync(self, instances: Iterable[tuple[RoutedInstance, int]]) -> None:
        """Take over a snapshot's (instance, limit) pairs.

        An incarnation that the snapshot no longer has keeps its account until its last lease closes.
        """
        present: set[Incarnation] = set()
        for instance, limit in instances:
            present.add(instance.incarnation)
            account = self._accounts.get(instance.incarnation)
            if account is None:
                entry = None if self._entries is None else self._entries.row(instance.incarnation)
                self._accounts[instance.incarnation] = Account(instance, limit, entry)
            elif account.instance is not instance:
                account.renew(instance, limit)
        for incarnation, account in tuple(self._accounts.items()):
            if incarnation not in present and not account.inflight:
                del self._accounts[incarnation]
                if self._entries is not None:
                    self._entries.drop(incarnation)

    def look(self) -> None:
        """See what the other processes have open."""
        for account in self._accounts.values():
            account.look()
