"""What the daemon is told of its log holds for the processes it starts."""

import json
import os
from pathlib import Path

import pytest

from tests.router.kit import Engine
from tests.router_processes.kit import router_of
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio, pytest.mark.process]

BY_OPTION = (["--log-format", "json", "--log-level", "debug"], {})
BY_VARIABLE = ([], {"SUPERVISORD_CP_LOG_FORMAT": "json", "SUPERVISORD_CP_LOG": "debug"})


@pytest.mark.parametrize(("words", "variables"), [BY_OPTION, BY_VARIABLE], ids=["option", "variable"])
async def test_all_processes_of_a_router_log_in_the_format_and_at_the_level(
    words: list[str], variables: dict[str, str], tmp_path: Path
) -> None:
    async with router_of(tmp_path, Engine()) as router:
        await router.start(*words, environ={**os.environ, **variables})
        assert await router.ask() == 200
        await until(lambda: "router.requests" in router.log.read_text(), "the request is logged")
        lines = [json.loads(line) for line in router.log.read_text().splitlines()]
    assert {"router.holder", "router.app", "router.requests"} <= {line["logger"] for line in lines}
    (request,) = [line for line in lines if line["logger"] == "router.requests"]
    assert request["status"] == 200
    assert request["request_id"]


async def test_by_default_a_router_writes_nothing_for_a_request(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine()) as router:
        await router.start()
        before = router.log.read_text()
        for _ in range(5):
            assert await router.ask() == 200
        router.holder.terminate()
        assert router.holder.wait(PATIENCE_S) == 0
        said = router.log.read_text().removeprefix(before)
    assert "router.holder" in said, "its end is logged after the requests"
    assert "request" not in said
