"""Why a deployment has its number of replicas, over the API: now, then, and lately."""

import msgspec
import pytest

from supervisord_cp.central.operations import Operations
from supervisord_cp.config.schema import AutoscaleConfig, PrometheusConfig
from supervisord_cp.model.fleet import PolicyUse
from tests.central.fleet import World, deployment
from tests.central.test_http import serving

FOLLOW = PolicyUse(use="hpa", params={"query": "waiting", "target_average_value": 4})


def world_of(*uses: PolicyUse, **fields: object) -> World:
    given: dict = {"min": 1, "max": 3, **fields}
    made = World(deployment(autoscale=AutoscaleConfig(scalers=uses, **given)))
    made.controller.config = made.config = msgspec.structs.replace(
        made.config, prometheus=PrometheusConfig(url="http://127.0.0.1:9", queries={"waiting": "sum(w)"})
    )
    return made


@pytest.mark.asyncio
async def test_a_limit_is_told_with_what_there_would_be_without_it() -> None:
    world = world_of(PolicyUse(use="fixed", params={"replicas": 5}))
    world.agent(slots=4)
    world.run(30.0)
    async with serving(world) as served, served.session.get("/api/v1/explain/deployment/chat") as answer:
        told = await answer.json()
    assert told["decision"]["wanted"] == 3
    assert told["proposals"][0] == {
        "policy": "fixed",
        "params": {"replicas": 5},
        "replicas": 5.0,
        "at_least": None,
        "at_most": None,
        "reason": "fixed",
        "message": "fixed at 5",
    }
    assert [limit["message"] for limit in told["limits"]] == ["lowered to the maximum of 3: fixed asks for 5"]
    assert told["otherwise"][0]["if"] == "without the maximum of 3"
    assert (told["otherwise"][0]["then"], told["otherwise"][0]["because"]) == (5, "fixed at 5")
    assert told["events"]


@pytest.mark.asyncio
async def test_inputs_have_their_state_age_and_source() -> None:
    world = world_of(FOLLOW)
    world.agent(slots=4)
    world.router()
    world.run(10.0)
    async with serving(world) as served, served.session.get("/api/v1/explain/deployment/chat") as answer:
        told = await answer.json()
    assert told["decision"]["held"]
    inputs = {one["name"]: one for one in told["inputs"]}
    assert inputs["queued"]["source"] == "router"
    assert inputs["queued"]["state"] == "missing"
    assert inputs["queued"]["value"] is None
    assert inputs["queued"]["detail"] == "router r1 has not reported"
    assert told["otherwise"][0]["reason"] == "if_known"
    assert told["otherwise"][0]["then"] is None


@pytest.mark.asyncio
async def test_earlier_decisions() -> None:
    world = world_of(PolicyUse(use="fixed", params={"replicas": 2}))
    world.agent(slots=4)
    world.run(10.0)
    then = world.wall
    world.run(5.0)
    Operations(world.controller).scale("chat", 4, None)
    world.run(5.0)
    async with serving(world) as served:
        path = "/api/v1/explain/deployment/chat"
        async with served.session.get(path, params={"last": "10"}) as answer:
            lately = (await answer.json())["decisions"]
        async with served.session.get(path, params={"at": str(then)}) as answer:
            earlier = await answer.json()
        async with served.session.get(path, params={"at": "1"}) as answer:
            none = answer.status
        async with served.session.get(path, params={"last": "many"}) as answer:
            wrong = answer.status, (await answer.json())["error"]
    assert [one["wanted"] for one in lately][-2:] == [2, 4]
    assert lately[-1]["reason"] == "override"
    assert earlier["decision"]["wanted"] == 2
    assert earlier["decision"]["at"] <= then
    assert none == 404
    assert wrong == (400, "last must be a number, not 'many'")


@pytest.mark.asyncio
async def test_an_unknown_deployment() -> None:
    async with serving(World()) as served:
        async with served.session.get("/api/v1/explain/deployment/nobody") as answer:
            assert (answer.status, (await answer.json())["error"]) == (404, "no deployment named nobody")
        async with served.session.get("/api/v1/explain/weather/x") as answer:
            assert answer.status == 404
