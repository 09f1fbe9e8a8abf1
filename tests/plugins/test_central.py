"""Central's side: scalers of plugins are asked behind a guard, and everything is listed in one place."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisord_cp.central.links import CallFailed
from supervisord_cp.central.policies import CentralPolicies, ask_routers
from supervisord_cp.config.schema import AutoscaleConfig, Config, DeploymentConfig
from supervisord_cp.core.scaling.scalers import ask, bind
from supervisord_cp.model.event import Event
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.router import PolicyHealth, RouterReport, ShadowCount
from supervisord_cp.policy.declare import PolicySpec
from supervisord_cp.policy.testing import scale_view
from tests.plugins.files import HEAD, likes, write
from tests.waiting import until

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("tried")]


def scaler(body: str, *, memory: bool = False) -> str:
    extra = "class M(Value, frozen=True, kw_only=True):\n    seen: int = 0\n" if memory else ""
    arguments, given = (", memory=M", ", memory") if memory else ("", "")
    head = "from supervisord_cp.policy import ScaleProposal\n"
    return f"{HEAD}{head}{extra}@scaler('mine'{arguments})\ndef mine(view{given}):\n    {body}\n"


def proposes(replicas: object) -> str:
    return scaler(f"return ScaleProposal(policy='mine', replicas={replicas})")


def config(*uses: str, router: str = "load_balanced", shadow: str = "") -> Config:
    scale = AutoscaleConfig(max=9, scalers=tuple(PolicyUse(use=use) for use in uses))
    chat = DeploymentConfig(name="chat", autoscale=scale, router=(PolicyUse(use=router),), shadow=shadow)
    return Config(deployments=(chat,))


class Stand:
    """Central's policies over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: Mapping[str, PolicySpec] = {}
        self.events: list[Event] = []
        self.now = 0.0
        self.policies = CentralPolicies(
            [folder], use=self.use, tell=self.events.append, clock=lambda: self.now
        )

    def use(self, known: Mapping[str, PolicySpec]) -> None:
        self.known = known

    async def load(self, text: str, *uses: str) -> None:
        write(self.folder, "mine.py", text)
        await self.policies.refresh(config(*(uses or ("mine",))))

    def ask(self, memory: object = None, **view: Any) -> Any:
        return ask(bind(PolicyUse(use="mine"), self.known), scale_view(**view), memory)

    def row(self, name: str = "mine", *reports: RouterReport, **fields: Any) -> dict[str, Any]:
        rows = self.policies.listing(config("mine", **fields), reports)
        return next(row for row in rows if row["name"] == name)


@pytest_asyncio.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.policies._watch.disarm()


async def test_a_scaler_of_a_plugin_is_asked(stand: Stand) -> None:
    await stand.load(proposes(3.0))
    assert stand.ask().proposal.replicas == 3.0
    await stand.load(proposes(5.0))
    assert stand.ask().proposal.replicas == 5.0


async def test_its_memory_is_kept_for_it(stand: Stand) -> None:
    body = "return ScaleProposal(policy='mine', replicas=float(memory.seen)), M(seen=memory.seen + 1)"
    await stand.load(scaler(body, memory=True))
    answer = stand.ask()
    assert answer.memory == {"seen": 1}
    assert stand.ask(answer.memory).proposal.replicas == 1.0


@pytest.mark.parametrize(
    "fault",
    ["raise RuntimeError", "return 3", "while True: pass", "return ScaleProposal(policy='', replicas=-1)"],
)
async def test_one_that_misbehaves_proposes_nothing_and_is_left_alone(stand: Stand, fault: str) -> None:
    good = "return ScaleProposal(policy='mine', replicas=3.0)"
    await stand.load(scaler(f"if view.configured == 7:\n        {fault}\n    {good}"))
    assert stand.ask().proposal.replicas == 3.0
    for _ in range(5):
        answer = stand.ask(configured=7)
        assert answer.proposal.replicas is None
        assert answer.failed
    row = stand.row()
    assert (row["breaker_open"], row["failures"] > 0, bool(row["problem"])) == (True, True, True)
    assert stand.ask().proposal.replicas is None, "it is left alone"
    stand.now += 1000.0
    assert stand.ask().proposal.replicas == 3.0
    assert stand.row()["breaker_open"] is False
    kinds = [event.kind for event in stand.events]
    assert kinds == ["policy.loaded", "policy.breaker_open", "policy.breaker_closed"]


