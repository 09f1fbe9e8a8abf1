"""Placement, reconciliation and draining, by tables and by laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.core.scaling.drain import drained, next_turns
from supervisord_cp.core.scaling.placement import NodeCapacity, Place, place
from supervisord_cp.core.scaling.reconcile import plan
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, revision_of
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.router import LeaseCount, RouterReport
from supervisord_cp.model.scaling import Retire, Start

SPEC = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",))


def node(name: str, devices: int = 2, **fields: object) -> NodeCapacity:
    slots = tuple(f"slot-{n}" for n in range(devices))
    return NodeCapacity(node=name, devices=slots, executables=("vllm",), **fields)


VLLM = LaunchSpec(engine=EngineKind.VLLM, model="m", served_names=("m",), gpus=2)


@pytest.mark.parametrize(
    ("spec", "patterns", "nodes", "code"),
    [
        (SPEC, (), [], ReasonCode.NO_NODES),
        (SPEC, ("gpu-*",), [node("cpu-1")], ReasonCode.NODE_CONSTRAINT),
        (replace(VLLM, executable="/opt/x"), (), [node("a")], ReasonCode.ENGINE_NOT_ALLOWED),
        (VLLM, (), [replace(node("a"), executables=("*",))], ReasonCode.ENGINE_NOT_ALLOWED),
        (VLLM, (), [node("a", 1), node("b", 2, taken=frozenset({"slot-0"}))], ReasonCode.NO_FREE_DEVICE),
        (VLLM, (), [node("a", 2, cordoned_devices=frozenset({"slot-0"}))], ReasonCode.NO_FREE_DEVICE),
        (VLLM, (), [node("a", cordoned=True)], ReasonCode.CORDONED),
    ],
)
def test_what_cannot_be_placed_says_why(spec, patterns, nodes, code) -> None:
    found = place("chat", spec, patterns, nodes, spread)
    assert found.code is code
    assert "?" not in render(found)


def test_replicas_spread_over_nodes_and_then_fill_them() -> None:
    made = plan([Wanted(deployment="chat", replicas=3, spec=SPEC)], [], {}, [node("a"), node("b")], spread)
    assert [(a.instance, a.node, a.devices) for a in made.actions] == [
        ("chat-0", "a", ("slot-0",)),
        ("chat-1", "b", ("slot-0",)),
        ("chat-2", "a", ("slot-1",)),
    ]


def test_a_group_of_gpus_is_on_one_node() -> None:
    found = place("chat", VLLM, (), [node("a", 1), node("b", 3)], spread)
    assert found == Place(node="b", devices=("slot-0", "slot-1"))


REVISION = revision_of(SPEC)
READY, STARTING, BACKOFF = InstanceState.READY, InstanceState.STARTING, InstanceState.BACKOFF


def assigned(ordinal: int, *, revision: str = REVISION, **fields: object) -> Assignment:
    return Assignment(
        id=f"chat-{ordinal}",
        deployment="chat",
        node="a",
        devices=(f"slot-{ordinal}",),
        revision=revision,
        **fields,
    )


def actions(replicas: int, have: list[Assignment], states: dict, free: int = 0) -> list[tuple[str, str]]:
    taken = frozenset(d for a in have for d in a.devices)
    where = node("a", len(have) + free, taken=taken)
    made = plan([Wanted(deployment="chat", replicas=replicas, spec=SPEC)], have, states, [where], spread)
    return [("start" if isinstance(a, Start) else "retire", a.instance) for a in made.actions]


def test_a_surplus_goes_from_the_ones_that_do_not_serve_then_the_youngest() -> None:
    have = [assigned(0), assigned(1), assigned(2)]
    assert actions(2, have, {"chat-0": READY, "chat-1": BACKOFF, "chat-2": READY}) == [("retire", "chat-1")]
    assert actions(1, have, dict.fromkeys(("chat-0", "chat-1", "chat-2"), READY)) == [
        ("retire", "chat-2"),
        ("retire", "chat-1"),
    ]


def test_what_is_being_removed_does_not_count_and_its_name_is_not_reused() -> None:
    going = assigned(0, leaving=Leaving(to=Leave.REMOVE))
    assert actions(1, [going], {"chat-0": READY}, free=1) == [("start", "chat-1")]


def test_what_is_held_stopped_or_restarts_keeps_its_place() -> None:
    for leave in (Leave.STOP, Leave.RESTART):
        assert actions(1, [assigned(0, leaving=Leaving(to=leave))], {"chat-0": READY}, free=1) == []


def test_nothing_happens_while_agents_are_still_connecting() -> None:
    made = plan(
        [Wanted(deployment="chat", replicas=1, spec=SPEC)], [], {}, [node("a")], spread, may_start=False
    )
    assert made.actions == ()


def test_a_changed_deployment_gets_the_new_replica_first_when_there_is_room() -> None:
    old = [assigned(0, revision="old"), assigned(1, revision="old")]
    serving = {"chat-0": READY, "chat-1": READY}
    assert actions(2, old, serving, free=1) == [("start", "chat-2")]
    coming = [*old, assigned(2)]
    assert actions(2, coming, {**serving, "chat-2": STARTING}, free=1) == []
    assert actions(2, coming, {**serving, "chat-2": READY}, free=1) == [("retire", "chat-1")]


def test_a_changed_deployment_without_room_goes_one_at_a_time() -> None:
    old = [assigned(0, revision="old"), assigned(1, revision="old")]
    serving = {"chat-0": READY, "chat-1": READY}
    assert actions(2, old, serving) == [("retire", "chat-1")]
    leaving = [old[0], assigned(1, revision="old", leaving=Leaving(to=Leave.REMOVE))]
    made = plan(
        [Wanted(deployment="chat", replicas=2, spec=SPEC)],
        leaving,
        serving,
        [node("a", 2, taken=frozenset({"slot-0", "slot-1"}))],
        spread,
    )
    assert made.actions == ()
    assert [u.reason.code for u in made.unplaced] == [ReasonCode.NO_FREE_DEVICE]


@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.booleans(), st.sampled_from([READY, STARTING, BACKOFF])), max_size=6),
    st.integers(0, 3),
)
def test_repeated_steps_reach_what_is_wanted_and_then_rest(replicas, have, free) -> None:
    """Whatever the start, with everything that starts becoming ready, the plan converges."""
    assignments = [assigned(n, revision=REVISION if new else "old") for n, (new, _) in enumerate(have)]
    states = {f"chat-{n}": state for n, (_, state) in enumerate(have)}
    slots = len(have) + free
    for _ in range(40):
        taken = frozenset(d for a in assignments for d in a.devices)
        where = node("a", slots, taken=taken)
        wanted = Wanted(deployment="chat", replicas=replicas, spec=SPEC)
        made = plan([wanted], assignments, states, [where], spread)
        if not made.actions:
            break
        for action in made.actions:
            if isinstance(action, Retire):
                assignments = [a for a in assignments if a.id != action.instance]
                states.pop(action.instance, None)
            else:
                assert not set(action.devices) & {d for a in assignments for d in a.devices}
                assignments.append(
                    Assignment(
                        id=action.instance,
                        deployment="chat",
                        node="a",
                        devices=action.devices,
                        revision=action.revision,
                    )
                )
                states[action.instance] = READY
    current = [a for a in assignments if a.revision == REVISION]
    stuck = any(states[a.id] is not READY for a in current)
    assert len(assignments) >= min(replicas, slots)
    if not stuck:
        assert len(assignments) == min(replicas, slots)
        assert all(a.revision == REVISION for a in assignments)


def report(version: int, requests: int, epoch: str = "e") -> RouterReport:
    leases = (LeaseCount(incarnation="i", requests=requests),)
    return RouterReport(router="r", epoch=epoch, version=version, leases=leases)


@pytest.mark.parametrize(
    ("reports", "done"),
    [
        ([], True),
        ([report(5, 0)], True),
        ([report(7, 0)], True),
        ([report(4, 0)], False),
        ([report(5, 1)], False),
        ([report(9, 0, epoch="other")], False),
        ([report(5, 0), report(5, 2)], False),
    ],
)
def test_draining_is_done_when_every_router_says_so(reports: list[RouterReport], done: bool) -> None:
    assert drained("i", 5, "e", reports) is done


def waiting(ordinal: int) -> Assignment:
    return assigned(ordinal, leaving=Leaving(to=Leave.RESTART, waiting=True))


def test_restarts_go_one_at_a_time_when_the_others_serve() -> None:
    three = [waiting(0), waiting(1), waiting(2)]
    serving = {"chat-0": READY, "chat-1": READY, "chat-2": READY}
    assert next_turns(three, serving) == ["chat-0"]
    begun = [assigned(0, leaving=Leaving(to=Leave.RESTART)), waiting(1), waiting(2)]
    assert next_turns(begun, serving) == []
    assert next_turns([assigned(0), waiting(1), waiting(2)], {**serving, "chat-0": STARTING}) == []
    assert next_turns([assigned(0), waiting(1), waiting(2)], serving) == ["chat-1"]


def test_a_restart_of_what_does_not_serve_need_not_wait() -> None:
    assert next_turns([waiting(0), waiting(1)], {"chat-0": BACKOFF, "chat-1": READY}) == ["chat-0"]
