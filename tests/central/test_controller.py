"""Central's control loop in a small world: what is placed, kept, drained, learned and remembered."""

import pytest
from msgspec.structs import replace

from supervisord_cp.central.operations import NotFound, NotPossible, Operations
from supervisord_cp.central.page.state import page_state
from supervisord_cp.central.views import deployments, instances, nodes, status
from supervisord_cp.model.instance import ExitCause, InstanceState, LastExit
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.signal import NamedResult, SignalState, measured
from tests.central.fleet import World, deployment


def test_replicas_are_started_spread_over_nodes_and_routed_to() -> None:
    world = World(deployment(replicas=3))
    a, b, router = world.agent("a"), world.agent("b"), world.router()
    world.run()
    assert (sorted(a.instances), sorted(b.instances)) == (["chat-0", "chat-2"], ["chat-1"])
    assert router.routable() == ["chat-0", "chat-1", "chat-2"]
    assert status(world.controller)["healthy"] is True


def test_routers_are_told_named_results_at_once_and_a_late_one_how_old_they_are() -> None:
    world = World(deployment())
    early = world.router("early")
    signal = measured(2.0, age_s=1.0)
    world.controller.routers.update_queries({"q": NamedResult(total=signal, instances={"chat-0": signal})})
    assert early.queries["q"].total == signal
    world.clock.advance(20.0)
    late = world.router("late").queries["q"]
    for told in (late.total, late.instances["chat-0"]):
        assert (told.value, told.age_s, told.state) == (2.0, 21.0, SignalState.STALE)


def test_nothing_is_started_before_agents_have_had_time_to_report() -> None:
    world = World(deployment(), settle_s=5.0)
    agent = world.agent()
    world.run(4.0)
    assert agent.desired is not None
    assert agent.desired.instances == ()
    world.run(2.0)
    assert sorted(agent.instances) == ["chat-0", "chat-1"]


def test_what_cannot_be_placed_is_said_and_placed_when_there_is_room() -> None:
    world = World(deployment(replicas=2))
    world.agent("a", slots=1)
    world.run()
    shown = deployments(world.controller)[0]
    assert (shown["wanted"], shown["ready"]) == (2, 1)
    assert shown["cannot_place"][0]["reason"] == "no_free_device"
    assert not status(world.controller)["healthy"]
    assert world.kinds("chat") == ["deployment.cannot_place"]
    world.agent("b", slots=1)
    world.run()
    assert deployments(world.controller)[0]["ready"] == 2
    assert deployments(world.controller)[0]["cannot_place"] == []


def test_scaling_down_drains_first_and_waits_for_the_last_lease() -> None:
    world = World(deployment(replicas=2))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    router.leases = {agent.instances["chat-1"].incarnation: 1}
    router.report()
    Operations(world.controller).scale("chat", 1, None)
    world.run(20.0, router)
    assert router.routable() == ["chat-0"]
    assert "chat-1" in agent.instances
    assert next(i for i in instances(world.controller) if i["id"] == "chat-1")["state"] == "draining"
    router.leases = {}
    world.run(3.0, router)
    assert sorted(agent.instances) == ["chat-0"]
    assert sorted(world.controller.memory.assignments) == ["chat-0"]
    assert "instance.drained" in world.kinds("chat-1")


def test_a_drain_ends_at_its_deadline() -> None:
    world = World(deployment(replicas=1))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    router.leases = {agent.instances["chat-0"].incarnation: 1}
    Operations(world.controller).instance("chat-0", "drain", 10.0)
    world.run(9.0, router)
    assert agent.instances["chat-0"].state is InstanceState.READY
    world.run(3.0, router)
    assert agent.instances["chat-0"].state is InstanceState.STOPPED


def test_a_router_that_has_gone_silent_does_not_hold_up_a_drain() -> None:
    world = World(deployment(replicas=1))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    router.leases = {agent.instances["chat-0"].incarnation: 1}
    router.report()
    world.controller.routers.gone("r1")
    Operations(world.controller).instance("chat-0", "drain", 300.0)
    world.run(8.0)
    assert agent.instances["chat-0"].state is InstanceState.READY
    world.run(5.0)
    assert agent.instances["chat-0"].state is InstanceState.STOPPED


def test_stop_holds_and_start_lets_go_over_a_restart_of_central() -> None:
    world = World(deployment(replicas=2))
    agent = world.agent()
    world.run()
    Operations(world.controller).deployment("chat", "stop", 0.0)
    world.run()
    assert {s.state for s in agent.instances.values()} == {InstanceState.STOPPED}
    world.restart()
    agent.world.agents["a"] = agent
    agent.connect()
    world.run()
    assert {s.state for s in agent.instances.values()} == {InstanceState.STOPPED}
    assert deployments(world.controller)[0]["held"] is True
    Operations(world.controller).deployment("chat", "start", None)
    world.run()
    assert {s.state for s in agent.instances.values()} == {InstanceState.READY}