async def test_what_it_does_to_its_view_stays_with_it(stand: Stand) -> None:
    body = "if view.configured == 7:\n        view.signals.clear()\n    "
    await stand.load(scaler(f"{body}return ScaleProposal(policy='mine', replicas=1.0)"))
    view = scale_view(configured=7, signals={"queued": 3.0})
    assert ask(bind(PolicyUse(use="mine"), stand.known), view).proposal.replicas == 1.0
    assert view.signal("queued").value == 3.0


async def test_a_bad_version_is_told_and_the_old_one_stays(stand: Stand) -> None:
    await stand.load(proposes(3.0))
    await stand.load(proposes("'x'"))
    assert stand.ask().proposal.replicas == 3.0
    assert "proposed 'x' replicas" in stand.row()["problem"]
    assert [event.kind for event in stand.events] == ["policy.loaded", "policy.rejected"]
    (told,) = await stand.policies.refresh(config("mine"), again=True)
    assert told.startswith("mine: ")


async def test_changes_are_noticed(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_cp.central.policies.POLL_S", 0.02)
    running = asyncio.create_task(stand.policies.run(lambda: config("mine")))
    try:
        write(stand.folder, "mine.py", proposes(3.0))
        await until(lambda: "mine" in stand.known)
        write(stand.folder, "mine.py", proposes(4.0))
        await until(lambda: stand.ask().proposal.replicas == 4.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_list_has_what_routers_say(stand: Stand) -> None:
    write(stand.folder, "mine.py", likes("mine", 0))
    await stand.policies.refresh(config())
    reports = [
        RouterReport(
            router=f"r{n}",
            policies=(
                PolicyHealth(
                    policy="mine", version="abc", calls=10, failures=n, open=n == 1, problem="p" * n
                ),
            ),
            shadows=(ShadowCount(deployment="chat", policy="random", decisions=5, agreed=n),),  # type: ignore[arg-type]
        )
        for n in range(2)
    ]
    row = stand.row("mine", *reports, router="mine", shadow="random")
    assert (row["kind"], row["origin"], row["where"]) == ("scorer", "file", str(stand.folder / "mine.py"))
    assert (row["calls"], row["failures"], row["breaker_open"], row["problem"]) == (20, 1, True, "p")
    assert (row["version"], row["used_by"]) == ("abc", ["chat"])
    shadow = stand.row("random", *reports, router="mine", shadow="random")
    assert shadow["shadow"] == [
        {"deployment": "chat", "decisions": 5, "agreed": 0},
        {"deployment": "chat", "decisions": 5, "agreed": 1},
    ]
    assert stand.row("prefix")["kind"] == "preset"


async def test_steps_of_a_preset_are_in_use(stand: Stand) -> None:
    await stand.policies.refresh(config())
    for name in ("prefix", "within_load", "prefix_match"):
        assert stand.row(name, router="prefix")["used_by"] == ["chat"]
    assert stand.row("rendezvous", router="prefix")["used_by"] == []


async def test_the_list_has_names_without_a_policy_and_files_without_a_name(stand: Stand) -> None:
    write(stand.folder, "broken.py", "def f(:\n")
    await stand.policies.refresh(config())
    assert stand.row("nope", router="nope")["problem"] == "there is no policy of this name"
    assert str(stand.folder / "broken.py:1:7") in stand.row("")["problem"]


class Router:
    """A router that answers."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def call(self, method: str, params: dict[str, Any]) -> AsyncIterator[str]:
        if not self.answer:
            raise CallFailed(f"a router knows no method {method}")
        yield self.answer[:3]
        yield self.answer[3:]


async def test_routers_are_asked_and_each_says_what_is_wrong() -> None:
    routers: Any = {"new": Router('["mine: bad"]'), "old": Router(""), "odd": Router("{]")}
    answers = await ask_routers(routers, "policies.reload")
    assert answers["new"] == ["mine: bad"]
    assert answers["old"] == {"error": "a router knows no method policies.reload"}
    assert "error" in answers["odd"]


async def test_calls_of_our_own_scalers_and_placers_are_counted(stand: Stand) -> None:
    await stand.policies.refresh(config("fixed"))
    assert ask(bind(PolicyUse(use="fixed"), stand.known), scale_view(configured=2)).proposal.replicas == 2.0
    with pytest.raises(AttributeError):
        stand.known["spread"].target(None)
    row = stand.row("fixed")
    assert (row["calls"], row["failures"]) == (1, 0)
    assert [stand.row("spread")[key] for key in ("calls", "failures", "breaker_open")] == [1, 1, False]
    assert stand.policies.figures()["fixed"].calls == 1
