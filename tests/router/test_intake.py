"""Which deployment a request is for, which paths are let through, whose keys count."""

import json
import os
from pathlib import Path

import pytest

from tests.router.kit import Rig, deployment, instance, rig, says
from tests.waiting import until

pytestmark = pytest.mark.asyncio


async def test_the_model_names_the_deployment(router: Rig) -> None:
    a, b = await router.engine(says({"from": "a"})), await router.engine(says({"from": "b"}))
    router.serve(
        instance(a, deployment="a"),
        instance(b, deployment="b"),
        deployments=(deployment("a", "llama", "default"), deployment("b", "qwen", "my-lora")),
    )
    for model, engine in {"llama": "a", "default": "a", "a": "a", "qwen": "b", "my-lora": "b"}.items():
        assert (await router.ask({"model": model})).json() == {"from": engine}
    form = (
        b'--XX\r\ncontent-disposition: form-data; name="file"; filename="model"\r\n\r\nqwen\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nqwen\r\n--XX--\r\n'
    )
    client = await router.client()
    client.send(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: t\r\n"
        b"content-type: multipart/form-data; boundary=XX\r\n"
        b"content-length: %d\r\n\r\n" % len(form) + form
    )
    assert (await client.answer()).json() == {"from": "b"}
    assert b.asked[-1].body == form
    client.send(b"GET /v1/whatever?x=1&model=qwen HTTP/1.1\r\nhost: t\r\n\r\n")
    assert (await client.answer()).json() == {"from": "b"}


