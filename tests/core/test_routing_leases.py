"""Work in flight: sums are those of the open leases, whatever happens in whatever order."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisord_cp.core.routing.leases import Account, Ledger
from supervisord_cp.core.routing.pressure import FORGET_S, Ceiling
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.instance import EngineLoad

NAMES = ["i.1", "i.2", "i.3"]


def instance(incarnation: str, load: EngineLoad | None = None) -> RoutedInstance:
    return RoutedInstance(
        id=InstanceId(incarnation.partition(".")[0]),
        deployment=DeploymentName("d"),
        incarnation=Incarnation(incarnation),
        url="http://x",
        load=load,
    )


class LedgerMachine(RuleBasedStateMachine):
    """Snapshots come and go while requests run."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.present: set[str] = set()
        self.leases = []
        self.expected: dict[int, list[object]] = {}

    @rule(names=st.sets(st.sampled_from(NAMES)), limit=st.integers(0, 3))
    def snapshot(self, names: set[str], limit: int) -> None:
        self.present = names
        self.ledger.sync((instance(name), limit) for name in sorted(names))

    @rule(name=st.sampled_from(NAMES), prefill=st.integers(0, 1000), decode=st.integers(0, 1000))
    def dispatch(self, name: str, prefill: int, decode: int) -> None:
        account = self.ledger.get(Incarnation(name))
        if account is not None:
            lease = account.open(prefill, decode)
            self.leases.append(lease)
            self.expected[id(lease)] = [name, prefill, decode, True]

    @rule(data=st.data())
    def first_byte(self, data: st.DataObject) -> None:
        if self.leases:
            lease = data.draw(st.sampled_from(self.leases))
            lease.first_byte()
            if self.expected[id(lease)][3]:
                self.expected[id(lease)][1] = 0

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.leases:
            lease = data.draw(st.sampled_from(self.leases))
            assert lease.close() is self.expected[id(lease)][3]
            self.expected[id(lease)][3] = False

    @invariant()
    def sums_are_those_of_open_leases(self) -> None:
        for name in NAMES:
            open_ones = [e for e in self.expected.values() if e[0] == name and e[3]]
            account = self.ledger.get(Incarnation(name))
            if account is None:
                assert not open_ones, "an account with open leases is kept"
                assert name not in self.present
                continue
            seen = account.candidate
            assert account.inflight == seen.inflight == len(open_ones)
            assert seen.booked_prefill == sum(e[1] for e in open_ones)
            assert seen.booked_decode == sum(e[2] for e in open_ones)
            assert account.tokens == seen.booked


TestLedger = LedgerMachine.TestCase


def test_an_account_leaves_with_its_last_lease() -> None:
    ledger = Ledger()
    ledger.sync([(instance("i.1"), 0)])
    account = ledger.get(Incarnation("i.1"))
    assert account is not None
    lease = account.open(1, 1)
    ledger.sync([])
    assert ledger.get(Incarnation("i.1")) is account
    lease.close()
    ledger.sync([])
    assert ledger.get(Incarnation("i.1")) is None


@given(limit=st.integers(1, 5), opened=st.integers(0, 5))
def test_room_ends_at_the_limit(limit: int, opened: int) -> None:
    account = Account(instance("i.1"), limit)
    for _ in range(opened):
        account.open(1, 1)
    assert account.has_room(0.0) is (opened < limit)


def test_no_limit_is_no_limit() -> None:
    account = Account(instance("i.1"), 0)
    for _ in range(1000):
        account.open(1, 1)
    assert account.has_room(0.0)


def test_what_cannot_be_is_no_number_of_requests() -> None:
    account = Account(instance("i.1", EngineLoad(running=10**30)), 10**30)
    assert (account.limited, account.has_room(0.0)) == (False, False)
    account.renew(instance("i.1", EngineLoad(running=0)), 2**63)
    assert (account.limited, account.has_room(0.0)) == (False, True)


def load(running: int, waiting: int = 0, age: int = 0) -> EngineLoad:
    return EngineLoad(running=running, waiting=waiting, age_ms=age)


def test_what_others_sent_is_what_is_reported_beyond_our_own() -> None:
    account = Account(instance("i.1", load(7, 2)), 0)
    assert account.foreign == 9
    for _ in range(4):
        account.open(1, 1)
    account.renew(instance("i.1", load(10, 1)), 0)
    assert account.foreign == 7


def test_our_own_that_ended_before_the_report_came_are_not_taken_for_others() -> None:
    account = Account(instance("i.1", load(0)), 0)
    leases = [account.open(1, 1) for _ in range(20)]
    for lease in leases:
        lease.close()
    account.renew(instance("i.1", load(20, age=800)), 0)  # taken while ours ran
    assert account.foreign == 0
    account.renew(instance("i.1", load(20, age=801)), 0)
    assert account.foreign == 0
    account.renew(instance("i.1", load(20, age=802)), 0)  # two reports later they cannot be ours
    assert account.foreign == 20


def test_foreign_requests_count_against_the_limit() -> None:
    account = Account(instance("i.1", load(3)), 3)
    assert not account.has_room(0.0)


def test_a_refusal_binds_at_what_was_open_and_less_with_time() -> None:
    ceiling = Ceiling(base=16, at=100.0)
    assert [ceiling.limit(100.0 + s) for s in (0, 0.9, 1, 2)] == [16, 16, 19, 22]
    assert ceiling.limit(99.0) == 16
    after = ceiling.after_success(101.0)
    assert after is not None
    assert after.limit(100.0) == 17
    assert ceiling.after_success(100.0 + FORGET_S + 1) is None


def test_an_account_that_refused_everything_is_tried_again_after_a_while() -> None:
    account = Account(instance("i.1"), 0)
    account.refused(10.0)
    assert not account.has_room(10.5)
    assert account.has_room(11.0)
    assert account.slots(11.0) == 1
    account.accepted(10.0 + FORGET_S + 1)
    assert account.ceiling is None