def test_a_restart_of_a_deployment_never_takes_two_at_a_time() -> None:
    world = World(deployment(replicas=3))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    before = {n: s.incarnation for n, s in agent.instances.items()}
    Operations(world.controller).deployment("chat", "restart", None)
    fewest = 3
    for _ in range(40):
        world.run(0.5, router)
        fewest = min(fewest, len(router.routable()))
    assert fewest == 2
    assert all(agent.instances[n].incarnation != before[n] for n in before)
    assert router.routable() == ["chat-0", "chat-1", "chat-2"]


def test_an_override_survives_a_restart_and_expires() -> None:
    world = World(deployment(replicas=1))
    agent = world.agent()
    world.run()
    Operations(world.controller).scale("chat", 3, world.wall + 60)
    world.run()
    assert len(agent.instances) == 3
    world.restart()
    agent.connect()
    world.run(20.0)
    assert len(agent.instances) == 3
    world.run(60.0)
    assert len(agent.instances) == 1


def test_central_that_lost_its_memory_learns_the_fleet_and_removes_nothing() -> None:
    world = World(deployment(replicas=2))
    a, b = world.agent("a"), world.agent("b")
    world.run()
    Operations(world.controller).scale("chat", 4, None)
    world.run()
    before = {n: s.incarnation for agent in (a, b) for n, s in agent.instances.items()}
    assert len(before) == 4
    world.restart(wiped=True)
    a.connect()
    world.run(6.0)
    b.connect()
    world.run(20.0)
    after = {n: s.incarnation for agent in (a, b) for n, s in agent.instances.items()}
    assert before.items() <= after.items()
    shown = deployments(world.controller)[0]
    assert shown["reason"] == "learned"
    assert "scale chat auto" in shown["message"]
    Operations(world.controller).scale("chat", None, None)
    world.run(20.0)
    assert deployments(world.controller)[0]["wanted"] == 2
    assert sum(len(agent.instances) for agent in (a, b)) == 2


def test_a_restarted_central_routes_to_the_engines_of_a_silent_agent() -> None:
    world = World(deployment(replicas=1))
    agent = world.agent()
    world.run()
    world.restart()
    router = world.router()
    world.run(10.0)
    assert router.routable() == ["chat-0"]
    assert router.instances()["chat-0"].state is InstanceState.UNKNOWN
    assert instances(world.controller)[0]["state"] == "unknown"
    agent.connect()
    world.run(1.0)
    assert router.instances()["chat-0"].state is InstanceState.READY


def test_a_silent_agent_takes_nothing_out_of_rotation_and_is_not_replaced() -> None:
    world = World(deployment(replicas=2))
    world.agent("a"), world.agent("b")
    router = world.router()
    world.run()
    world.agents["b"].disconnect()
    world.run(30.0)
    assert router.routable() == ["chat-0", "chat-1"]
    assert sorted(world.agents["a"].instances) == ["chat-0"]
    assert any("b: no report" in p for p in status(world.controller)["problems"])


def test_an_instance_that_nobody_asked_for_is_kept_and_shown() -> None:
    world = World(deployment(replicas=1))
    world.store._fresh = False
    world.start()
    agent = world.agent()
    world.run()
    stranger = replace(
        agent.instances["chat-0"], id="chat-7", devices=("slot-3",), incarnation="x", listed=False
    )
    agent.instances["chat-7"] = stranger
    world.run()
    assert "chat-7" in agent.instances
    shown = {i["id"]: i["state"] for i in instances(world.controller)}
    assert shown == {"chat-0": "ready", "chat-7": "unlisted"}


def test_a_deployment_that_is_no_longer_configured_is_drained_and_removed() -> None:
    world = World(deployment("chat", 1), deployment("code", 1))
    agent = world.agent()
    world.run()
    world.controller.config = replace(world.config, deployments=(world.config.deployments[0],))
    world.run()
    assert sorted(agent.instances) == ["chat-0"]


def test_a_changed_deployment_is_replaced_without_losing_capacity() -> None:
    world = World(deployment(replicas=2))
    agent, router = world.agent(slots=3), world.router()
    world.run(8.0, router)
    world.controller.config = replace(
        world.config, deployments=(deployment(replicas=2, args={"max-model-len": 9}),)
    )
    fewest = 2
    for _ in range(40):
        world.run(0.5, router)
        fewest = min(fewest, len(router.routable()))
    assert fewest == 2
    assert len({s.revision for s in agent.instances.values()}) == 1
    assert deployments(world.controller)[0]["progress"] == ""


