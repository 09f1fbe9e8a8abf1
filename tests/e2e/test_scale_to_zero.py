"""At zero, asleep, and what wakes: the real daemons with fake engines."""

import asyncio
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.e2e.local import Up, configured, running
from tests.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

AT_ONCE = 30
AGENT = """slots = 3
[agent.allow]
dev_mode = true
"""
DEPLOYMENT = """
[deployments.{name}]
engine = "fake"
model = "{name}"
sleep = "level2"
env = {{ FAKE_VLLM = '{knobs}' }}
[deployments.{name}.autoscale]
min = 0
max = 1
idle_s = 1
behavior = {{ scale_down = {{ stabilization_window_s = 1 }} }}
scalers = [{{ use = "hpa", params = {{ signal = "concurrency", target_average_value = 100 }} }}]
"""
KNOBS = {"well": "{}", "odd": '{"wake_garbled": true}', "slow": '{"load_s": 900}'}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("zero")
    text = "".join(DEPLOYMENT.format(name=name, knobs=knobs) for name, knobs in KNOBS.items())
    with running(folder, "-c", str(configured(folder, text, AGENT))) as up:
        eventually(lambda: knows(up.api, "slow"), "the router knows its deployments", tell=lambda: up.output)
        yield up


def knows(api: str, name: str) -> bool:
    try:
        models = httpx.get(f"{api}/v1/models").json().get("data", ())
    except httpx.ConnectError:
        return False
    return any(model["id"] == name for model in models)


def states(up: Up, name: str) -> list[str]:
    return [one["state"] for one in up.instances().values() if one["deployment"] == name]


async def ask(up: Up, model: str, requests: int) -> list[httpx.Response]:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": model, "prompt": "The capital of Spain is", "max_tokens": 8}
        return await asyncio.gather(
            *(client.post(f"{up.api}/v1/completions", json=body) for _ in range(requests))
        )


def texts(answers: list[httpx.Response]) -> set[str]:
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return {answer.json()["choices"][0]["text"] for answer in answers}


@pytest.mark.asyncio
async def test_one_start_and_one_waking_serve_all_that_wait(up: Up) -> None:
    assert states(up, "well") == []
    (text,) = texts(await ask(up, "well", AT_ONCE))
    ((name, first),) = ((n, i) for n, i in up.instances().items() if i["deployment"] == "well")
    assert first["ready"]
    await asyncio.to_thread(eventually, lambda: states(up, "well") == ["sleeping"], "it sleeps")
    assert texts(await ask(up, "well", AT_ONCE)) == {text}
    again = up.instances()[name]
    assert (again["pid"], again["restarts"]) == (first["pid"], 0), "woken, not started"


@pytest.mark.asyncio
async def test_one_that_wakes_with_other_answers_never_serves_anybody(up: Up) -> None:
    (text,) = texts(await ask(up, "odd", 1))
    first = next(i for i in up.instances().values() if i["deployment"] == "odd")
    await asyncio.to_thread(eventually, lambda: states(up, "odd") == ["sleeping"], "it sleeps")
    assert texts(await ask(up, "odd", AT_ONCE)) == {text}
    again = next(i for i in up.instances().values() if i["deployment"] == "odd")
    assert again["pid"] != first["pid"]
    assert again["last_exit"]["cause"] == "sleep_mode"
    assert "before it slept and answers" in again["last_exit"]["detail"]


@pytest.mark.asyncio
async def test_a_start_that_nobody_waits_for_any_more_is_cancelled(up: Up) -> None:
    waiting = asyncio.create_task(ask(up, "slow", 3))
    await asyncio.to_thread(eventually, lambda: states(up, "slow") == ["starting"], "it starts")
    (engine,) = (one["pid"] for one in up.instances().values() if one["deployment"] == "slow")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread(eventually, lambda: states(up, "slow") == [], "its start is cancelled")
    assert not psutil.pid_exists(engine)
    told = [event["message"] for event in up.look("events") if event["subject"] == "slow"]
    assert [message.partition(":")[0] for message in told if "->" in message] == ["0 -> 1", "1 -> 0"], told


@pytest.mark.asyncio
async def test_an_unknown_model_is_unknown_whatever_stands_at_zero(up: Up) -> None:
    (answer,) = await ask(up, "nobody", 1)
    assert answer.status_code == 404
    assert answer.headers["x-supervisord-cp-reason"] == "model_unknown"