async def test_the_only_deployment_is_meant_without_a_model(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    assert (await router.ask({"input": "x"}, path="/tokenize")).status == 200
    assert (await router.ask(b"", path="/v1/thing", method="GET")).status == 200


async def test_stored_responses_are_found_where_they_were_made(router: Rig) -> None:
    engines = [await router.engine(says({"id": f"resp_{n}", "from": n})) for n in range(3)]
    router.serve(
        *(instance(engine, n) for n, engine in enumerate(engines)),
        instance("http://127.0.0.1:9", deployment="x"),
    )
    made: set[int] = set()
    while len(made) < 3:
        made.add((await router.ask({"model": "chat"}, path="/v1/responses")).json()["from"])
    for _ in range(4):
        for n in range(3):
            found = await router.ask(b"", path=f"/v1/responses/resp_{n}", method="GET")
            assert found.json()["from"] == n
            cancelled = await router.ask(b"", path=f"/v1/responses/resp_{n}/cancel")
            assert cancelled.json()["from"] == n
            follow = {"model": "chat", "previous_response_id": f"resp_{n}"}
            assert (await router.ask(follow, path="/v1/responses")).json()["from"] == n
    # what is stored is there only: a draining instance still answers for it
    router.serve(instance(engines[0], draining=True), instance(engines[1], 1), instance(engines[2], 2))
    assert (await router.ask(b"", path="/v1/responses/resp_0", method="GET")).json()["from"] == 0
    # a new incarnation has forgotten it: anyone may say so
    router.serve(instance(engines[0], life="b"), instance(engines[1], 1))
    assert (await router.ask(b"", path="/v1/responses/resp_0", method="GET")).status == 200


async def test_models_are_those_of_all_deployments(router: Rig) -> None:
    router.serve(
        deployments=(
            deployment("a", "llama", "default"),
            deployment("b", "org/qwen"),
            deployment("c", "llama"),
        )
    )
    listed = (await router.ask(b"", path="/v1/models", method="GET")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["llama", "default", "org/qwen"]
    assert all(m["object"] == "model" and m["created"] and m["owned_by"] for m in listed["data"])
    one = await router.ask(b"", path="/v1/models/org%2Fqwen", method="GET")
    assert one.json()["id"] == "org/qwen"
    missing = await router.ask(b"", path="/v1/models/none", method="GET")
    assert (missing.status, missing.reason) == (404, "model_unknown")
    assert (await router.ask(b"", path="/v1/models")).status == 400


async def test_health(router: Rig) -> None:
    assert (await router.ask(b"", path="/health", method="GET")).status == 503
    router.serve(deployments=())
    answer = await router.ask(b"", path="/health", method="GET", headers="x-request-id: mine\r\n")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-request-id"] == "mine"
    router.dispatcher.draining = True
    assert (await router.ask(b"", path="/health", method="GET")).status == 503


@pytest.mark.parametrize(
    "path",
    [
        "/sleep",
        "/wake_up",
        "/metrics",
        "/collective_rpc",
        "/v1/load_lora_adapter",
        "/",
        "/docs",
        "/SLEEP",
        "/sleep/",
        "//sleep",
        "/./sleep",
        "/x/../sleep",
        "/v1/../sleep",
        "/v1/%2e%2e/sleep",
        "/%73leep",
        "/%2573leep",
        "/sleep;x=1",
        "/v1/chat/completions/../../../sleep",
        "/v1/..;/sleep",
        "/v1/x\\..\\..\\sleep",
        "/v1//load_lora_adapter",
        "/v1/load_lora_adapter%20",
    ],
)
async def test_control_routes_are_closed(router: Rig, path: str) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    answer = await router.ask(b"", path=path)
    assert (answer.status, answer.reason) == (403, "engine_route_denied")
    assert engine.asked == []


async def test_a_deployment_may_open_control_routes_by_name(router: Rig) -> None:
    a, b = await router.engine(), await router.engine()
    router.serve(
        instance(a, deployment="a"),
        instance(b, deployment="b"),
        deployments=(deployment("a", allow_paths=("/sleep", "v1/load_lora_adapter")), deployment("b")),
    )
    assert (await router.ask({"model": "a"}, path="/v1/load_lora_adapter")).status == 200
    assert (await router.ask(b"", path="/sleep?model=a&level=1")).status == 200
    assert (await router.ask(b"", path="/sleep?model=b&level=1")).reason == "engine_route_denied"
    assert (await router.ask(b"", path="/sleep")).reason == "model_missing"
    assert (await router.ask(b"", path="/wake_up?model=a")).reason == "engine_route_denied"
    assert (len(a.asked), len(b.asked)) == (2, 0)


async def test_whose_authorization_goes_to_the_engine(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice\n")
    sent = "authorization: Bearer sk-alice\r\nx-api-key: sk-alice\r\n"
    for ours in (False, True):
        async with rig(keys=keys if ours else None) as router:
            engine = await router.engine()
            router.serve(instance(engine))
            assert (await router.ask({}, headers=sent)).status == 200
            router.dispatcher.use_keys({"chat-0.a": "sk-engine"})  # type: ignore[dict-item]
            assert (await router.ask({}, headers=sent)).status == 200
            first, second = (asked.headers for asked in engine.asked)
            assert first.get("authorization") == (None if ours else "Bearer sk-alice")
            assert first.get("x-api-key") == (None if ours else "sk-alice")
            assert second["authorization"] == "Bearer sk-engine"
            assert "x-api-key" not in second


async def test_keys_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: one\n")
    async with rig(keys=keys) as router:
        engine = await router.engine()
        router.serve(instance(engine))

        async def status(key: str) -> int:
            router.dispatcher.refresh_keys()
            return (await router.ask({}, headers=f"x-api-key: {key}\r\n")).status

        assert [await status("one"), await status("two")] == [200, 401]
        keys.write_text("alice: two\nbob: three: with colon\n")
        os.utime(keys, (1, 1))
        assert [await status("one"), await status("two"), await status("three: with colon")] == [
            401,
            200,
            200,
        ]
        keys.write_text("nonsense")
        assert await status("two") == 200  # as they were
        keys.unlink()
        assert await status("two") == 200
        keys.write_text("alice: four\n")
        assert [await status("two"), await status("four")] == [401, 200]
        assert (await router.ask(b"", path="/health", method="GET")).status == 200
        assert (await router.ask(b"", path="/v1/models", method="GET")).status == 401


async def test_the_rate_limit_is_each_keys_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: a\nbob: b\n")
    async with rig(keys=keys, rate_limit_rps=1.0) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        statuses = [
            (await router.ask({}, headers=f"x-api-key: {key}\r\n")).status for key in ("a", "a", "b", "b")
        ]
        assert statuses == [200, 429, 200, 429]


async def test_figures_are_told(router: Rig) -> None:
    engine = await router.engine(says({"usage": {"prompt_tokens": 5, "completion_tokens": 3}}))
    router.serve(instance(engine))
    await router.ask({})
    await router.ask({"model": 'un"known'})
    await until(lambda: not router.dispatcher.busy)
    text = router.dispatcher.metrics.render(router.dispatcher.fleet)
    lines = text.splitlines()
    assert 'supervisord_cp_requests_total{deployment="chat",code="200"} 1' in lines
    assert 'supervisord_cp_requests_total{deployment="",code="404"} 1' in lines
    assert 'supervisord_cp_rejected_total{reason="model_unknown"} 1' in lines
    assert 'supervisord_cp_queue_length{deployment="chat"} 0' in lines
    assert 'supervisord_cp_inflight_requests{deployment="chat",instance_id="chat-0"} 0' in lines
    for name in ("request_duration", "time_to_first_byte", "overhead"):
        assert f'supervisord_cp_{name}_seconds_count{{deployment="chat"}} 1' in lines
        assert f'supervisord_cp_{name}_seconds_bucket{{deployment="chat",le="+Inf"}} 1' in lines
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"supervisord_cp_retries", "supervisord_cp_queue_wait_seconds"} <= families


async def test_answers_of_ours_are_json(router: Rig) -> None:
    router.serve(deployments=(deployment("a"),))
    answer = await router.ask(b"", path="/v1/models", method="GET")
    assert answer.headers["content-type"] == "application/json"
    json.loads(answer.body)
