"""Scalers and placers of plugins: named by the configuration, guarded, listed, healed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisord_cp.builtin.placers.pack import pack
from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.central.policies import CentralPolicies
from supervisord_cp.central.views import deployments
from supervisord_cp.config.schema import AutoscaleConfig, BehaviorConfig, DeploymentConfig, ScalingRules
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.policy.testing import assert_conforms, place_view
from tests.central.fleet import World, deployment
from tests.plugins.files import HEAD, write

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("tried")]

LAST_NODE = f"""\
{HEAD}
class Params(Value, frozen=True, kw_only=True):
    node: str = "node-0"


@placer("mine", params=Params)
def mine(view, params):
    FAULT
    return next((room.node for room in view.nodes if room.node == params.node), view.nodes[0].node)
"""
HARMLESS = "pass"
HERE = "not view.nodes[0].node.startswith('node-')"
"""It behaves while it is tried out."""
PLACER_FAULTS = {
    "raises": "raise RuntimeError",
    "nonsense": "return 'nowhere'",
    "loops": "while True: pass",
    "changes": "view.nodes = ()",
    "ends": "raise SystemExit(1)",
}
MINE = PolicyUse(use="mine", params={"node": "c"})


class Central(World):
    """A world whose central looks for policies in a folder."""

    def __init__(self, folder: Path, *deployments: DeploymentConfig) -> None:
        super().__init__(*deployments)
        self.folder = folder
        self.policies = CentralPolicies(
            [folder],
            use=self.controller.use_policies,
            tell=self.controller.events.add,
            clock=self.clock.now,
        )

    async def file(self, text: str | None) -> None:
        """Put the policy there; None: remove it."""
        if text is None:
            (self.folder / "mine.py").unlink()
        else:
            write(self.folder, "mine.py", text)
        await self.policies.refresh(self.config)

    def row(self) -> dict[str, Any]:
        rows = self.policies.listing(self.config, ())
        return next(row for row in rows if row["name"] == "mine")

    def told(self) -> list[str]:
        return [kind for kind in self.kinds("mine") if kind.startswith("policy.")]


@pytest_asyncio.fixture
async def stop() -> AsyncIterator[list[Central]]:
    made: list[Central] = []
    yield made
    for central in made:
        central.policies._watch.disarm()


# --- built in


async def test_pack_fills_a_node_before_the_next() -> None:
    world = World(deployment(replicas=3, placer=PolicyUse(use="pack")))
    a, b = world.agent("a", slots=4), world.agent("b", slots=3)
    world.run()
    assert (sorted(a.instances), sorted(b.instances)) == ([], ["chat-0", "chat-1", "chat-2"])


async def test_each_deployment_has_its_own() -> None:
    world = World(deployment("one", replicas=2, placer=PolicyUse(use="pack")), deployment("two", replicas=2))
    a, b = world.agent("a"), world.agent("b")
    world.run()
    assert sorted(a.instances) == ["one-0", "one-1", "two-1"]
    assert sorted(b.instances) == ["two-0"]


@pytest.mark.parametrize("policy", [pack, spread])
async def test_they_conform(policy: Any) -> None:
    assert_conforms(policy)


async def test_pack_keeps_room_for_replicas_of_many_devices() -> None:
    assert pack(place_view(8, 2, 3)) == "node-1"
    assert pack(place_view(2, 2)) == "node-0", "equal ones by name"


# --- of plugins


async def test_a_placer_of_a_plugin_chooses_with_its_parameters(tmp_path: Path, stop: list[Central]) -> None:
    world = Central(tmp_path, deployment(replicas=2, placer=MINE))
    stop.append(world)
    await world.file(LAST_NODE.replace("FAULT", HARMLESS))
    nodes = [world.agent(name) for name in "abc"]
    world.run()
    assert [len(node.instances) for node in nodes] == [0, 0, 2]
    row = world.row()
    assert (row["kind"], row["used_by"], row["problem"]) == ("placer", ["chat"], "")
    assert (row["calls"], row["failures"]) == (2, 0)


@pytest.mark.parametrize("what", PLACER_FAULTS)
async def test_one_that_misbehaves_leaves_no_replica_without_a_place(
    tmp_path: Path, stop: list[Central], what: str
) -> None:
    world = Central(tmp_path, deployment(replicas=8, placer=MINE))
    stop.append(world)
    await world.file(LAST_NODE.replace("FAULT", f"if {HERE}:\n        {PLACER_FAULTS[what]}"))
    nodes = [world.agent(name) for name in "abc"]
    world.run()
    assert sum(len(node.instances) for node in nodes) == 8
    assert max(len(node.instances) for node in nodes) == 3, "spread places in its stead"
    row = world.row()
    assert (row["breaker_open"], row["failures"] > 0) == (True, True)
    assert row["problem"]
    assert world.told() == ["policy.loaded", "policy.breaker_open"]

    await world.file(None)
    assert world.told()[2:] == ["policy.gone"]
    assert world.policies.figures()["mine"].open == 0
    assert world.row()["problem"] == "there is no policy of this name"
    await world.file(LAST_NODE.replace("FAULT", HARMLESS))
    assert (world.row()["breaker_open"], world.row()["problem"]) == (False, "")
    assert world.told()[3:] == ["policy.loaded"]


async def test_without_its_file_spread_places(tmp_path: Path, stop: list[Central]) -> None:
    world = Central(tmp_path, deployment(replicas=3, placer=MINE))
    stop.append(world)
    await world.policies.refresh(world.config)
    nodes = [world.agent(name) for name in "abc"]
    world.run()
    assert [len(node.instances) for node in nodes] == [1, 1, 1]
    assert world.row()["problem"] == "there is no policy of this name"


def scaler(body: str) -> str:
    head = f"{HEAD}from supervisord_cp.policy import ScaleProposal\n"
    return f"{head}@scaler('mine')\ndef mine(view):\n    {body}\n"


def proposes(replicas: object) -> str:
    return f"return ScaleProposal(policy='mine', replicas={replicas})"


def scaled() -> DeploymentConfig:
    at_once = BehaviorConfig(scale_down=ScalingRules(stabilization_window_s=0.0))
    scale = AutoscaleConfig(min=1, max=9, scalers=(PolicyUse(use="mine"),), behavior=at_once)
    return deployment(replicas=1, autoscale=scale, min_residency_s=0.0)


SCALER_FAULTS = {
    "raises": "raise RuntimeError('broken')",
    "nonsense": "return 3",
    "loops": "while True: pass",
    "ends": "raise SystemExit(1)",
    "changes": "view.signals.clear(); view.ready = 9",
}


@pytest.mark.parametrize("what", SCALER_FAULTS)
async def test_a_scaler_from_the_file_to_the_replicas_and_back(
    tmp_path: Path, stop: list[Central], what: str
) -> None:
    world = Central(tmp_path, scaled())
    stop.append(world)
    agent, router = world.agent(slots=9), world.router()
    await world.policies.refresh(world.config)
    world.run(8.0, router)
    assert len(agent.instances) == 1
    assert "mine" in deployments(world.controller)[0]["message"], "it says what it waits for"

    await world.file(scaler(proposes(3)))
    world.run(8.0, router)
    assert len(agent.instances) == 3
    assert deployments(world.controller)[0]["scaler"] == "mine"

    await world.file(scaler(f"if view.bounds.max == 9:\n        {SCALER_FAULTS[what]}\n    {proposes(5)}"))
    world.run(8.0, router)
    assert len(agent.instances) == 3, "what is not known changes nothing"
    assert world.row()["breaker_open"] is True
    assert world.row()["problem"]
    assert "policy.breaker_open" in world.told()

    await world.file(None)
    world.run(8.0, router)
    assert len(agent.instances) == 3, "the number is held"
    assert world.told()[-1] == "policy.gone"

    await world.file(scaler(proposes(2)))
    world.run(60.0, router)
    assert len(agent.instances) == 2
    assert (world.row()["breaker_open"], world.row()["problem"]) == (False, "")
