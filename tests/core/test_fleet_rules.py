"""Node loss, arbitration and roll-outs that go back: the pure rules, by tables."""

import pytest

from supervisord_cp.core.scaling.arbitrate import Claim, Tenant, preempt
from supervisord_cp.core.scaling.loss import LOST_AFTER_S, Silence, lost
from supervisord_cp.core.scaling.placement import NodeCapacity
from supervisord_cp.core.scaling.rollback import failed_revision
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.launch import EngineKind, LaunchSpec
from supervisord_cp.model.reason import Reason, ReasonCode, render

SPEC = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",))
OLD = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",), args={"seed": 1})


def silence(name: str, silent: bool = True, dead_s: float | None = LOST_AFTER_S) -> Silence:
    return Silence(node=name, silent=silent, dead_s=dead_s)


FINE = [silence(f"ok-{n}", silent=False, dead_s=None) for n in range(3)]


@pytest.mark.parametrize(
    ("nodes", "already", "expected"),
    [
        ([*FINE, silence("a")], {}, {"a"}),
        ([*FINE, silence("a", dead_s=LOST_AFTER_S - 1)], {}, set()),
        ([*FINE, silence("a", dead_s=None)], {}, set()),
        ([*FINE, silence("a", silent=False)], {"a": True}, set()),
        ([silence("a")], {}, {"a"}),
        ([silence("a"), silence("b")], {}, set()),
        ([silence("a"), silence("b")], {"a": True}, {"a"}),
        ([*FINE[:1], silence("a"), silence("b")], {}, set()),
        ([*FINE, silence("a"), silence("b")], {}, {"a", "b"}),
        ([*FINE, silence("a", dead_s=None)], {"a": True}, {"a"}),
    ],
)
def test_lost(nodes: list[Silence], already: dict[str, bool], expected: set[str]) -> None:
    assert lost(nodes, already) == expected


def tenant(name: str, device: int, *, ready_s: float = 1000.0, **fields: object) -> Tenant:
    deployment = name.rpartition("-")[0]
    leaving = fields.pop("leaving", None)
    assignment = Assignment(
        id=name, deployment=deployment, node="a", devices=(f"slot-{device}",), revision="r", leaving=leaving
    )
    return Tenant(assignment=assignment, ready_s=ready_s, **{"serving": True, **fields})


def room(devices: int = 2, **fields: object) -> NodeCapacity:
    slots = tuple(f"slot-{n}" for n in range(devices))
    return NodeCapacity(node="a", devices=slots, **{"taken": frozenset(slots), **fields})


VIP = Wanted(deployment="vip", replicas=1, spec=SPEC)
PRIORITIES = {"vip": Claim(priority=10), "low": Claim(min_residency_s=300.0), "mid": Claim(priority=5)}


def victims(
    tenants: list[Tenant], wanted: Wanted = VIP, claims: dict | None = None, **node: object
) -> list[str]:
    made = preempt([wanted], tenants, [room(**node)], {**PRIORITIES, **(claims or {})})
    assert all("vip" in render(r.reason) for r in made)
    return [r.instance for r in made]


def test_the_cheapest_replica_of_a_lower_priority_yields() -> None:
    assert victims([tenant("low-0", 0, requests=3), tenant("low-1", 1, requests=1)]) == ["low-1"]
    assert victims([tenant("low-0", 0), tenant("low-1", 1, serving=False)]) == ["low-1"]


def test_equals_and_betters_do_not_yield() -> None:
    assert victims([tenant("vip-0", 0), tenant("vip-1", 1)]) == []
    assert victims([tenant("mid-0", 0)], Wanted(deployment="low", replicas=1, spec=SPEC), devices=1) == []


def test_residency_and_floor_protect() -> None:
    assert victims([tenant("low-0", 0, ready_s=299.0)], devices=1) == []
    assert victims([tenant("low-0", 0)], devices=1, claims={"low": Claim(floor=1)}) == []
    assert victims([tenant("low-0", 0), tenant("low-1", 1)], claims={"low": Claim(floor=1)}) == ["low-1"]


def test_a_group_takes_as_many_as_it_needs_or_none() -> None:
    group = Wanted(deployment="vip", replicas=1, spec=LaunchSpec(**{**_fields(SPEC), "gpus": 2}))
    assert sorted(victims([tenant("low-0", 0), tenant("mid-0", 1)], group)) == ["low-0", "mid-0"]
    assert victims([tenant("low-0", 0), tenant("vip-0", 1)], group) == []
    assert victims([tenant("low-0", 0)], group, taken=frozenset({"slot-0"})) == ["low-0"]


def _fields(spec: LaunchSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_nothing_more_is_taken_while_room_is_being_made() -> None:
    going = Leaving(to=Leave.REMOVE, reason=Reason(code=ReasonCode.PREEMPTED))
    assert victims([tenant("low-0", 0, leaving=going), tenant("low-1", 1)]) == []


def test_a_cordoned_node_makes_no_room() -> None:
    assert victims([tenant("low-0", 0)], cordoned=True) == []


def place(name: str, revision: str, spec: LaunchSpec | None) -> Assignment:
    return Assignment(id=name, deployment="chat", node="a", devices=(), revision=revision, spec=spec)


def test_a_revision_that_does_not_come_up_goes_back() -> None:
    mine = [place("chat-0", "old", OLD), place("chat-1", "new", SPEC)]
    bad = failed_revision(mine, "new", {"chat-1": 3}, frozenset())
    assert bad is not None
    assert (bad.revision, bad.good) == ("new", OLD)
    assert failed_revision(mine, "new", {"chat-1": 2}, frozenset()) is None
    assert failed_revision(mine, "new", {"chat-0": 9}, frozenset()) is None
    assert failed_revision(mine, "new", {"chat-1": 3}, frozenset({"new"})) is None
    assert failed_revision(mine[1:], "new", {"chat-1": 3}, frozenset()) is None