def test_cordoned_devices_get_nothing_new() -> None:
    world = World(deployment(replicas=1))
    world.agent("a", slots=2), world.agent("b", slots=1)
    operations = Operations(world.controller)
    operations.cordon("a", "slot-0", True)
    operations.cordon("b", None, True)
    world.run()
    assert world.controller.memory.assignments["chat-0"].devices == ("slot-1",)
    assert [n["cordoned"] for n in nodes(world.controller)] == [False, True]
    operations.cordon("b", None, False)
    assert [n["cordoned"] for n in nodes(world.controller)] == [False, False]


def test_a_lost_report_makes_central_ask_for_a_full_one() -> None:
    world = World(deployment(replicas=1))
    agent = world.agent()
    world.run()
    agent.sequence += 1
    assert agent.report() is False
    agent.sequence = 0
    assert agent.report(full=True) is True


def test_ready_to_dead_is_published_at_once_and_load_at_most_ten_times_a_second() -> None:
    world = World(deployment(replicas=1))
    agent, router = world.agent(), world.router()
    world.run()
    count = len(router.received)
    agent.instances["chat-0"] = replace(agent.instances["chat-0"], uptime_s=5.0, state=InstanceState.CRASHED)
    agent.report()
    world.controller.step()
    assert router.routable() == []
    assert len(router.received) == count + 1


def test_unknown_targets_name_what_is_near() -> None:
    world = World(deployment(replicas=1))
    world.agent()
    world.run()
    operations = Operations(world.controller)
    with pytest.raises(NotFound, match="did you mean chat"):
        operations.scale("chatt", 1, None)
    with pytest.raises(NotFound, match="did you mean chat-0"):
        operations.instance("chat-1", "stop", None)
    with pytest.raises(NotFound, match="no node named z"):
        operations.cordon("z", None, True)
    with pytest.raises(NotPossible, match="between 0"):
        operations.scale("chat", -1, None)


def test_a_stopped_instance_keeps_its_place_and_its_name() -> None:
    world = World(deployment(replicas=2))
    agent = world.agent(slots=4)
    world.run()
    Operations(world.controller).instance("chat-0", "stop", 0.0)
    world.run()
    assert world.controller.memory.assignments["chat-0"].run is RunState.STOPPED
    assert sorted(agent.instances) == ["chat-0", "chat-1"]


def test_an_agent_that_is_just_connecting_is_no_event() -> None:
    world = World(deployment(replicas=1), settle_s=0.0)
    world.run(2.0)
    world.agent()
    world.run()
    assert world.kinds("chat") == []


def test_a_lost_node_is_replaced_where_there_is_room_and_its_surplus_drains_when_it_returns() -> None:
    world = World(deployment(replicas=3))
    world.agent("a"), world.agent("b"), world.agent("c")
    router = world.router()
    world.run(8.0, router)
    gone = world.agents["c"]
    dead = {"c": 0.0}
    world.controller.dead_for = lambda node: dead.get(node)
    gone.disconnect()
    dead["c"] = 29.0
    world.run(10.0, router)
    assert len(world.agents["a"].instances) + len(world.agents["b"].instances) == 2
    dead["c"] = 31.0
    world.run(5.0, router)
    assert len(world.agents["a"].instances) + len(world.agents["b"].instances) == 3
    assert next(n["state"] for n in nodes(world.controller) if n["name"] == "c") == "lost"
    assert "node.lost" in world.kinds("c")
    assert len(gone.instances) == 1
    gone.connect()
    world.run(10.0, router)
    assert sum(len(agent.instances) for agent in world.agents.values()) == 3
    assert "node.back" in world.kinds("c")


def test_many_silent_nodes_at_once_are_not_believed() -> None:
    world = World(deployment(replicas=3))
    for name in "abc":
        world.agent(name)
    world.run()
    world.controller.dead_for = lambda node: 1000.0
    for name in "bc":
        world.agents[name].disconnect()
    world.run(20.0)
    assert sorted(world.agents["a"].instances) == ["chat-0"]


def test_a_more_important_deployment_gets_the_place_of_a_less_important_one() -> None:
    low = deployment("low", 2, min_residency_s=0.0)
    world = World(low)
    agent, router = world.agent(slots=2), world.router()
    world.run(8.0, router)
    world.controller.config = replace(world.config, deployments=(low, deployment("vip", 1, priority=5)))
    world.run(8.0, router)
    assert sorted(agent.instances) == ["low-0", "vip-0"]
    shown = {d["name"]: d for d in deployments(world.controller)}
    assert shown["low"]["cannot_place"][0]["reason"] == "no_free_device"
    world.run(30.0, router)
    assert sorted(agent.instances) == ["low-0", "vip-0"]


