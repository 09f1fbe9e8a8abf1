"""The gate: who starts when, and on which port."""

from collections.abc import Mapping

import pytest

from supervisord_cp.agent.gate import Gate
from supervisord_cp.core.instances.admission import Occupancy
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import Reason, ReasonCode
from tests.core.instances_kit import desired
from tests.waiting import until

pytestmark = pytest.mark.asyncio


class Facts:
    """A node with slots without number; what was admitted counts as loading."""

    def __init__(self) -> None:
        self.admitted: list[Applicant] = []
        self.kept: set[int] = set()
        self.strangers: set[int] = set()

    def occupancy(self) -> Occupancy:
        return Occupancy(devices={}, loading=len(self.admitted))

    def known_devices(self) -> list[DeviceId]:
        return [DeviceId(f"slot-{number}") for number in range(100)]

    def gpus(self) -> Mapping[DeviceId, Gpu]:
        return {}

    def ports_in_use(self) -> set[int]:
        return {one.port for one in self.admitted if one.port is not None}

    def ports_kept(self) -> set[int]:
        return self.kept


class Applicant:
    def __init__(self, facts: Facts, number: int, last_port: int | None = None) -> None:
        self.applied_for: DesiredInstance = desired(f"chat-{number}", devices=(f"slot-{number}",))
        self.id: InstanceId = self.applied_for.id
        self.last_port = last_port
        self.shunned_port: int | None = None
        self.reason: Reason | None = None
        self.port: int | None = None
        self._facts = facts

    def held(self, reason: Reason) -> None:
        self.reason = reason

    def admitted(self, port: int) -> None:
        self.port = port
        self._facts.admitted.append(self)


def gate_of(facts: Facts, *, ports: tuple[int, int] = (10, 13), max_loading: int = 100) -> Gate:
    return Gate(
        facts, ports=ports, max_loading=max_loading, port_free=lambda port: port not in facts.strangers
    )


async def test_in_the_order_of_application_as_many_as_may_load() -> None:
    facts = Facts()
    gate = gate_of(facts, max_loading=2)
    crowd = [Applicant(facts, number) for number in range(4)]
    for one in crowd:
        gate.apply(one)
        assert one.port is None, "never from within the call"
    await until(lambda: crowd[3].reason)
    assert [one.port for one in crowd] == [10, 11, None, None]
    assert crowd[2].reason == Reason(code=ReasonCode.AWAITING_START_SLOT, params={"limit": 2})
    facts.admitted.remove(crowd[0])
    gate.look()
    await until(lambda: crowd[2].port)
    assert crowd[2].port == 10
    gate.withdraw(crowd[3].id)
    facts.admitted.clear()
    late = Applicant(facts, 9)
    gate.apply(late)
    await until(lambda: late.port)
    assert crowd[3].port is None
    gate.close()


async def test_its_own_last_port_first_then_nobodys_then_those_of_the_stopped() -> None:
    facts = Facts()
    facts.kept = {10, 12}
    gate = gate_of(facts)
    again, other, third, fourth = (
        Applicant(facts, 0, last_port=12),
        Applicant(facts, 1),
        Applicant(facts, 2),
        Applicant(facts, 3),
    )
    for one in (again, other, third, fourth):
        gate.apply(one)
    await until(lambda: fourth.port)
    assert [one.port for one in (again, other, third, fourth)] == [12, 11, 13, 10]
    gate.close()


async def test_a_port_on_which_a_stranger_listens_is_not_given_away() -> None:
    facts = Facts()
    facts.strangers = {10, 11, 12, 13}
    gate = gate_of(facts)
    one = Applicant(facts, 0, last_port=11)
    gate.apply(one)
    await until(lambda: one.reason)
    assert one.reason == Reason(code=ReasonCode.AWAITING_PORT, params={"ports": "10-13"})
    facts.strangers.remove(13)
    await until(lambda: one.port, what="looked again by itself")
    assert one.port == 13
    gate.close()


async def test_a_closed_gate_admits_nobody() -> None:
    facts = Facts()
    gate = gate_of(facts)
    one = Applicant(facts, 0)
    gate.apply(one)
    gate.close()
    other = gate_of(facts)
    beside = Applicant(facts, 1)
    other.apply(beside)
    await until(lambda: beside.port)
    assert one.port is None
    other.close()


async def test_a_port_that_could_not_be_listened_on_is_taken_last() -> None:
    facts = Facts()
    gate = gate_of(facts, ports=(10, 11))
    first = Applicant(facts, 0, last_port=10)
    first.shunned_port = 10
    gate.apply(first)
    await until(lambda: first.port is not None)
    assert first.port == 11
    second = Applicant(facts, 1, last_port=10)
    second.shunned_port = 10
    gate.apply(second)
    await until(lambda: second.port is not None)
    assert second.port == 10, "better than none"
    gate.close()
