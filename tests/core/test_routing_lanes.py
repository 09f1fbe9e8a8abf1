"""Lanes: which instances a deployment's requests may go to, and how long they wait."""

from random import Random

import pytest

from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.leases import Ledger
from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId
from supervisord_cp.model.fleet import RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.policy.scheduling import WaitingRequest

REQUEST = RoutingRequest(id="r", deployment=DeploymentName("d"), prompt_tokens=100)


def routed(number: int, **more: object) -> RoutedInstance:
    return RoutedInstance(  # type: ignore[arg-type]
        id=InstanceId(f"d-{number}"),
        deployment=DeploymentName("d"),
        incarnation=Incarnation(f"d-{number}.a"),
        url="http://x",
        **({"state": InstanceState.READY} | more),
    )


class Item:
    body_bytes = 1
    prompt_tokens = 1
    tokens = 1
    key = ""
    request = REQUEST
    waiting = WaitingRequest(request=REQUEST, arrived=0.0)


ITEM = Item()


def lane(
    *instances: RoutedInstance, ejected: tuple[str, ...] = (), **more: object
) -> tuple[Lane[Item], Ledger]:
    deployment = RoutedDeployment(name=DeploymentName("d"), names=("d",), **more)  # type: ignore[arg-type]
    line: WaitingLine[Item] = WaitingLine(most=10, most_bytes=10)
    made: Lane[Item] = Lane(deployment, Binder().bind(deployment, Random(1)), line, Random(1))
    ledger, ejections = Ledger(), Ejections()
    ledger.sync((instance, instance.max_concurrency) for instance in instances)
    for incarnation in ejected:
        ejections.eject(Incarnation(incarnation), 0.0)
    made.refresh(instances, ledger, ejections, 5.0)
    return made, ledger


def test_a_lane_chooses_among_those_with_room() -> None:
    made, _ = lane(routed(0, max_concurrency=1), routed(1, max_concurrency=1))
    first = made.choose(ITEM, 0.0)
    assert first is not None
    first.open(1, 1)
    second = made.choose(ITEM, 0.0)
    assert second is not None
    assert second is not first
    second.open(1, 1)
    assert made.choose(ITEM, 0.0) is None
    assert not made.has_room(0.0)
    assert made.reachable
    assert made.inflight == 2


def test_requests_in_flight_are_summed_up_over_time() -> None:
    made, _ = lane(routed(0))
    account = made.choose(ITEM, 0.0)
    assert account is not None
    made.look(10.0)
    leases = [account.open(1, 1), account.open(1, 1)]
    made.look(11.0)
    leases.pop().close()
    made.look(13.0)
    leases.pop().close()
    made.look(14.0)
    assert made.demand().inflight_s_total == 2 * 1.0 + 1 * 2.0


def test_ejected_ones_are_left_out_unless_all_are() -> None:
    made, _ = lane(routed(0), routed(1), ejected=("d-0.a",))
    assert {made.choose(ITEM, 0.0).incarnation for _ in range(20)} == {"d-1.a"}  # type: ignore[union-attr]
    made, _ = lane(routed(0), ejected=("d-0.a",))
    assert made.choose(ITEM, 0.0) is None
    assert made.choose(ITEM, 0.0, fail_open=True) is not None
    assert not made.reachable


@pytest.mark.parametrize(
    ("wanted", "states", "draining", "reason"),
    [
        (0, [], False, RejectReason.NO_CAPACITY),
        (1, [], False, RejectReason.WAKING),
        (0, [InstanceState.STARTING], False, RejectReason.WAKING),
        (0, [InstanceState.BACKOFF], False, RejectReason.WAKING),
        (0, [InstanceState.READY], True, RejectReason.DRAINING),
        (0, [InstanceState.STOPPING], False, RejectReason.DRAINING),
        (0, [InstanceState.STOPPED], False, RejectReason.NO_CAPACITY),
    ],
)
def test_why_nothing_serves(
    wanted: int, states: list[InstanceState], draining: bool, reason: RejectReason
) -> None:
    instances = [routed(n, state=state, draining=draining) for n, state in enumerate(states)]
    made, _ = lane(*instances, wanted=wanted)
    assert made.absence() is reason


def test_waiting_is_estimated_from_what_requests_take() -> None:
    made, _ = lane(routed(0, max_concurrency=4))
    made.work.seconds = 8.0
    assert made.estimated_wait_s(0.0) == pytest.approx(2.0)
    for _ in range(3):
        made.wait(Item(), 0.0)
    assert made.estimated_wait_s(0.0) == pytest.approx(8.0)
    assert made.retry_after_s(0.0) == 8
    made, _ = lane(start_estimate_s=40.5)
    assert (made.estimated_wait_s(0.0), made.retry_after_s(0.0)) == (40.5, 41)
    made, _ = lane()
    assert (made.estimated_wait_s(0.0), made.retry_after_s(0.0)) == (None, 5)


def test_a_lane_knows_when_waiting_changed_its_meaning() -> None:
    made, ledger = lane()
    assert made.changed_at == 0.0
    ledger.sync([(routed(0), 0)])
    made.refresh([routed(0)], ledger, Ejections(), 9.0)
    assert made.changed_at == 9.0
    made.refresh([routed(0)], ledger, Ejections(), 10.0)
    assert made.changed_at == 9.0


def test_pinned_work_goes_to_draining_ones_too() -> None:
    made, _ = lane(routed(0, draining=True), routed(1, state=InstanceState.STOPPED))
    assert made.pinned(Incarnation("d-0.a")) is not None
    assert made.pinned(Incarnation("d-1.a")) is None
    assert made.pinned(Incarnation("d-9.a")) is None


def test_hopeless_is_when_nothing_can_come() -> None:
    assert lane(wanted=0, wakes=False)[0].hopeless
    assert not lane(wanted=0)[0].hopeless
    assert not lane(wanted=1, wakes=False)[0].hopeless
    assert not lane(routed(0, state=InstanceState.STARTING), wanted=0, wakes=False)[0].hopeless


def test_an_engines_load_reaches_the_candidates() -> None:
    _, ledger = lane(routed(0, load=EngineLoad(running=3, waiting=4)))
    account = ledger.get(Incarnation("d-0.a"))
    assert account is not None
    assert account.candidate.foreign == 7