def test_a_revision_that_does_not_come_up_goes_back_and_is_not_retried() -> None:
    world = World(deployment(replicas=2))
    agent, router = world.agent(slots=3), world.router()
    world.run(8.0, router)
    before = {s.revision for s in agent.instances.values()}
    agent.starts_become = InstanceState.BACKOFF
    world.controller.config = replace(world.config, deployments=(deployment(replicas=2, args={"x": 1}),))
    world.run(3.0, router)
    broken = next(n for n, s in agent.instances.items() if s.revision not in before)
    agent.instances[broken] = replace(agent.instances[broken], restarts=3)
    world.run(20.0, router)
    assert {s.revision for s in agent.instances.values()} == before
    assert router.routable() == ["chat-0", "chat-1"]
    assert "deployment.rolled_back" in world.kinds("chat")
    agent.starts_become = InstanceState.READY
    world.controller.config = replace(world.config, deployments=(deployment(replicas=2, args={"x": 2}),))
    world.run(20.0, router)
    assert {s.revision for s in agent.instances.values()} != before
    assert len(router.routable()) == 2


def test_requests_need_not_wait_for_what_does_not_wake() -> None:
    world = World(deployment("some", 1), deployment("none", 0), deployment("held", 1))
    world.agent()
    router = world.router()
    Operations(world.controller).deployment("held", "stop", None)
    world.run(8.0, router)
    assert router.snapshot is not None
    assert {d.name: d.wakes for d in router.snapshot.deployments} == {
        "some": True,
        "none": False,
        "held": False,
    }
    Operations(world.controller).instance("some-0", "stop", 0.0)
    world.run(8.0, router)
    assert {d.name: (d.wakes, d.wanted) for d in router.snapshot.deployments}["some"] == (False, 0)


def test_a_restarted_central_waits_for_routers_to_come_back_before_it_ends_a_drain() -> None:
    world = World(deployment(replicas=2))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    router.leases = {agent.instances["chat-1"].incarnation: 1}
    router.report()
    Operations(world.controller).scale("chat", 1, None)
    world.run(5.0, router)
    world.restart()
    agent.connect()
    world.run(5.0)
    assert "chat-1" in agent.instances, "a router that has not dialled again yet may have a stream on it"
    world.controller.routers.connected(router.name, "0", router.take)
    world.run(20.0, router)
    assert "chat-1" in agent.instances
    router.leases = {}
    world.run(3.0, router)
    assert sorted(agent.instances) == ["chat-0"]


def test_what_a_gated_replica_waits_for_is_told_with_its_deployment() -> None:
    world = World(deployment(replicas=3))
    agent = world.agent(slots=3)
    agent.starts_become = InstanceState.STARTING
    world.run(30.0)
    turn = Reason(code=ReasonCode.AWAITING_START_SLOT, params={"limit": 1})
    for name in ("chat-1", "chat-2"):
        waiting = replace(agent.instances[name], state=InstanceState.GATED, reason=turn)
        agent.instances[name] = waiting
    agent.report()
    words = "waiting for its turn: this node starts 1 at a time"
    (shown,) = deployments(world.controller)
    assert shown["gated"] == [
        {"reason": "awaiting_start_slot", "message": words, "instances": ["chat-1", "chat-2"]}
    ]
    assert f"chat: 0 of 3 ready (2 not started: {words}; 1 starting)" in status(world.controller)["problems"]


def test_replicas_that_neither_serve_nor_start_are_told_by_their_state() -> None:
    world = World(deployment(replicas=3))
    agent = world.agent(slots=3)
    world.run(30.0)
    for name in ("chat-1", "chat-2"):
        agent.instances[name] = replace(agent.instances[name], state=InstanceState.BACKOFF)
    agent.report()
    assert "chat: 1 of 3 ready (2 backoff)" in status(world.controller)["problems"]


def test_how_a_replica_fails_is_told_with_its_deployment() -> None:
    world = World(deployment(replicas=2))
    agent = world.agent(slots=2)
    world.run(30.0)
    reason = Reason(code=ReasonCode.BACKOFF, params={"seconds": 12.0, "restarts": 3, "how": "exit code 1"})
    last = LastExit(code=1, cause=ExitCause.MODEL_ACCESS, detail="no such folder")
    agent.instances["chat-1"] = replace(
        agent.instances["chat-1"], state=InstanceState.BACKOFF, reason=reason, restarts=3, last_exit=last
    )
    agent.report()
    (shown,) = deployments(world.controller)
    why = "chat-1 crashed 3 times, last: model_access (no such folder); next try in 12 s"
    assert shown["failing"] == [
        {
            "instance": "chat-1",
            "restarts": 3,
            "cause": "model_access",
            "retry_s": 12.0,
            "message": why,
        }
    ]
    problem = "chat-1: backoff (model_access (no such folder); next try in 12 s)"
    assert problem in status(world.controller)["problems"]
    assert page_state(world.controller)["deployments"]["chat"]["failing"] == [why]
