"""When an engine is started with sleep mode, and how it is told."""

from typing import Any

import pytest

from supervisord_cp.engines.fake_launch import FakeEngine
from supervisord_cp.engines.vllm import VllmEngine
from supervisord_cp.engines.vllm_sleep import answer_of
from supervisord_cp.model.launch import EngineKind, SleepLevel
from tests.engines.samples import EVERYTHING, context, spec

ALLOWED = {"dev_mode": True}
FAR = {"host": "192.168.1.100"}


@pytest.mark.parametrize(
    ("where", "what", "sleeps"),
    [
        (ALLOWED, {}, True),
        (ALLOWED, {"sleep": SleepLevel.LEVEL2}, True),
        (ALLOWED, {"sleep": SleepLevel.NONE}, False),
        ({}, {}, False),
        ({**ALLOWED, **FAR, "api_key": "key"}, {}, True),
        ({**ALLOWED, **FAR}, {}, False),
        ({**ALLOWED, "host": "::1"}, {}, True),
        ({**ALLOWED, "device_kind": "cpu"}, {}, False),
        (ALLOWED, {"args": {"enable-sleep-mode": False}}, False),
    ],
)
def test_only_where_node_and_port_allow_it(where: dict[str, Any], what: dict[str, Any], sleeps: bool) -> None:
    prepared = VllmEngine().prepare(
        spec(**{"sleep": SleepLevel.LEVEL1, **what}), context(**where), EVERYTHING
    )
    assert (prepared.sleep_mode is not None) is sleeps
    assert ("--enable-sleep-mode" in prepared.argv) is sleeps
    assert (prepared.env.get("VLLM_SERVER_DEV_MODE") == "1") is sleeps


def test_the_fake_engine_sleeps_on_cpu_too() -> None:
    fake = spec(engine=EngineKind.FAKE, sleep=SleepLevel.LEVEL1)
    assert FakeEngine().prepare(fake, context(device_kind="cpu", dev_mode=True), EVERYTHING).sleep_mode


@pytest.mark.parametrize(
    ("level", "sleep", "wake"),
    [
        (SleepLevel.LEVEL1, ["/sleep?level=1"], ["/wake_up"]),
        (
            SleepLevel.LEVEL2,
            ["/sleep?level=2"],
            ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache"],
        ),
    ],
)
def test_the_calls_of_each_level(level: SleepLevel, sleep: list[str], wake: list[str]) -> None:
    mode = VllmEngine().prepare(spec(sleep=level), context(dev_mode=True), EVERYTHING).sleep_mode
    assert mode is not None
    assert ([call.path for call in mode.sleep], [call.path for call in mode.wake]) == (sleep, wake)
    assert mode.canary.body is not None
    assert (mode.canary.body["model"], mode.canary.body["temperature"]) == ("llama", 0)


def test_the_answer_of_a_completion() -> None:
    assert answer_of(b'{"id": "x", "choices": [{"index": 0, "text": " Paris"}]}') == " Paris"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices": []}', b'{"choices": [{"text": ""}]}', b"{}"])
def test_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no completion|an empty answer"):
        answer_of(body)
