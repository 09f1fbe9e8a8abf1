"""From registered instances to a snapshot."""

from typing import Any

import pytest
from msgspec.structs import replace

from supervisord_cp.model.fleet import PolicyUse, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.plugin_host.registry import Registry
from supervisord_cp.prober.prober import Probe, routed
from supervisord_cp.sdk.fleet import HERE, Incarnations, node_of, snapshot, static_config
from supervisord_cp.sdk.policies import Policies
from supervisord_cp.sdk.types import ExecutionInstance

POLICIES = Policies(
    scheduler=PolicyUse(use="priority"), router=(PolicyUse(use="random"),), registry=Registry()
)


def instance(name: str = "a", model: str = "m", **more: Any) -> ExecutionInstance:
    return ExecutionInstance(name, more.pop("host", "h"), more.pop("port", 8000), model, **more)


def probed(one: ExecutionInstance, started: str = "") -> RoutedInstance:
    return routed(static_config(one), Probe(state=InstanceState.READY, started=started))


def test_a_deployment_for_each_model() -> None:
    instances = {one.instance_id: one for one in (instance("a"), instance("b", "n"), instance("c"))}
    view = snapshot(3, instances, [probed(one) for one in instances.values()], Incarnations(), POLICIES)
    assert view.version == 3
    assert [(d.name, d.names) for d in view.deployments] == [("m", ("m",)), ("n", ("n",))]
    assert {(d.scheduler.use, d.router[0].use) for d in view.deployments} == {("priority", "random")}
    assert [(i.id, i.deployment) for i in view.parts[0].instances] == [("a", "m"), ("b", "n"), ("c", "m")]


def test_an_instance_with_all_that_is_known_of_it() -> None:
    one = instance(
        host="10.0.0.1",
        tensor_parallel_size=4,
        max_concurrent_requests=7,
        weight=2.0,
        cost_per_gpu_hour=3.5,
        zone="rack",
    )
    view = snapshot(1, {"a": one}, [probed(one)], Incarnations(), POLICIES)
    (found,) = view.parts[0].instances
    assert (found.url, found.node, found.zone) == ("http://10.0.0.1:8000", "10.0.0.1", "rack")
    assert (found.gpus, found.max_concurrency, found.weight, found.cost_per_hour) == (4, 7, 2.0, 14.0)


def test_what_is_unregistered_is_not_in_it_though_it_is_still_probed() -> None:
    one, other = instance("a"), instance("b")
    view = snapshot(1, {"a": one}, [probed(one), probed(other)], Incarnations(), POLICIES)
    assert [i.id for i in view.parts[0].instances] == ["a"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_this_machine(host: str) -> None:
    assert node_of(host) == HERE


@pytest.mark.parametrize("host", ["192.168.1.100", "gpu-a", "fe80::1"])
def test_other_machines(host: str) -> None:
    assert node_of(host) == host


def test_a_start_time_that_becomes_known_is_no_restart() -> None:
    known = Incarnations()
    first = known.of(probed(instance()))
    assert known.of(probed(instance(), "17.5")) == first
    assert known.of(probed(instance(), "17.5")) == first


def test_a_restart_is_another_incarnation() -> None:
    known = Incarnations()
    first = known.of(probed(instance(), "17.5"))
    second = known.of(probed(instance(), "19"))
    assert first != second
    assert known.of(probed(instance(), "19")) == second


def test_another_address_is_another_incarnation() -> None:
    known = Incarnations()
    first = known.of(probed(instance(port=8000)))
    assert known.of(probed(instance(port=8001))) != first


def test_an_instance_that_comes_back_is_another_incarnation() -> None:
    known = Incarnations()
    first = known.of(probed(instance()))
    known.keep([])
    known.keep([])
    second = known.of(probed(instance()))
    assert second != first
    known.keep(["a"])
    assert known.of(probed(instance())) == second


def test_ids_with_dots_do_not_mix() -> None:
    known = Incarnations()
    ones = [probed(instance("a")), probed(instance("a.b"))]
    assert len({known.of(one) for one in ones}) == 2
    assert known.of(replace(ones[1])) == known.of(ones[1])
