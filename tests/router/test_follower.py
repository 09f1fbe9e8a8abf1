"""Following central: what comes in is applied, what is applied is said, and without central all goes on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from supervisord_cp.core.routing.continuity import with_carried
from supervisord_cp.core.routing.lane_policies import LanePolicies
from supervisord_cp.model.base import DeploymentName, NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance, diff
from supervisord_cp.model.signal import NamedResult, SignalSource, SignalState, measured
from supervisord_cp.policy.context import QueueContext
from supervisord_cp.router.follower import Follower
from supervisord_cp.router.memory import Memory, Remembered
from supervisord_cp.wire import messages as m
from tests.core.policies_kit import Bench, Item
from tests.router.central_kit import Central
from tests.router.kit import Rig, deployment, instance, says, streams
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}
CHAT_NAME = DeploymentName("chat")
Follow = Callable[..., Follower]


@pytest_asyncio.fixture
async def central() -> AsyncIterator[Central]:
    made = Central()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def follow(router: Rig, central: Central) -> AsyncIterator[Follow]:
    tasks: list[asyncio.Task[None]] = []

    def start(**more: object) -> Follower:
        follower = Follower(
            router.dispatcher,
            router_id="r1",
            central=central.url,
            token_file=more.pop("token_file", None),  # type: ignore[arg-type]
            api_url="http://here",
            metrics=lambda: "some 1\n",
            **more,  # type: ignore[arg-type]
        )
        router.released = lambda account: follower.report_soon()  # type: ignore[method-assign]
        tasks.append(asyncio.create_task(follower.run()))
        return follower

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def snapshot(
    version: int,
    *instances: RoutedInstance,
    epoch: str = "e1",
    node: str = "n",
    names: tuple[str, ...] = ("chat",),
) -> FleetSnapshot:
    return FleetSnapshot(
        epoch=epoch,
        version=version,
        deployments=tuple(deployment(name) for name in names),
        parts=(FleetPart(node=NodeName(node), instances=instances),),
    )


async def test_a_snapshot_is_applied_and_acknowledged(router: Rig, central: Central, follow: Follow) -> None:
    engine = await router.engine()
    follow()
    first = snapshot(1, instance(engine))
    await central.send(m.Snapshot(snapshot=first))
    report = await central.applied(first)
    assert (report.router, report.api_url) == ("r1", "http://here")
    hello = central.heard[0]
    assert isinstance(hello, m.Hello)
    assert (hello.name, bool(hello.session)) == ("r1", True)
    assert (await router.ask(CHAT)).status == 200


async def test_deltas_follow_and_a_gap_asks_for_everything(
    router: Rig, central: Central, follow: Follow
) -> None:
    old, new = await router.engine(says({"n": "old"})), await router.engine(says({"n": "new"}))
    follow()
    first, second, third = (
        snapshot(1, instance(old)),
        snapshot(2, instance(old), instance(new, 1)),
        snapshot(3, instance(new, 1)),
    )
    await central.send(m.Snapshot(snapshot=first))
    await central.send(m.Delta(delta=diff(first, second)))
    await central.applied(second)
    lost = snapshot(7)
    await central.send(m.Delta(delta=diff(lost, snapshot(8))))
    await central.send(m.Delta(delta=diff(lost, snapshot(9))))
    await until(lambda: any(isinstance(message, m.Resync) for message in central.heard))
    await central.send(m.Snapshot(snapshot=third))
    await central.applied(third)
    assert sum(isinstance(message, m.Resync) for message in central.heard) == 1
    assert (await router.ask(CHAT)).json() == {"n": "new"}


async def test_a_view_that_cannot_be_read_is_asked_for_until_it_can(
    router: Rig, central: Central, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_cp.router.whole_view.AGAIN_AFTER_S", 0.01)
    monkeypatch.setattr("supervisord_cp.router.follower.REPORT_EVERY_S", 0.01)
    engine = await router.engine()
    follow()
    first, second = snapshot(1, instance(engine)), snapshot(2, instance(engine))
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)

    def asked() -> int:
        return sum(isinstance(message, m.Resync) for message in central.heard)

    for times in (1, 2, 3):
        await central.send_text('{"t": "snapshot", "snapshot": {"epoch": 7}}')
        await until(lambda times=times: asked() >= times)
    assert (await router.ask(CHAT)).status == 200, "the last good view is in use"
    await central.send(m.Snapshot(snapshot=second))
    await central.applied(second)
    told = [event for message in central.heard if isinstance(message, m.Events) for event in message.events]
    assert [(event.kind, event.severity) for event in told] == [
        ("router.view", "error"),
        ("router.view", "info"),
    ]
    assert "going on with the last good one (version 1)" in told[0].message


async def test_a_message_of_a_newer_central_is_no_gap_in_the_view(
    router: Rig, central: Central, follow: Follow
) -> None:
    follow()
    await central.send_text('{"t": "a later invention"}')
    first = snapshot(1)
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)
    assert not any(isinstance(message, m.Resync | m.Events) for message in central.heard)


async def test_leases_and_demand_are_told_and_the_last_one_of_a_draining_instance_at_once(
    router: Rig, central: Central, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    engine = await router.engine(streams("a", "b", gate=gate))
    follow()
    await central.send(m.Snapshot(snapshot=snapshot(1, instance(engine))))
    await until(lambda: router.dispatcher.fleet.known)
    client = await router.client()
    client.post(CHAT)
    await client.head()
    draining = snapshot(2, instance(engine, draining=True))
    await central.send(m.Snapshot(snapshot=draining))
    report = await central.applied(draining)
    assert [(lease.incarnation, lease.requests) for lease in report.leases] == [("chat-0.a", 1)]
    assert report.demand[0].inflight == 1
    monkeypatch.setattr("supervisord_cp.router.follower.REPORT_EVERY_S", 3600.0)
    before = len(central.reports)
    await until(lambda: len(central.reports) > before)  # the sleep that was under way has ended
    told = len(central.reports)
    gate.set()
    while await client.chunk():
        pass
    await until(lambda: len(central.reports) > told)
    assert central.reports[-1].leases == ()


async def test_metrics_are_told_when_asked(router: Rig, central: Central, follow: Follow) -> None:
    follow()
    await central.send(m.Call(id=7, method="metrics"))
    await central.send(m.Call(id=8, method="dance"))
    await until(lambda: sum(isinstance(x, m.CallChunk) and x.done for x in central.heard) == 2)
    chunks = [x for x in central.heard if isinstance(x, m.CallChunk)]
    assert "".join(chunk.data for chunk in chunks if chunk.id == 7) == "some 1\n"
    assert any("dance" in chunk.error for chunk in chunks if chunk.id == 8)


async def test_where_a_request_went_is_told_when_asked(router: Rig, central: Central, follow: Follow) -> None:
    engines = [await router.engine() for _ in range(2)]
    router.serve(*(instance(engine, number) for number, engine in enumerate(engines)))
    answer = await router.ask(CHAT, headers="x-request-id: mine\r\n")
    follow()
    await central.send(m.Call(id=7, method="requests.explain", params={"request": "mine"}))
    await until(lambda: any(isinstance(x, m.CallChunk) and x.done for x in central.heard))
    told = "".join(chunk.data for chunk in central.heard if isinstance(chunk, m.CallChunk))
    (decision,) = json.loads(told)
    assert decision["pick"] == answer.headers["x-supervisord-cp-instance"]
    assert decision["policy"] == "load_balanced"
    assert decision["scores"].keys() == {"chat-0", "chat-1"}


async def test_named_results_reach_policies_and_grow_older(
    router: Rig, central: Central, follow: Follow
) -> None:
    follow()
    first = snapshot(1)
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)
    fleet, told = router.dispatcher.fleet, measured(3.0, age_s=2.0, source=SignalSource.PROMETHEUS)
    await central.send(m.Queries(results={"depth": NamedResult(total=told)}))
    await until(lambda: fleet.lanes[CHAT_NAME].queries.results)
    at = fleet.lanes[CHAT_NAME].queries.at
    contexts: list[QueueContext[None]] = []

    def note(_: object, context: QueueContext[None]) -> float:
        contexts.append(context)
        return 0.0

    lane = fleet.lanes[CHAT_NAME]
    lane.use(LanePolicies(router=lane.policies.router, scheduler=Bench().scheduling(note)), at)
    for now in (at + 5.0, at + 60.0):
        item: Any = Item()
        lane.wait(item, now)
        lane.line.remove(item)
    signal = contexts[0].query("depth")
    assert (signal.value, signal.age_s, signal.source) == (3.0, 7.0, SignalSource.PROMETHEUS)
    assert contexts[-1].query("depth").state is SignalState.STALE
    assert contexts[0].query("nope").state is SignalState.MISSING

    second = snapshot(2, names=("chat", "later"))
    await central.send(m.Delta(delta=diff(first, second)))
    await central.applied(second)
    assert fleet.lanes[DeploymentName("later")].queries.at == at, "a lane that comes later has them, too"


async def test_central_may_go_and_come_back(router: Rig, central: Central, follow: Follow) -> None:
    engine = await router.engine()
    follow()
    first = snapshot(1, instance(engine))
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)
    await central.stop()
    for _ in range(5):
        assert (await router.ask(CHAT)).status == 200
    central.heard.clear()
    await central.start()
    await until(lambda: central.reports, "the router dials again and reports at once")
    assert central.reports[0].version == 1


async def test_a_new_central_that_knows_nothing_yet_removes_nothing(
    router: Rig, central: Central, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await router.engine()
    follow()
    await central.send(m.EngineKeys(keys={"chat-0.a": "sk-1"}))  # type: ignore[dict-item]
    await central.send(m.Snapshot(snapshot=snapshot(5, instance(engine))))
    await until(lambda: router.dispatcher.fleet.known)
    await central.send(m.EngineKeys(keys={"chat-0.a": "sk-1"}))  # type: ignore[dict-item]
    monkeypatch.setattr("supervisord_cp.router.follower.CARRY_S", 0.7)
    await central.send(m.EngineKeys(keys={}))
    empty = snapshot(1, epoch="e2")
    await central.send(m.Snapshot(snapshot=empty))
    await central.applied(empty)
    assert (await router.ask(CHAT)).status == 200
    assert engine.asked[-1].headers["authorization"] == "Bearer sk-1"
    await until(lambda: not router.lane().reachable, "what nobody speaks of is let go in the end")


async def test_a_mistake_in_following_ends_nothing(
    router: Rig, central: Central, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_cp.router.follower.AGAIN_AFTER_S", 0.01)
    engine = await router.engine()
    follow()
    first, second = snapshot(1, instance(engine)), snapshot(2, instance(engine))
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)

    def broken(whole: FleetSnapshot, carried: Sequence[FleetPart]) -> FleetSnapshot:
        monkeypatch.setattr("supervisord_cp.router.follower.with_carried", with_carried)
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("supervisord_cp.router.follower.with_carried", broken)
    central.on_connect = [m.Snapshot(snapshot=second)]
    await central.send(m.Snapshot(snapshot=second))
    await central.applied(second)
    assert (await router.ask(CHAT)).status == 200


async def test_the_token_is_read_for_each_dial(
    router: Rig, central: Central, follow: Follow, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("agent: s3cret\n")
    token.chmod(0o600)
    follow(token_file=token)
    await until(lambda: central.tokens == ["Bearer s3cret"])


async def test_the_fleet_is_remembered_over_a_restart(
    router: Rig, central: Central, follow: Follow, tmp_path: Path
) -> None:
    engine = await router.engine()
    memory = Memory(tmp_path / "router" / "fleet.json")
    assert memory.recall() is None
    follower = follow(on_change=memory.changed)
    writing = asyncio.create_task(memory.run(follower.remembered))
    await central.send(m.EngineKeys(keys={}))
    await central.send(m.Snapshot(snapshot=snapshot(4, instance(engine))))
    await central.send(m.EngineKeys(keys={"chat-0.a": "sk-1"}))  # type: ignore[dict-item]
    path = tmp_path / "router" / "fleet.json"
    await until(lambda: path.exists() and b"sk-1" in path.read_bytes())
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    assert path.stat().st_mode & 0o777 == 0o600
    remembered = Memory(path).recall()
    assert remembered is not None
    assert remembered.keys == {"chat-0.a": "sk-1"}
    assert remembered.snapshot.parts[0].instances[0].url == engine.url
    assert list(path.parent.iterdir()) == [path]


async def test_what_cannot_be_remembered_is_left_alone(tmp_path: Path) -> None:
    broken = tmp_path / "fleet.json"
    broken.write_text("{")
    assert Memory(broken).recall() is None
    nowhere = Memory(tmp_path / "no" / "such" / "fleet.json")
    nowhere.changed()
    async with asyncio.timeout(PATIENCE_S):
        await nowhere.run(lambda: Remembered(snapshot=snapshot(1)))  # gives up, quietly


async def test_a_router_starts_with_what_is_remembered(router: Rig, central: Central, follow: Follow) -> None:
    engine = await router.engine()
    await central.stop()
    follower = follow()
    follower.recall(Remembered(snapshot=snapshot(3, instance(engine)), keys={"chat-0.a": "sk-2"}))  # type: ignore[dict-item]
    assert (await router.ask(CHAT)).status == 200
    assert engine.asked[0].headers["authorization"] == "Bearer sk-2"


async def test_a_view_that_cannot_be_applied_changes_nothing(
    router: Rig, central: Central, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await router.engine(says({"n": "old"})), await router.engine(says({"n": "new"}))
    follow()
    first, second = snapshot(1, instance(old)), snapshot(2, instance(new, 1), names=("chat", "later"))
    await central.send(m.Snapshot(snapshot=first))
    await central.applied(first)
    bind = router.dispatcher.fleet.binder.bind

    def confused(routed: RoutedDeployment, rng: Random) -> LanePolicies:
        if routed.name == "later":
            raise KeyError("later")
        return bind(routed, rng)

    monkeypatch.setattr(router.dispatcher.fleet.binder, "bind", confused)
    greeted = sum(isinstance(message, m.Hello) for message in central.heard)
    await central.send(m.Delta(delta=diff(first, second)))
    await until(lambda: sum(isinstance(message, m.Hello) for message in central.heard) > greeted)
    assert (await router.ask(CHAT)).json() == {"n": "old"}
    await until(lambda: central.followers == 1)
    reported = len(central.reports)
    await until(lambda: len(central.reports) > reported)
    assert central.reports[-1].version == first.version
    monkeypatch.undo()
    await central.send(m.Snapshot(snapshot=second))
    await central.applied(second)
    assert (await router.ask(CHAT)).json() == {"n": "new"}
